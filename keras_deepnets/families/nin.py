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
from typing import Any

from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import CIFAR10, Domain, Family, Paper, option
from keras_deepnets.families.checks import check_choice, check_counts, check_probability
from keras_deepnets.families.constructors import variant

PAPER = Paper("L13", "Network In Network", "Lin et al.", 2013, "https://arxiv.org/abs/1312.4400")

POOLINGS = ("max", "avg")
PADDINGS = ("ceil", "symmetric")
STDDEV = 0.05
"""Standard deviation of the initial weights."""


@dataclass(frozen=True)
class NINSpec:
    """Stages of one spatial and two 1×1 convolutions, with pooling between them.

    The last 1×1 convolution of the last stage is the classifier.
    """

    filters: tuple[tuple[int, ...], ...] = option(
        ((192, 160, 96), (192, 192, 192), (192, 192)),
        "channels of the convolutions of each stage, without the classifier.",
    )
    kernels: tuple[int, ...] = option((5, 5, 3), "odd kernel size of the first convolution of each stage.")
    pool2: str = option("max", 'second pooling: "max" as in the authors\' definition, or "avg".')
    pool_padding: str = option(
        "ceil",
        'padding of the poolings: "ceil" (after the last row and column, as in the authors\' definition), or "symmetric" (as in '
        "pytorchcv, whose averages count the zeros).",
    )
    dropout: float = option(0.5, "probability to drop a value after each pooling.")

    def __post_init__(self):
        """Checks all values."""
        check_stages("NIN", self)
        check_choice("NIN", "pool2", self.pool2, POOLINGS)
        check_choice("NIN", "pool_padding", self.pool_padding, PADDINGS)
        check_probability("NIN", "dropout", self.dropout)

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


def check_stages(owner: str, spec: Any) -> None:
    """Checks ``filters`` and ``kernels`` of a spec, and makes them tuples."""
    example = "((192, 160, 96), (192, 192, 192), (192, 192))"
    stages = spec.filters
    if not isinstance(stages, (tuple, list)) or not stages or not all(isinstance(s, (tuple, list)) for s in stages):
        raise InputError(f"{owner}: filters={stages!r} must be a tuple of a tuple per stage, e.g. {example}.")
    stages = tuple(map(tuple, stages))
    if not all(stages):
        raise InputError(f"{owner}: filters={stages} has a stage without convolutions; e.g. {example}.")
    for stage in stages:
        check_counts(owner, filters=stage)
    if not isinstance(spec.kernels, (tuple, list)) or len(spec.kernels) != len(stages):
        raise InputError(
            f"{owner}: kernels={spec.kernels!r} must have one number for each of the {len(stages)} stages."
        )
    kernels = tuple(spec.kernels)
    check_counts(owner, kernels=kernels)
    if any(kernel % 2 == 0 for kernel in kernels):
        raise InputError(f"{owner}: kernels={kernels} must be odd, e.g. (5, 5, 3).")
    object.__setattr__(spec, "filters", stages)
    object.__setattr__(spec, "kernels", kernels)


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
    filters=((192, 160, 96), (192, 192, 192), (192, 192)),
)
