"""Libraries to compare with, and the names of the same networks there. This module imports no framework."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from typing import Any

from keras_deepnets.benchmark.jobs import COMPILED, ENGINES, OURS, TORCH

LIBRARIES: dict[str, tuple[str, ...]] = {
    "keras": ("keras",),
    "keras-twin": ("keras",),
    "torchvision": ("torch", "torchvision"),
    "timm": ("torch", "torchvision", "timm"),
    "pytorchcv": ("torch", "pytorchcv"),
    COMPILED: ("torch", "torchvision"),
    "openvino": ("openvino",),
    "onnxruntime": ("onnx", "tf2onnx", "onnxruntime"),
    OURS: ("keras",),
}
"""Values of ``--against``, with the packages that each one needs."""

Build = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Peer:
    """A network of another library.

    Attributes:
        library: As in `Job.library`.
        build: How that library builds the network: a name, or a function's name and its keywords.
        options: Options that give the same network in this library.
    """

    library: str
    build: Build
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def description(self) -> str:
        """Description for tables."""
        if self.library == "keras-twin":
            return "stock Keras twin"
        if self.library == OURS:
            return "ours, default options"
        if self.library in ENGINES:
            return f"ours in {self.library}"
        return f"{self.library} {self.build[0]}"


def _named(*pairs: str, **options: Any) -> dict[str, tuple[Build, dict[str, Any]]]:
    """Map the names in ``"ours"`` or ``"ours=theirs"`` to the peer's way to build the network and this library's options."""
    table: dict[str, tuple[Build, dict[str, Any]]] = {}
    for pair in pairs:
        ours, _, theirs = pair.partition("=")
        table[ours] = ((theirs or ours, {}), options)
    return table


# The peers' bottlenecks stride in the 3×3 convolution ("v1.5"). The paper's stride in the first 1×1 convolution.
_BASIC = _named("resnet18", "resnet34")
_V1_5 = _named("resnet50", "resnet101", "resnet152", downsample="3x3")
_WIDE = {**_named("wideresnet50_2=wide_resnet50_2", "wideresnet101_2=wide_resnet101_2")}
_RESNEXT = _named("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d")
_DENSE = _named("densenet121", "densenet161", "densenet169", "densenet201")
_VGG = _named(*(f"vgg{depth}{tail}" for depth in (11, 13, 16, 19) for tail in ("", "_bn")))


def _torchvision_101(groups: int, width: int) -> tuple[Build, dict[str, Any]]:
    return ("ResNet", {"layers": (3, 4, 23, 3), "groups": groups, "width_per_group": width}), {}


def _function(name: str, **kwargs: Any) -> tuple[Build, dict[str, Any]]:
    return (name, kwargs), {}


# The ResNetV2s of keras.applications are not listed. They stride in a stage's last block, which is 15 % less work than in the paper.
APPLICATIONS = {
    "resnet50": "ResNet50",
    "resnet101": "ResNet101",
    "resnet152": "ResNet152",
    "densenet121": "DenseNet121",
    "densenet169": "DenseNet169",
    "densenet201": "DenseNet201",
    "vgg16": "VGG16",
    "vgg19": "VGG19",
}
_NETWORKS: dict[str, dict[str, tuple[Build, dict[str, Any]]]] = {
    "keras.applications": _named(*(f"{ours}={theirs}" for ours, theirs in APPLICATIONS.items())),
    "torchvision": {
        **_BASIC,
        **_V1_5,
        **_WIDE,
        **_RESNEXT,
        **_DENSE,
        **_VGG,
        "googlenet": (("GoogLeNet", {"aux_logits": False, "init_weights": False}), {"batch_norm": True}),
        "resnext101_32x4d": _torchvision_101(32, 4),
        "resnext101_2x64d": _torchvision_101(2, 64),
        "resnet101_1x100d": _torchvision_101(1, 100),
        "densenet264": _function("DenseNet", growth_rate=32, block_config=(6, 12, 64, 48), num_init_features=64),
    },
    "timm": {
        **_BASIC,
        **_V1_5,
        **_WIDE,
        **_RESNEXT,
        **_DENSE,
        **_VGG,
        **_named("resnext101_32x4d"),
        **_named(*(f"resnet{depth}v2=resnetv2_{depth}" for depth in (18, 34, 50, 101, 152))),
    },
    "pytorchcv": {
        **_named("bninception"),
        **_named("nin=nin_cifar10", pool2="avg", pool_padding="symmetric"),
        **_named("fractalnet21=fractalnet_cifar10", pool_before_join=False),
        **_named(*(f"resnet{depth}=resnet{depth}_cifar10" for depth in (20, 56, 110, 1202)), shortcut="B"),
        "resnet32": (("resnet_cifar.get_resnet_cifar", {"blocks": 32, "bottleneck": False}), {"shortcut": "B"}),
        "resnet44": (("resnet_cifar.get_resnet_cifar", {"blocks": 44, "bottleneck": False}), {"shortcut": "B"}),
        **_named("preactresnet110=preresnet110_cifar10", "wideresnet28_10=wrn28_10_cifar10"),
        "wideresnet16_4": _function("wrn_cifar.get_wrn_cifar", blocks=16, width_factor=4),
        "wideresnet16_8": _function("wrn_cifar.get_wrn_cifar", blocks=16, width_factor=8),
        "wideresnet40_4": _function("wrn_cifar.get_wrn_cifar", blocks=40, width_factor=4),
        "resnext29_8x64d": _function("resnext_cifar.get_resnext_cifar", blocks=29, cardinality=8, bottleneck_width=64),
        **_named("resnext29_16x64d=resnext29_16x64d_cifar10"),
        **_named(
            "densenetbc100_12=densenet100_k12_bc_cifar10",
            "densenetbc250_24=densenet250_k24_bc_cifar10",
            "densenetbc190_40=densenet190_k40_bc_cifar10",
        ),
    },
}


def missing(against: str) -> str | None:
    """Why `against` cannot be measured on this machine, with the install command. None if it can be measured."""
    absent = [package for package in LIBRARIES[against] if importlib.util.find_spec(package) is None]
    if not absent:
        return None
    verb = "is" if len(absent) == 1 else "are"
    return f"{' and '.join(absent)} {verb} missing: pip install {' '.join(absent)}"


def find(against: str, model: str) -> Peer | None:
    """Return the counterpart of `model` in the library `against`, a value of ``--against``. None if there is none."""
    model = model.lower()
    if against == OURS or against in ENGINES:
        return Peer(against, (model, {}))
    library = {"keras": "keras.applications", COMPILED: "torchvision"}.get(against, against)
    if model in _NETWORKS.get(library, {}):
        build, options = _NETWORKS[library][model]
        return Peer(COMPILED if against == COMPILED else library, build, dict(options))
    if against in ("keras", "keras-twin"):
        return Peer("keras-twin", (model, {}))
    return None


def unsupported(against: str, mode: str, dtype: str) -> str | None:
    """Why `against` does not run in a mode or dtype. None if it does."""
    if mode == "export" and against in TORCH:
        return f"{against} writes no SavedModel, so --mode export skips it"
    if against in ENGINES and mode != "inference":
        return f"{against} is for --mode inference, so --mode {mode} skips it"
    if against in ENGINES and dtype not in ENGINES[against]:
        return f"{against} does not compute in {dtype}"
    return None
