"""All-CNN: networks of convolutions only, and the networks with pooling that they replace.

J. T. Springenberg, A. Dosovitskiy, T. Brox, M. Riedmiller: "Striving for Simplicity: The All Convolutional Net", ICLR 2015 workshop,
arXiv:1412.6806. Table 1 has the base networks A, B and C. Table 2 has three ways to replace their poolings:

* ``reduction="pool"``: the base network.
* ``"stride"``: no pooling; the convolution before each pooling has stride 2 (Strided-CNN).
* ``"conv_pool"``: one more 3×3 convolution before each pooling (ConvPool-CNN).
* ``"conv"``: a 3×3 convolution with stride 2 in the place of each pooling (All-CNN).

Every convolution has a bias and a ReLU, also the last one. The last 3×3 convolution is not padded: the tables average over 6×6 positions.
Dropout is 20 % of the image, and 50 % after each pooling or the layer in its place (section 3.1). The initial variance is 2 / fan-in (He et
al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_deepnets import layers
from keras_deepnets.families.base import CIFAR10, Domain, Family, Paper, option
from keras_deepnets.families.checks import check_choice, check_probability, set_counts
from keras_deepnets.families.constructors import variant

PAPER = Paper(
    "S14",
    "Striving for Simplicity: The All Convolutional Net",
    "Springenberg et al.",
    2014,
    "https://arxiv.org/abs/1412.6806",
)

REDUCTIONS = ("conv", "pool", "stride", "conv_pool")
_KERNELS = {"A": (5,), "B": (5, 1), "C": (3, 3)}
"""Kernel sizes of the convolutions of the first two stages of each base network (Table 1)."""


@dataclass(frozen=True)
class AllCNNSpec:
    """Two stages of convolutions that halve the map, then three more convolutions. The last one is the classifier."""

    base: str = option("C", 'base network of Table 1: "A", "B" or "C".')
    reduction: str = option(
        "conv",
        'what halves a map: "conv", "pool", "stride" or "conv_pool" (Table 2; see `keras_deepnets.families.all_cnn`).',
    )
    filters: tuple[int, ...] = option((96, 192), "channels of the first stage, and of all other layers.")
    input_dropout: float = option(0.2, "probability to drop a value of the image.")
    dropout: float = option(0.5, "probability to drop a value after each pooling, or after the layer in its place.")

    def __post_init__(self):
        """Checks all values."""
        check_choice("AllCNN", "base", self.base, tuple(_KERNELS))
        check_choice("AllCNN", "reduction", self.reduction, REDUCTIONS)
        set_counts("AllCNN", self, "filters")
        check_probability("AllCNN", "input_dropout", self.input_dropout)
        check_probability("AllCNN", "dropout", self.dropout)

    @property
    def domain(self) -> Domain:
        """CIFAR-10."""
        return CIFAR10

    @property
    def depth(self) -> int:
        """Convolutions, with the classifier."""
        more = 1 if self.reduction in ("conv", "conv_pool") else 0
        return len(self.filters) * (len(_KERNELS[self.base]) + more) + 3

    @property
    def total_stride(self) -> int:
        """The smallest side of an input: its last map has one position after the convolution without padding."""
        return 2 ** len(self.filters) * 2 + 1


def features(x: Any, spec: AllCNNSpec) -> Any:
    """The network, from images to the input of the last 1×1 convolution."""
    x = layers.dropout(x, spec.input_dropout, name="input_dropout")
    for stage, filters in enumerate(spec.filters, start=1):
        kernels = [*_KERNELS[spec.base]] + ([3] if spec.reduction in ("conv", "conv_pool") else [])
        for number, kernel_size in enumerate(kernels, start=1):
            strides = 2 if spec.reduction in ("conv", "stride") and number == len(kernels) else 1
            x = _conv(x, filters, kernel_size, f"conv{stage}_{number}_conv", strides=strides)
        if spec.reduction in ("pool", "conv_pool"):
            x = layers.max_pool(x, 3, 2, padding="ceil", name=f"pool{stage}")
        x = layers.dropout(x, spec.dropout, name=f"stage{stage}_dropout")
    last, width = len(spec.filters) + 1, spec.filters[-1]
    x = _conv(x, width, 3, f"conv{last}_1_conv", padding=0)
    return _conv(x, width, 1, f"conv{last}_2_conv")


def _conv(x: Any, filters: int, kernel_size: int, name: str, **kwargs: Any) -> Any:
    return layers.biased_conv2d(x, filters, kernel_size, activation="relu", name=name, **kwargs)


def classifier(x: Any, spec: AllCNNSpec, classes: int, activation: Any) -> Any:
    """The last 1×1 convolution with its ReLU, and the averages of its maps."""
    return layers.map_classifier(x, classes, activation, map_activation="relu")


FAMILY = Family("AllCNN", AllCNNSpec, features, PAPER, ("reduction", "input_dropout", "dropout"), classifier=classifier)


def _row(base: str, error: str) -> Any:
    return variant(f"AllCNN_{base}", FAMILY, source=f"Table 2 for base network {base}", error=error, base=base)


AllCNN_A = _row("A", "10.30 %, CIFAR-10")
AllCNN_B = _row("B", "9.10 %, CIFAR-10")
AllCNN_C = _row("C", "9.08 %, CIFAR-10; 7.25 % with augmentation")
