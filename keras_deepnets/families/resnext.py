"""ResNeXt: residual networks of aggregated transformations.

S. Xie, R. Girshick, P. Dollár, Z. Tu, K. He: "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017,
arXiv:1611.05431.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from keras_deepnets.families import resnet
from keras_deepnets.families.base import Family, Paper, option
from keras_deepnets.families.constructors import builder, variant
from keras_deepnets.families.resnet import ResidualSpec

PAPER = Paper(
    "X16",
    "Aggregated Residual Transformations for Deep Neural Networks",
    "Xie et al.",
    2016,
    "https://arxiv.org/abs/1611.05431",
)


@dataclass(frozen=True)
class ResNeXtSpec(ResidualSpec):
    """A residual network of bottlenecks with cardinality `groups`. In the first stage, each group has `base_width` channels."""

    block: str = option("bottleneck", '"bottleneck".')
    groups: int = option(32, "cardinality C of the bottleneck's 3×3 convolution.")
    base_width: int = option(4, "bottleneck width d: channels per group in a stage of 64 filters.")
    downsample: str = option("3x3", 'the strided convolution of a bottleneck: "3x3" (section 5.1) or "1x1".')

    owner: ClassVar[str] = "ResNeXt"


FAMILY = Family("ResNeXt", ResNeXtSpec, resnet.features, PAPER, resnet.FAMILY.options)

ResNeXt = builder("ResNeXt", FAMILY, without=("block", "project_first"))

_50, _101 = (3, 4, 6, 3), (3, 4, 23, 3)


def _imagenet(name: str, blocks: tuple[int, ...], groups: int, width: int, error: str, source: str = "Table 4") -> Any:
    error = f"{error} % top-1, ImageNet validation, single crop" if error else ""
    row: dict[str, Any] = {"blocks": blocks, "groups": groups, "base_width": width}
    return variant(name, FAMILY, source=source, error=error, options=resnet.IMAGENET_OPTIONS, **row)


def _cifar(groups: int, width: int, error: float) -> Any:
    row: dict[str, Any] = {
        "depth": 29,
        "stem": "cifar",
        "filters": (64, 128, 256),
        "groups": groups,
        "base_width": width,
    }
    return variant(f"ResNeXt29_{groups}x{width}d", FAMILY, source="Table 7", error=f"{error} %, CIFAR-10 test", **row)


ResNeXt50_32x4d = _imagenet("ResNeXt50_32x4d", _50, 32, 4, "22.2", "Tables 1 and 3")
ResNeXt101_32x4d = _imagenet("ResNeXt101_32x4d", _101, 32, 4, "21.2", "Tables 3 and 4")
ResNeXt101_32x8d = _imagenet("ResNeXt101_32x8d", _101, 32, 8, "", "the authors' later models, section 3.1's formula")
ResNeXt101_64x4d = _imagenet("ResNeXt101_64x4d", _101, 64, 4, "20.4")
ResNeXt101_2x64d = _imagenet("ResNeXt101_2x64d", _101, 2, 64, "20.7")
ResNet101_1x100d = _imagenet("ResNet101_1x100d", _101, 1, 100, "21.3")

ResNeXt29_8x64d = _cifar(8, 64, 3.65)
ResNeXt29_16x64d = _cifar(16, 64, 3.58)
