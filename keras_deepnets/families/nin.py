"""Network in Network: convolutions followed by 1×1 convolutions, and a classifier that averages one map per class.

M. Lin, Q. Chen, S. Yan: "Network In Network", ICLR 2014, arXiv:1312.4400. The paper draws the structure (Figure 2) and gives no channels.
These are those of the authors' ``cifar-10_def`` for cuda-convnet.

* Every convolution has a bias and a ReLU, also the last one, before the averages (section 3.2 and the authors' definition).
* Poolings pad as in cuda-convnet: only after the last row and column. The authors' definition has two max poolings.
* Initial weights are drawn from N(0, 0.05²), as in the authors' definition. With the larger ones of He et al. 2015, the network dies at
  the authors' learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import CIFAR10, Domain, Family, Paper, option
from keras_deepnets.families.checks import check_choice, check_probability, set_counts, set_stages
from keras_deepnets.families.constructors import variant

PAPER = Paper("L13", "Network In Network", "Lin et al.", 2013, "https://arxiv.org/abs/1312.4400")

POOLINGS = ("max", "avg")
PADDINGS = ("ceil", "symmetric")
STDDEV = 0.05
"""Standard deviation of the initial weights."""


FILTERS = ((192, 160, 96), (192, 192, 192), (192, 192))
"""Channels of the convolutions of each stage of the networks for CIFAR, without the classifier."""


@dataclass(frozen=True)
class StagesSpec:
    """Stages of one spatial and two 1×1 convolutions, with pooling between them.

    The last 1×1 convolution of the last stage is the classifier.
    """

    filters: tuple[tuple[int, ...], ...] = option(
        FILTERS, "channels of the convolutions of each stage, without the classifier."
    )
    kernels: tuple[int, ...] = option((5, 5, 3), "odd kernel size of the first convolution of each stage.")
    dropout: float = option(0.5, "probability to drop a value after each pooling.")

    owner: ClassVar[str] = "NIN"

    def __post_init__(self):
        """Checks all values."""
        set_stages(self.owner, self, "filters", str(FILTERS))
        set_counts(self.owner, self, "kernels")
        if len(self.kernels) != len(self.filters) or any(kernel % 2 == 0 for kernel in self.kernels):
            raise InputError(
                f"{self.owner}: kernels={self.kernels} must have one odd number for each of the {len(self.filters)} stages."
            )
        check_probability(self.owner, "dropout", self.dropout)

    @property
    def domain(self) -> Domain:
        """CIFAR-10."""
        return CIFAR10

    @property
    def depth(self) -> int:
        """Convolutions, with the classifier."""
        return sum(map(len, self.filters)) + 1

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return 2 ** (len(self.filters) - 1)


@dataclass(frozen=True)
class NINSpec(StagesSpec):
    """The network of Figure 2."""

    pool2: str = option("max", 'second pooling: "max" as in the authors\' definition, or "avg".')
    pool_padding: str = option(
        "ceil",
        'padding of the poolings: "ceil" (after the last row and column, as in the authors\' definition), or "symmetric" (as in '
        "pytorchcv, whose averages count the zeros).",
    )

    def __post_init__(self):
        """Checks all values."""
        super().__post_init__()
        check_choice(self.owner, "pool2", self.pool2, POOLINGS)
        check_choice(self.owner, "pool_padding", self.pool_padding, PADDINGS)


def pool(x: Any, kind: str, padding: str, name: str) -> Any:
    """3×3 pooling at stride 2."""
    if kind == "max":
        return layers.max_pool(x, 3, 2, padding=padding, name=name)
    if padding == "symmetric":
        return layers.average_pool_with_zeros(x, 3, 2, name=name)
    return layers.average_pool(x, 3, 2, padding="ceil", name=name)


def features(x: Any, spec: Any, *, apart: bool = False) -> Any:
    """The network, from images to the input of the last 1×1 convolution.

    With `apart`, the first convolution of each stage and its ReLU are two layers. Others can then read the convolution's output.
    """
    for stage, (filters, kernel_size) in enumerate(zip(spec.filters, spec.kernels, strict=True), start=1):
        if stage > 1:
            kind = spec.pool2 if stage > 2 else "max"
            x = pool(x, kind, spec.pool_padding, f"pool{stage - 1}")
            x = layers.dropout(x, spec.dropout, name=f"pool{stage - 1}_dropout")
        for number, count in enumerate(filters, start=1):
            size = kernel_size if number == 1 else 1
            before = apart and number == 1
            x = layers.biased_conv2d(
                x,
                count,
                size,
                activation=None if before else "relu",
                stddev=STDDEV,
                name=f"conv{stage}_{number}_conv",
            )
            if before:
                x = layers.activation(x, name=f"conv{stage}_{number}_relu")
    return x


def classifier(x: Any, spec: NINSpec, classes: int, activation: Any) -> Any:
    """The last 1×1 convolution with its ReLU, and the averages of its maps (section 3.2)."""
    return layers.map_classifier(x, classes, activation, map_activation="relu", stddev=STDDEV)


FAMILY = Family("NIN", NINSpec, features, PAPER, ("pool2", "pool_padding", "dropout"), classifier=classifier)

NIN = variant(
    "NIN",
    FAMILY,
    source="Figure 2, with the channels of the authors' definition for CIFAR-10",
    error="10.41 %, CIFAR-10; 8.81 % with augmentation",
    filters=FILTERS,
)
