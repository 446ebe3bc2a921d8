"""Networks of timm, torchvision and pytorchcv, and the same networks in this library: constructors and options."""

from __future__ import annotations

import difflib
import fnmatch
from typing import Any

from keras_deepnets.errors import InputError

Network = tuple[str, dict[str, Any]]

BUILDERS = ("ResNet", "PreActResNet", "WideResNet", "ResNeXt", "DenseNet")
"""Constructors that build several networks with published weights."""

_C, _S, _T = (32, 32, 64), (64, 64, 128), (24, 32, 64)
"""Filters of the deep stems: ResNet-C and ResNet-D, timm's ``s``, timm's ``t``."""

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
_KINDS: dict[str, dict[str, Any]] = {"": {}, "se": {"attention": "se"}, "eca": {"attention": "eca"}}
_ANTIALIASED: dict[str, dict[str, Any]] = {
    "resnetaa": {"antialias": "average"},
    "resnetblur": {"antialias": "blur"},
    "seresnetaa": {"attention": "se", "antialias": "average"},
}
_RS = {"stem_pool": "convolution", "attention": "se", "se_ratio": 0.25}
_RS_ROWS = {depth: _ROWS[depth] for depth in (50, 101, 152, 200)}
_RS_ROWS |= {270: (4, 29, 53, 4), 350: (4, 36, 72, 4), 420: (4, 44, 87, 4)}
_STRIDE_FIRST = ("ResNet50", "ResNet101", "ResNet152")
"""Named constructors that stride in the first 1×1 convolution by default."""
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
_NAMED |= {f"vgg{depth}{tail}": f"VGG{depth}{tail.upper()}" for depth in (11, 13, 16, 19) for tail in ("", "_bn")}


def _residual(constructor: str, depth: int, variant: str, **options: Any) -> Network:
    options |= {"blocks": _ROWS[depth]} | _VARIANTS[variant]
    if depth not in _BASIC:
        options |= {"downsample": "3x3"} if constructor == "ResNeXt" else {"block": "bottleneck", "downsample": "3x3"}
    return constructor, options


def _table() -> dict[str, Network]:
    found: dict[str, Network] = {}
    for depth in _ROWS:
        for variant in _VARIANTS:
            for prefix, options in _KINDS.items():
                found[f"{prefix}resnet{depth}{variant}"] = _residual("ResNet", depth, variant, **options)
            for infix, options in _ANTIALIASED.items():
                found[f"{infix}{depth}{variant}"] = _residual("ResNet", depth, variant, **options)
            for constructor, stem in (("ResNet", "resnet"), ("PreActResNet", "resnetv2_")):
                for tail, options in (("", {}), ("_gn", {"norm": "group"})):
                    found[f"{stem}{depth}{variant}{tail}"] = _residual(constructor, depth, variant, **options)
            for cardinality, width in ((32, 4), (32, 8), (32, 16), (32, 32), (64, 4)):
                if depth in _BASIC:
                    continue
                # timm puts the variant after the depth.
                tail = f"{depth}{variant}_{cardinality}x{width}d"
                shape = {"groups": cardinality, "base_width": width}
                for prefix, options in _KINDS.items():
                    found[f"{prefix}resnext{tail}"] = _residual("ResNeXt", depth, variant, **options, **shape)
                options = _ANTIALIASED["seresnetaa"] | shape
                found[f"seresnextaa{tail}"] = _residual("ResNeXt", depth, variant, **options)
    for depth, blocks in _RS_ROWS.items():
        found[f"resnetrs{depth}"] = "ResNet", found["resnet50d"][1] | _RS | {"blocks": blocks}
    light = {"blocks": (1, 1, 11, 3), "shortcut": "D"}
    found["ecaresnetlight"] = "ResNet", found["ecaresnet50"][1] | light
    wider = {"blocks": (3, 24, 36, 4), "deep_stem": _S}
    found["seresnextaa201d_32x8d"] = "ResNeXt", found["seresnextaa101d_32x8d"][1] | wider
    found["densenet264d"] = "DenseNet", {"blocks": (6, 12, 64, 48), "growth_rate": 48, "deep_stem": (48, 48, 96)}
    found["densenetblur121d"] = "DenseNet", {"blocks": (6, 12, 24, 16), "deep_stem": _C, "antialias": "blur"}
    found["googlenet"] = "GoogLeNet", {"batch_norm": True}
    for name, constructor in _NAMED.items():
        # The other networks with bottlenecks stride in the 3×3 convolution by default.
        found[name] = constructor, {"downsample": "3x3"} if constructor in _STRIDE_FIRST else {}
    return found


NETWORKS = _table()
"""timm's name to this library's constructor and options."""


def _pytorchcv_cifar10() -> dict[str, Network]:
    found: dict[str, Network] = {}
    bottleneck = {"stem": "cifar", "block": "bottleneck", "downsample": "3x3"}
    first_not_activated = {"stem": "cifar", "activate_first": False}
    for depth in (20, 56, 110, 1202):
        found[f"resnet{depth}_cifar10"] = f"ResNet{depth}", {"shortcut": "B"}
        found[f"preresnet{depth}_cifar10"] = "PreActResNet", {"depth": depth} | first_not_activated
    for depth, name in ((164, "164bn"), (272, "272bn"), (542, "542bn"), (1001, "1001")):
        found[f"resnet{name}_cifar10"] = "ResNet", {"depth": depth} | bottleneck
        found[f"preresnet{name}_cifar10"] = "PreActResNet", {"depth": depth} | bottleneck | first_not_activated
    found["nin_cifar10"] = "NIN", {"pool2": "avg", "pool_padding": "symmetric"}
    found["wrn16_10_cifar10"] = "WideResNet", {"depth": 16, "widen_factor": 10}
    found["wrn28_10_cifar10"] = "WideResNet28_10", {}
    found["wrn40_8_cifar10"] = "WideResNet", {"depth": 40, "widen_factor": 8}
    for depth, groups, width in ((29, 32, 4), (272, 1, 64), (272, 2, 32)):
        shape = {"depth": depth, "groups": groups, "base_width": width, "stem": "cifar", "filters": (64, 128, 256)}
        found[f"resnext{depth}_{groups}x{width}d_cifar10"] = "ResNeXt", shape
    found["resnext29_16x64d_cifar10"] = "ResNeXt29_16x64d", {}
    for depth, growth in ((40, 12), (100, 12), (100, 24)):
        # These begin with 2k channels and compress even without bottlenecks.
        shape = {"stem": "cifar", "bottleneck": False, "compression": 0.5, "initial_filters": 2 * growth}
        found[f"densenet{depth}_k{growth}_cifar10"] = "DenseNet", {"depth": depth, "growth_rate": growth} | shape
    for growth in (12, 24, 36):
        found[f"densenet40_k{growth}_bc_cifar10"] = "DenseNet", {"depth": 40, "growth_rate": growth, "stem": "cifar"}
    for depth, growth in ((100, 12), (190, 40), (250, 24)):
        found[f"densenet{depth}_k{growth}_bc_cifar10"] = f"DenseNetBC{depth}_{growth}", {}
    return found


PYTORCHCV_CIFAR10 = _pytorchcv_cifar10()
"""Name of a pytorchcv network with CIFAR-10 weights to this library's constructor and options."""

_WHY_NOT = {
    "*_clip*": "attention pooling, three-layer stem with pooling",
    "*_mlp*": "other classifier",
    "*bit": "weight-standardised convolutions and group normalisation",
    "*_evos": "EvoNorm",
    "*_frn": "filter response normalisation",
    "*_pruned": "pruned: every convolution has other numbers of channels",
    "legacy_*": "Cadene's squeeze-and-excitation networks: max pooling without padding, other strides",
    "cspres*": "cross-stage partial connections",
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
}


def why_not(name: str) -> str:
    """The reason why this library lacks a timm network, or "" if it has the network."""
    if name in NETWORKS:
        return ""
    return next((reason for pattern, reason in _WHY_NOT.items() if fnmatch.fnmatchcase(name, pattern)), "not tried")


def named(name: str) -> Network:
    """Return the constructor and options of a network, by its name here or by the publisher's name.

    Args:
        name: A name from `list_models`, a builder, or a publisher's name: ``"timm/resnet50d"``, ``"torchvision/resnet50"``,
            ``"pytorchcv/preresnet20_cifar10"``. The publisher's prefix may be left out if the name is not also a name here.

    Raises:
        InputError: The name is unknown. The message lists similar names.
    """
    from keras_deepnets import registry

    if name.lower() in registry.names():
        return registry.constructor_of(name).__name__, {}
    library, slash, theirs = name.rpartition("/")
    tables = {"timm": NETWORKS, "torchvision": NETWORKS, "pytorchcv": PYTORCHCV_CIFAR10}
    for candidate in [library] if slash else tables:
        if theirs in tables.get(candidate, {}):
            return tables[candidate][theirs]
    known = [*registry.list_models(), *(f"{library}/{each}" for library, table in tables.items() for each in table)]
    known += [] if slash else [*NETWORKS, *PYTORCHCV_CIFAR10]
    near = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}?" if near else "`keras-deepnets list` and `list --weights` print all names."
    raise InputError(f"Unknown network {name!r}. {hint}")
