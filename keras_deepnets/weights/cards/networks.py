"""Which network of ours each of timm's is: a constructor and its options."""

from __future__ import annotations

import fnmatch
from typing import Any

Network = tuple[str, dict[str, Any]]

_C, _S, _T = (32, 32, 64), (64, 64, 128), (24, 32, 64)
"""Filters of the deep stems: of ResNet-C and -D, of timm's ``s`` and ``t``."""

_ROWS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
_ROWS |= {10: (1, 1, 1, 1), 14: (1, 1, 1, 1), 26: (2, 2, 2, 2), 269: (3, 30, 48, 8)}
_BASIC = (10, 18, 34)
_VARIANTS: dict[str, dict[str, Any]] = {
    "": {},
    "c": {"deep_stem": _C},
    "d": {"deep_stem": _C, "shortcut": "D"},
    "s": {"deep_stem": _S},
    "t": {"deep_stem": _T, "shortcut": "D"},
}
_STRIDE_FIRST = ("ResNet50", "ResNet101", "ResNet152")
"""Named constructors that stride in the first 1×1 convolution unless told otherwise."""
_NAMED = {
    "resnet18": "ResNet18",
    "resnet34": "ResNet34",
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "resnet152": "ResNet152",
    "wide_resnet50_2": "WideResNet50_2",
    "wide_resnet101_2": "WideResNet101_2",
    "resnext50_32x4d": "ResNeXt50_32x4d",
    "resnext101_32x4d": "ResNeXt101_32x4d",
    "resnext101_32x8d": "ResNeXt101_32x8d",
    "resnext101_64x4d": "ResNeXt101_64x4d",
    "densenet121": "DenseNet121",
    "densenet161": "DenseNet161",
    "densenet169": "DenseNet169",
    "densenet201": "DenseNet201",
    "resnetv2_18": "ResNet18V2",
    "resnetv2_34": "ResNet34V2",
    "resnetv2_50": "ResNet50V2",
    "resnetv2_101": "ResNet101V2",
    "resnetv2_152": "ResNet152V2",
}


def _residual(constructor: str, depth: int, variant: str, **options: Any) -> Network:
    options |= {"blocks": _ROWS[depth]} | _VARIANTS[variant]
    if depth not in _BASIC:
        options |= {"downsample": "3x3"} if constructor == "ResNeXt" else {"block": "bottleneck", "downsample": "3x3"}
    return constructor, options


def _table() -> dict[str, Network]:
    found: dict[str, Network] = {}
    for depth in _ROWS:
        for variant in _VARIANTS:
            found[f"resnet{depth}{variant}"] = _residual("ResNet", depth, variant)
            found[f"seresnet{depth}{variant}"] = _residual("ResNet", depth, variant, attention="se")
            found[f"resnetv2_{depth}{variant}"] = _residual("PreActResNet", depth, variant)
            for cardinality, width in ((32, 4), (32, 8), (32, 16), (32, 32), (64, 4)):
                if depth in _BASIC:
                    continue
                # timm says where the variant stands after the depth
                tail = f"{depth}{variant}_{cardinality}x{width}d"
                shape = {"groups": cardinality, "base_width": width}
                found[f"resnext{tail}"] = _residual("ResNeXt", depth, variant, **shape)
                found[f"seresnext{tail}"] = _residual("ResNeXt", depth, variant, attention="se", **shape)
    for name, constructor in _NAMED.items():
        # The others with bottlenecks stride there by default.
        found[name] = constructor, {"downsample": "3x3"} if constructor in _STRIDE_FIRST else {}
    return found


NETWORKS = _table()
"""timm's name to our constructor and options."""

_WHY_NOT = {
    "*_clip*": "attention pooling, three-layer stem with pooling",
    "*_mlp*": "other classifier",
    "*bit": "weight-standardised convolutions and group normalisation",
    "*_gn": "group normalisation",
    "*_evos": "EvoNorm",
    "*_frn": "filter response normalisation",
    "*blur*": "blur pooling",
    "*aa*": "average pooling in front of strides",
    "*resnetrs*": "another stem: no max pooling",
    "legacy_*": "Cadene's squeeze-and-excitation networks: max pooling without padding, other strides",
    "cspres*": "cross-stage partial connections",
    "*eca*": "efficient channel attention",
    "bat_*": "bilinear attention",
    "gcres*": "global context attention",
    "lambda_*": "lambda layers",
    "*nf_*": "normaliser-free",
    "resnest*": "split attention",
    "sk*": "selective kernels",
    "tresnet*": "squeezed stem, leaky ReLU",
    "*vit*": "a transformer",
    "*inception*": "another family",
    "*ts": "SiLU and tiered stem of timm's byobnet",
    "*q": "quadratic-width stages of timm's byobnet",
    "*rpt*": "timm's byobnet",
    "test_*": "a toy of timm's tests",
    "densenet264d": "a deep stem in a DenseNet",
}


def why_not(name: str) -> str:
    """Why a network of timm's is none of ours, or "" for one that is."""
    if name in NETWORKS:
        return ""
    return next((reason for pattern, reason in _WHY_NOT.items() if fnmatch.fnmatchcase(name, pattern)), "not tried")
