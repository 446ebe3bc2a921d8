"""Wide residual networks.

S. Zagoruyko, N. Komodakis: "Wide Residual Networks", BMVC 2016, arXiv:1605.07146.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from keras_deepnets.families import preact, resnet
from keras_deepnets.families.base import CIFAR10, Domain, Family, Paper, option
from keras_deepnets.families.checks import check_counts, check_probability, repeats_of_depth
from keras_deepnets.families.constructors import builder, variant
from keras_deepnets.families.preact import PreActSpec
from keras_deepnets.families.resnet import ResidualSpec

PAPER = Paper("Z16", "Wide Residual Networks", "Zagoruyko & Komodakis", 2016, "https://arxiv.org/abs/1605.07146")


@dataclass(frozen=True)
class WideSpec:
    """WRN-`depth`-`widen_factor` (Table 1): pre-activation units of two 3×3 convolutions, widened by `widen_factor`."""

    depth: int = option(28, "number of layers: 6n+4, including the three projections.")
    widen_factor: int = option(10, "widening factor k: the stages have 16k, 32k and 64k filters.")
    dropout: float = option(
        0.0, "dropout rate between the two convolutions of a unit (section 2.4: 0.3 on CIFAR, 0.4 on SVHN)."
    )

    owner: ClassVar[str] = "WideResNet"

    def __post_init__(self):
        """Checks all values."""
        check_counts(self.owner, widen_factor=self.widen_factor)
        check_probability(self.owner, "dropout", self.dropout)
        _ = self.preact

    @property
    def preact(self) -> PreActSpec:
        """The same network as a `PreActSpec`."""
        repeats = repeats_of_depth(self.owner, self.depth, 6, 4, "3 stages of units of two 3×3 convolutions")
        filters = tuple(16 * 2**stage * self.widen_factor for stage in range(3))
        return PreActSpec(blocks=(repeats,) * 3, stem="cifar", filters=filters, stem_filters=16, dropout=self.dropout)

    @property
    def domain(self) -> Domain:
        """CIFAR-10."""
        return CIFAR10

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return self.preact.total_stride


def features(x: Any, spec: WideSpec) -> Any:
    """The network of Table 1, from images to the last, activated feature map."""
    return preact.features(x, spec.preact)


FAMILY = Family("WideResNet", WideSpec, features, PAPER, ("dropout",))
IMAGENET_FAMILY = Family("WideResNet", ResidualSpec, resnet.features, PAPER, (*resnet.IMAGENET_OPTIONS, "dropout"))

WideResNet = builder("WideResNet", FAMILY)


def _cifar(depth: int, widen_factor: int, error: str) -> Any:
    name = f"WideResNet{depth}_{widen_factor}"
    return variant(name, FAMILY, source="Tables 1, 4 and 5", error=error, depth=depth, widen_factor=widen_factor)


def _imagenet(depth: int, blocks: tuple[int, ...], error: str = "") -> Any:
    # The bottleneck's 3×3 convolution has twice the channels and also the stride, as in the authors' code.
    row: dict[str, Any] = {"blocks": blocks, "block": "bottleneck", "base_width": 128, "downsample": "3x3"}
    return variant(f"WideResNet{depth}_2", IMAGENET_FAMILY, source="Table 8", error=error, **row)


WideResNet16_4 = _cifar(16, 4, "5.02 %, CIFAR-10 test")
WideResNet16_8 = _cifar(16, 8, "4.27 %, CIFAR-10 test")
WideResNet28_10 = _cifar(28, 10, "4.00 %, CIFAR-10 test")
WideResNet40_4 = _cifar(40, 4, "4.53 %, CIFAR-10 test")

WideResNet50_2 = _imagenet(50, (3, 4, 6, 3), "21.9 % top-1, ImageNet validation, single crop")
WideResNet101_2 = _imagenet(101, (3, 4, 23, 3))
