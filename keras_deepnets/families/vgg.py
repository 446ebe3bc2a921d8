"""VGG: stages of 3×3 convolutions, and a classifier of three fully connected layers.

K. Simonyan, A. Zisserman: "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, arXiv:1409.1556. Table 1 has
the configurations A (11 layers), B (13), C (16, with 1×1 convolutions), D (16) and E (19).

* The networks with batch normalisation are torchvision's. The paper has none. Convolutions keep their biases.
* For images of other sizes, the last feature map is pooled to 7×7 as in torchvision. At 224×224 pixels it has that size already.
* The initial variance is 2 / fan-in (He et al. 2015). The paper draws from N(0, 0.01²) and starts deep networks from trained shallow ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import IMAGENET, Domain, Family, Paper, option
from keras_deepnets.families.checks import check_counts, check_probability, set_counts
from keras_deepnets.families.constructors import builder, variant

PAPER = Paper(
    "V14",
    "Very Deep Convolutional Networks for Large-Scale Image Recognition",
    "Simonyan & Zisserman",
    2014,
    "https://arxiv.org/abs/1409.1556",
)

_OWNER = "VGG"


@dataclass(frozen=True)
class VGGSpec:
    """Stages of convolutions with 2×2 max pooling after each, then hidden layers and the classifier (Table 1)."""

    convolutions: tuple[int, ...] = option((2, 2, 3, 3, 3), "convolutions per stage.")
    filters: tuple[int, ...] = option((64, 128, 256, 512, 512), "channels per stage.")
    last_kernels: tuple[int, ...] | None = option(
        None, "odd kernel size of the last convolution of each stage. All others are 3×3. Default: all are 3×3."
    )
    batch_norm: bool = option(False, "batch normalisation after each convolution.")
    pooled_size: int = option(7, "side of the map that the hidden layers see. Maps of other sizes are pooled to it.")
    hidden: tuple[int, ...] = option((4096, 4096), "units of the hidden layers before the classifier, possibly none.")
    dropout: float = option(0.5, "probability to drop a unit of a hidden layer.")

    def __post_init__(self):
        """Checks all values."""
        set_counts(_OWNER, self, "convolutions", "filters")
        if self.last_kernels is None:
            object.__setattr__(self, "last_kernels", (3,) * len(self.convolutions))
        set_counts(_OWNER, self, "last_kernels")
        set_counts(_OWNER, self, "hidden", empty=True)
        if len({len(self.convolutions), len(self.filters), len(self.last_kernels or ())}) > 1:
            raise InputError(
                f"{_OWNER}: convolutions={self.convolutions}, filters={self.filters} and last_kernels={self.last_kernels} "
                "must each have one number per stage."
            )
        if any(kernel % 2 == 0 for kernel in self.last_kernels or ()):
            raise InputError(f"{_OWNER}: last_kernels={self.last_kernels} must be odd, e.g. (3, 3, 1, 1, 1).")
        check_counts(_OWNER, pooled_size=self.pooled_size)
        check_probability(_OWNER, "dropout", self.dropout)

    @property
    def domain(self) -> Domain:
        """ImageNet."""
        return IMAGENET

    @property
    def depth(self) -> int:
        """Convolutions and fully connected layers, counted as in Table 1."""
        return sum(self.convolutions) + len(self.hidden) + 1

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return 2 ** len(self.filters)


def features(x: Any, spec: VGGSpec) -> Any:
    """The convolutions of Table 1, from images to the last feature map."""
    stages = zip(spec.convolutions, spec.filters, spec.last_kernels or (), strict=True)
    for stage, (count, filters, last) in enumerate(stages, start=1):
        for number in range(1, count + 1):
            kernel_size, name = last if number == count else 3, f"block{stage}_conv{number}"
            if spec.batch_norm:
                x = layers.biased_conv2d(x, filters, kernel_size, name=name)
                x = layers.norm_activation(x, ("bn", "relu"), name=name)
            else:
                x = layers.biased_conv2d(x, filters, kernel_size, activation="relu", name=name)
        x = layers.max_pool(x, 2, padding="valid", name=f"block{stage}_pool")
    return x


def head(x: Any, spec: VGGSpec) -> Any:
    """The hidden layers, from the last feature map to the input of the classifier."""
    x = layers.flatten(layers.adaptive_average_pool(x, spec.pooled_size, name="pooled"), name="flatten")
    for number, units in enumerate(spec.hidden, start=1):
        x = layers.biased_dense(x, units, activation="relu", name=f"fc{number}")
        x = layers.dropout(x, spec.dropout, name=f"fc{number}_dropout")
    return x


_OPTIONS = ("pooled_size", "hidden", "dropout")
FAMILY = Family("VGG", VGGSpec, features, PAPER, _OPTIONS, head, r"fc\d+")

VGG = builder("VGG", FAMILY)


def _row(depth: int, letter: str, convolutions: tuple[int, ...], top1: float, suffix: str = "", **row: Any) -> Any:
    return variant(
        f"VGG{depth}{suffix}",
        FAMILY,
        source=f"Table 1, configuration {letter}",
        error=f"{top1:.1f} % top-1, ImageNet validation, single scale" if top1 else "",
        convolutions=convolutions,
        **row,
    )


VGG11 = _row(11, "A", (1, 1, 2, 2, 2), 29.6)
VGG13 = _row(13, "B", (2, 2, 2, 2, 2), 28.7)
VGG16 = _row(16, "D", (2, 2, 3, 3, 3), 25.6)
VGG16C = _row(16, "C", (2, 2, 3, 3, 3), 27.3, "C", last_kernels=(3, 3, 1, 1, 1))
VGG19 = _row(19, "E", (2, 2, 4, 4, 4), 25.5)
VGG11_BN = _row(11, "A, with batch normalisation (torchvision)", (1, 1, 2, 2, 2), 0, "_BN", batch_norm=True)
VGG13_BN = _row(13, "B, with batch normalisation (torchvision)", (2, 2, 2, 2, 2), 0, "_BN", batch_norm=True)
VGG16_BN = _row(16, "D, with batch normalisation (torchvision)", (2, 2, 3, 3, 3), 0, "_BN", batch_norm=True)
VGG19_BN = _row(19, "E, with batch normalisation (torchvision)", (2, 2, 4, 4, 4), 0, "_BN", batch_norm=True)
