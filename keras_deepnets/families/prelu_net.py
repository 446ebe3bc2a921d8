"""PReLU-nets: convolutions with learned rectifiers and spatial pyramid pooling.

K. He, X. Zhang, S. Ren, J. Sun: "Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet Classification", ICCV 2015,
arXiv:1502.01852. Table 3 has the models A (19 layers), B (22) and C (22, wider).

* The spatial pyramid has 7×7, 3×3, 2×2 and 1×1 bins, with the bounds of He et al. 2014 (arXiv:1406.4729, Appendix A). Images of every
  size give the same number of features.
* Every channel of a convolution and every unit of a hidden layer has a separate slope. It starts at 0.25 and is not decayed.
* ``activation="relu"`` builds the network that Table 4 compares model A with.
* The initial variance of the weights is 2 / fan-in (eq. 10).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import IMAGENET, Domain, Family, Paper, option
from keras_deepnets.families.checks import check_choice, check_counts, check_probability, set_counts
from keras_deepnets.families.constructors import builder, variant

PAPER = Paper(
    "H15b",
    "Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet Classification",
    "He et al.",
    2015,
    "https://arxiv.org/abs/1502.01852",
)

_OWNER = "PReLUNet"
ACTIVATIONS = ("prelu", "shared_prelu", "relu")


@dataclass(frozen=True)
class PReLUNetSpec:
    """A 7×7 convolution at stride 2, stages of 3×3 convolutions with 2×2 max pooling before each, pyramid and hidden layers (Table 3)."""

    convolutions: tuple[int, ...] = option((5, 5, 5), "3×3 convolutions per stage.")
    filters: tuple[int, ...] = option((256, 512, 512), "channels per stage.")
    stem_filters: int = option(96, "channels of the 7×7 convolution.")
    activation: str = option("prelu", '"prelu" (a slope per channel), "shared_prelu" (one slope per layer) or "relu".')
    pyramid: tuple[int, ...] = option((7, 3, 2, 1), "sides of the levels of the spatial pyramid, in bins.")
    hidden: tuple[int, ...] = option((4096, 4096), "units of the hidden layers before the classifier, possibly none.")
    dropout: float = option(0.5, "probability to drop a unit of a hidden layer.")

    def __post_init__(self):
        """Checks all values."""
        set_counts(_OWNER, self, "convolutions", "filters", "pyramid")
        set_counts(_OWNER, self, "hidden", empty=True)
        if len(self.convolutions) != len(self.filters):
            raise InputError(
                f"{_OWNER}: convolutions={self.convolutions} and filters={self.filters} must each have one number per stage."
            )
        check_counts(_OWNER, stem_filters=self.stem_filters)
        check_choice(_OWNER, "activation", self.activation, ACTIVATIONS)
        check_probability(_OWNER, "dropout", self.dropout)

    @property
    def domain(self) -> Domain:
        """ImageNet."""
        return IMAGENET

    @property
    def depth(self) -> int:
        """Convolutions and fully connected layers, counted as in Table 3."""
        return 1 + sum(self.convolutions) + len(self.hidden) + 1

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return 2 ** (1 + len(self.filters))


def _activation(x: Any, spec: PReLUNetSpec, name: str) -> Any:
    if spec.activation == "relu":
        return layers.activation(x, name=f"{name}_relu")
    return layers.prelu(x, shared=spec.activation == "shared_prelu", name=f"{name}_prelu")


def features(x: Any, spec: PReLUNetSpec) -> Any:
    """The convolutions of Table 3, from images to the last feature map."""
    x = layers.biased_conv2d(x, spec.stem_filters, 7, strides=2, name="conv1")
    x = _activation(x, spec, "conv1")
    for stage, (count, filters) in enumerate(zip(spec.convolutions, spec.filters, strict=True), start=2):
        x = layers.max_pool(x, 2, padding="valid", name=f"pool{stage - 1}")
        for number in range(1, count + 1):
            x = layers.biased_conv2d(x, filters, 3, name=f"conv{stage}_{number}")
            x = _activation(x, spec, f"conv{stage}_{number}")
    return x


def head(x: Any, spec: PReLUNetSpec) -> Any:
    """The spatial pyramid and the hidden layers, from the last feature map to the input of the classifier."""
    x = layers.spatial_pyramid_pool(x, spec.pyramid, name="spp")
    for number, units in enumerate(spec.hidden, start=1):
        x = _activation(layers.biased_dense(x, units, name=f"fc{number}"), spec, f"fc{number}")
        x = layers.dropout(x, spec.dropout, name=f"fc{number}_dropout")
    return x


_OPTIONS = ("activation", "pyramid", "hidden", "dropout")
FAMILY = Family("PReLUNet", PReLUNetSpec, features, PAPER, _OPTIONS, head, r"fc\d+(_prelu)?")

PReLUNet = builder("PReLUNet", FAMILY)


def _row(letter: str, errors: tuple[float, float], convolutions: tuple[int, ...], filters: tuple[int, ...]) -> Any:
    return variant(
        f"PReLUNet{letter}",
        FAMILY,
        source=f"Table 3, model {letter}",
        error=f"{errors[0]:.2f} % top-1, {errors[1]:.2f} % top-5, ImageNet validation, multi-scale dense test",
        convolutions=convolutions,
        filters=filters,
    )


PReLUNetA = _row("A", (22.97, 6.28), (5, 5, 5), (256, 512, 512))
PReLUNetB = _row("B", (22.85, 6.27), (6, 6, 6), (256, 512, 512))
PReLUNetC = _row("C", (21.59, 5.71), (6, 6, 6), (384, 768, 896))
