"""Which peer is compared with which network of ours."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from keras_deepnets.weights import naming_tables as name_maps
from keras_deepnets.weights.cards.networks import NETWORKS
from keras_deepnets.weights.naming import Naming
from tests.golden.deterministic import golden_weights

CLASSES = 10
IMAGENET_SIZES = ((224, 224), (215, 193))
CIFAR_SIZES = ((32, 32), (37, 29))


@dataclass(frozen=True)
class Style:
    """What the networks of a peer's family have in common.

    Attributes:
        naming: of the peer's tensors.
        points: name of a point of comparison to (the peer's module, our layer) whose output is compared. Our ``{last}`` is the
            last block of the stage.
        sizes: of the images.
        branch_end: pattern of the names of the tensors that end a residual branch, ``{last}`` being its last convolution.
    """

    naming: Naming
    points: dict[str, tuple[str, str]]
    sizes: tuple[tuple[int, int], ...]
    branch_end: str | None = None


@dataclass(frozen=True)
class Case:
    """A peer and our network.

    Attributes:
        peer: ``"library/network"``, unique.
        style: of the peer.
        ours: the constructor of ours.
        options: its options.
        build: how the peer's library builds a network that it has no name for: function and arguments.
        last: convolutions of a residual branch.
        branch_scale: scale of what ends a residual branch; smaller in networks of a thousand layers.
        quick: whether it is cheap enough to be run always.
    """

    peer: str
    style: Style
    ours: str
    options: dict[str, Any] = field(default_factory=dict)
    build: tuple[str, dict[str, Any]] | None = None
    last: int = 0
    branch_scale: float = 0.25
    quick: bool = False

    def golden_weights(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """The tensor of that name and shape in the peer."""
        return golden_weights(name, shape, self.branch_end, self.branch_scale)

    @property
    def branch_end(self) -> str | None:
        """The style's pattern with this network's number of convolutions."""
        return self.style.branch_end and self.style.branch_end.replace("{last}", str(self.last))


def _stages(count: int, theirs: str, ours: str, first: int = 1) -> dict[str, tuple[str, str]]:
    return {
        f"stage {number}": (theirs.format(number - 1 + first), ours.format(number + 1))
        for number in range(1, count + 1)
    }


_BLOCKS = "conv{0}_block{{last}}_out"
_CONCATENATIONS = "conv{0}_block{{last}}_concat"

TORCHVISION_RESNET = Style(
    name_maps.TORCHVISION_RESNET,
    {"stem": ("maxpool", "pool1_pool"), **_stages(4, "layer{}", _BLOCKS), "logits": ("fc", "predictions")},
    IMAGENET_SIZES,
    r"layer\d\.\d+\.bn{last}\.(weight|bias|running_mean)$",
)
TORCHVISION_DENSENET = Style(
    name_maps.TORCHVISION_DENSENET,
    {
        "stem": ("features.pool0", "pool1"),
        **_stages(4, "features.denseblock{}", _CONCATENATIONS),
        "transition 1": ("features.transition1", "pool2_pool"),
        "transition 2": ("features.transition2", "pool3_pool"),
        "transition 3": ("features.transition3", "pool4_pool"),
        "last norm": ("features.norm5", "bn"),
        "logits": ("classifier", "predictions"),
    },
    IMAGENET_SIZES,
)
TIMM_RESNETV2 = Style(
    name_maps.TIMM_RESNETV2,
    {
        "stem": ("stem", "pool1_pool"),
        **_stages(4, "stages.{}", _BLOCKS, first=0),
        "last activation": ("norm", "post_relu"),
        "logits": ("head", "predictions"),
    },
    IMAGENET_SIZES,
    r"blocks\.\d+\.conv{last}\.weight$",
)
TIMM_RESNET_D = replace(TORCHVISION_RESNET, naming=name_maps.TIMM_RESNET_D)
TIMM_RESNET_C = replace(TORCHVISION_RESNET, naming=name_maps.TIMM_DEEP_STEM_RESNET)
TIMM_RESNETV2_D = replace(TIMM_RESNETV2, naming=name_maps.TIMM_RESNETV2_D)
# timm's average pooling needs even sides; these have them from the stem on.
TIMM_AVERAGED = replace(TIMM_RESNET_D, sizes=((224, 224), (161, 129)))
TIMM_RESNET_RS = replace(TIMM_RESNET_D, points=TIMM_RESNET_D.points | {"stem": ("maxpool", "pool1_relu")})
TIMM_GROUPED = replace(TORCHVISION_RESNET, naming=name_maps.TIMM_GROUPED_RESNET)
TIMM_DEEP_DENSENET = replace(
    TORCHVISION_DENSENET,
    naming=name_maps.TIMM_DEEP_STEM_DENSENET,
    points=TORCHVISION_DENSENET.points | {"last norm": ("features.norm5", "relu")},  # theirs activates too
)
TIMM_GROUPED_RESNETV2 = replace(TIMM_RESNETV2, naming=name_maps.TIMM_GROUPED_RESNETV2_D)
_CIFAR_LOGITS = {"logits": ("output", "predictions")}
PYTORCHCV_NIN = Style(
    name_maps.PYTORCHCV_NIN,
    {
        **{
            f"stage {stage}": (f"features.stage{stage}", f"conv{stage}_{units}_conv")
            for stage, units in ((1, 3), (2, 3), (3, 2))
        },
        "second pooling": ("features.stage3.pool3", "pool2"),
        "class maps": ("output.final_conv", "predictions"),
        "logits": ("output", "avg_pool"),
    },
    CIFAR_SIZES,
)
PYTORCHCV_RESNET = Style(
    name_maps.PYTORCHCV_CIFAR_RESNET,
    {"stem": ("features.init_block", "conv1_relu"), **_stages(3, "features.stage{}", _BLOCKS), **_CIFAR_LOGITS},
    CIFAR_SIZES,
    r"body\.conv{last}\.bn\.(weight|bias|running_mean)$",
)
_PREACT_POINTS = {
    "stem": ("features.init_block", "conv1_conv"),
    **_stages(3, "features.stage{}", _BLOCKS),
    "last activation": ("features.post_activ", "post_relu"),
    **_CIFAR_LOGITS,
}
_PREACT_END = r"body\.conv{last}\.conv\.weight$"
PYTORCHCV_PREACT = Style(name_maps.PYTORCHCV_CIFAR_PREACT, _PREACT_POINTS, CIFAR_SIZES, _PREACT_END)
PYTORCHCV_WIDE = Style(name_maps.PYTORCHCV_CIFAR_WIDE, _PREACT_POINTS, CIFAR_SIZES, _PREACT_END)
_DENSE_POINTS = {
    "stem": ("features.init_block", "conv1_conv"),
    **_stages(3, "features.stage{}", _CONCATENATIONS),
    "last activation": ("features.post_activ", "relu"),
    **_CIFAR_LOGITS,
}
PYTORCHCV_DENSE = Style(name_maps.PYTORCHCV_CIFAR_DENSENET, _DENSE_POINTS, CIFAR_SIZES)
PYTORCHCV_DENSE_BC = Style(name_maps.PYTORCHCV_CIFAR_DENSENET_BC, _DENSE_POINTS, CIFAR_SIZES)


def vgg_style(depth: int, batch_norm: bool) -> Style:
    """The poolings, a hidden layer and the logits, where torchvision numbers them."""
    points, at = {}, 0
    for stage, count in enumerate(name_maps.VGG_STAGES[depth], start=1):
        at += (3 if batch_norm else 2) * count
        points[f"stage {stage}"] = (f"features.{at}", f"block{stage}_pool")
        at += 1
    points |= {"hidden": ("classifier.4", "fc2"), "logits": ("classifier.6", "predictions")}
    return Style(name_maps.VGG[depth, batch_norm][0], points, IMAGENET_SIZES)


def _small_vgg(depth: int, batch_norm: bool) -> Case:
    """A VGG with an eighth of the channels, a hundredth of its parameters."""
    stages, filters, hidden = name_maps.VGG_STAGES[depth], (8, 16, 32, 64, 64), (32, 24)
    config = [word for count, channels in zip(stages, filters, strict=True) for word in (*(channels,) * count, "M")]
    suffix = "_bn" if batch_norm else ""
    return Case(
        f"torchvision/small_vgg{depth}{suffix}",
        vgg_style(depth, batch_norm),
        "VGG",
        {"convolutions": stages, "filters": filters, "hidden": hidden, "batch_norm": batch_norm},
        build=("vgg", {"config": config, "batch_norm": batch_norm, "hidden": hidden}),
        quick=True,
    )


TORCHVISION_GOOGLENET = Style(
    name_maps.TORCHVISION_GOOGLENET,
    {
        "stem": ("maxpool2", "pool2_3x3_s2"),
        "stage 3": ("maxpool3", "pool3_3x3_s2"),
        "stage 4": ("maxpool4", "pool4_2x2_s2"),
        "stage 5": ("inception5b", "inception_5b_output"),
        "logits": ("fc", "predictions"),
    },
    IMAGENET_SIZES,
)
# Other sizes give the poolings of the peers, which do not pad, other maps than their strided convolutions.
PYTORCHCV_BN_INCEPTION = Style(
    name_maps.PYTORCHCV_BN_INCEPTION,
    {
        "stem": ("features.init_block", "pool2_3x3_s2"),
        "stage 3": ("features.stage1", "inception_3b_output"),
        "3c": ("features.stage2.unit1", "inception_3c_output"),
        "stage 4": ("features.stage2", "inception_4d_output"),
        "stage 5": ("features.stage3", "inception_5b_output"),
        "logits": ("output", "predictions"),
    },
    ((224, 224), (195, 163)),
)

# The last pooling leaves one pixel of 32, and two of 64. The peer has no names for the maps of columns.
PYTORCHCV_FRACTALNET = Style(
    name_maps.PYTORCHCV_FRACTALNET,
    {
        **{f"join {block}": (f"features.unit{block}.block", f"block{block}_join4") for block in range(1, 6)},
        **{f"block {block}": (f"features.unit{block}", f"block{block}_pool") for block in range(1, 6)},
        "logits": ("output", "predictions"),
    },
    ((32, 32), (71, 64)),
)
_FRACTAL_FILTERS = (8, 16, 24, 32, 32)


def _resnet(peer: str, ours: str, last: int, **kwargs: Any) -> Case:
    # Their bottlenecks stride in the 3×3 convolution, and so do our ResNeXts and wide ResNets unless told otherwise.
    options = {"downsample": "3x3"} if last == 3 and ours.startswith("ResNet") and ours[6:].isdigit() else {}
    return Case(peer, TORCHVISION_RESNET, ours, options, last=last, **kwargs)


def _torchvision_row(groups: int, width: int) -> tuple[str, dict[str, Any]]:
    return "resnet", {"layers": (3, 4, 23, 3), "groups": groups, "width_per_group": width}


def _cifar(peer: str, style: Style, ours: str, last: int = 0, **kwargs: Any) -> Case:
    own = {name: kwargs.pop(name) for name in ("build", "branch_scale", "quick") if name in kwargs}
    return Case(f"pytorchcv/{peer}", style, ours, kwargs, last=last, **own)


def _timm(name: str, style: Style, last: int = 0, **kwargs: Any) -> Case:
    constructor, options = NETWORKS[name]
    return Case(f"timm/{name}", style, constructor, options, last=last, **kwargs)


_PROJECTED = {"stem": "cifar", "shortcut": "B"}
_CIFAR_BOTTLENECK = {"block": "bottleneck", "downsample": "3x3", **_PROJECTED}
_FIRST_NOT_ACTIVATED = {"stem": "cifar", "activate_first": False}
_PREACT_BOTTLENECK = {"block": "bottleneck", "downsample": "3x3", **_FIRST_NOT_ACTIVATED}
_RESNEXT = {"stem": "cifar", "filters": (64, 128, 256)}
# Their networks without bottlenecks begin with 2k channels and compress all the same.
_DENSE = {"stem": "cifar", "bottleneck": False, "compression": 0.5}

CASES = (
    _resnet("torchvision/resnet18", "ResNet18", 2, quick=True),
    _resnet("torchvision/resnet34", "ResNet34", 2),
    _resnet("torchvision/resnet50", "ResNet50", 3, quick=True),
    _resnet("torchvision/resnet101", "ResNet101", 3),
    _resnet("torchvision/resnet152", "ResNet152", 3),
    _resnet("torchvision/wide_resnet50_2", "WideResNet50_2", 3),
    _resnet("torchvision/wide_resnet101_2", "WideResNet101_2", 3),
    _resnet("torchvision/resnext50_32x4d", "ResNeXt50_32x4d", 3, quick=True),
    _resnet("torchvision/resnext101_32x8d", "ResNeXt101_32x8d", 3),
    _resnet("torchvision/resnext101_64x4d", "ResNeXt101_64x4d", 3),
    _resnet("torchvision/resnext101_2x64d", "ResNeXt101_2x64d", 3, build=_torchvision_row(2, 64)),
    _resnet("torchvision/resnet101_1x100d", "ResNet101_1x100d", 3, build=_torchvision_row(1, 100)),
    _resnet("timm/resnext101_32x4d", "ResNeXt101_32x4d", 3),
    Case("torchvision/densenet121", TORCHVISION_DENSENET, "DenseNet121", quick=True),
    Case("torchvision/densenet161", TORCHVISION_DENSENET, "DenseNet161"),
    Case("torchvision/densenet169", TORCHVISION_DENSENET, "DenseNet169"),
    Case("torchvision/densenet201", TORCHVISION_DENSENET, "DenseNet201"),
    Case(
        "torchvision/densenet264",
        TORCHVISION_DENSENET,
        "DenseNet264",
        build=("densenet", {"growth_rate": 32, "block_config": (6, 12, 64, 48), "num_init_features": 64}),
    ),
    *(
        Case(
            f"torchvision/vgg{depth}{'_bn' * batch_norm}",
            vgg_style(depth, batch_norm),
            f"VGG{depth}{'_BN' * batch_norm}",
        )
        for depth in name_maps.VGG_STAGES
        for batch_norm in (False, True)
    ),
    _small_vgg(16, False),
    _small_vgg(13, True),
    Case(
        "torchvision/googlenet",
        TORCHVISION_GOOGLENET,
        "GoogLeNet",
        {"batch_norm": True},
        build=("googlenet", {"aux_logits": False, "init_weights": False}),
        quick=True,
    ),
    Case(
        "pytorchcv/bninception",
        PYTORCHCV_BN_INCEPTION,
        "BNInception",
        build=("bninception.get_bninception", {}),
        quick=True,
    ),
    _cifar("fractalnet_cifar10", PYTORCHCV_FRACTALNET, "FractalNet21", pool_before_join=False),
    _cifar(
        "small_fractalnet",
        PYTORCHCV_FRACTALNET,
        "FractalNet",
        filters=_FRACTAL_FILTERS,
        pool_before_join=False,
        build=(
            "fractalnet_cifar.CIFARFractalNet",
            {
                "channels": _FRACTAL_FILTERS,
                "num_columns": 3,
                "dropout_probs": (0.0,) * 5,
                "loc_drop_prob": 0.15,
                "glob_drop_ratio": 0.5,
            },
        ),
        quick=True,
    ),
    Case("timm/resnetv2_18", TIMM_RESNETV2, "ResNet18V2", last=2, quick=True),
    Case("timm/resnetv2_34", TIMM_RESNETV2, "ResNet34V2", last=2),
    Case("timm/resnetv2_50", TIMM_RESNETV2, "ResNet50V2", last=3),
    Case("timm/resnetv2_101", TIMM_RESNETV2, "ResNet101V2", last=3),
    Case("timm/resnetv2_152", TIMM_RESNETV2, "ResNet152V2", last=3),
    Case("timm/resnetv2_200", TIMM_RESNETV2, "ResNet200V2", last=3, build=("resnetv2", {"layers": (3, 24, 36, 3)})),
    _timm("resnetblur18", TORCHVISION_RESNET, 2, quick=True),
    _timm("seresnet18", TORCHVISION_RESNET, 2, quick=True),
    _timm("resnet18d", TIMM_RESNET_D, 2, quick=True),
    _timm("resnet50c", TIMM_RESNET_C, 3, quick=True),
    _timm("resnetv2_18d", TIMM_RESNETV2_D, 2, quick=True),
    _timm("seresnext26t_32x4d", TIMM_RESNET_D, 3, quick=True),
    _timm("ecaresnet26t", TIMM_RESNET_D, 3, quick=True),
    _timm("resnetaa34d", TIMM_AVERAGED, 2),
    _timm("resnet50_gn", TIMM_GROUPED, 3),
    _timm("resnetv2_50d_gn", TIMM_GROUPED_RESNETV2, 3),
    _timm("resnetrs50", TIMM_RESNET_RS, 3),
    _timm("densenetblur121d", TIMM_DEEP_DENSENET),
    _cifar("nin_cifar10", PYTORCHCV_NIN, "NIN", quick=True, pool2="avg", pool_padding="symmetric"),
    _cifar("resnet20_cifar10", PYTORCHCV_RESNET, "ResNet20", 2, quick=True, shortcut="B"),
    _cifar("resnet56_cifar10", PYTORCHCV_RESNET, "ResNet56", 2, shortcut="B"),
    _cifar("resnet110_cifar10", PYTORCHCV_RESNET, "ResNet110", 2, shortcut="B"),
    _cifar("resnet164bn_cifar10", PYTORCHCV_RESNET, "ResNet", 3, depth=164, **_CIFAR_BOTTLENECK),
    _cifar("resnet1202_cifar10", PYTORCHCV_RESNET, "ResNet1202", 2, branch_scale=0.05, shortcut="B"),
    _cifar(
        "resdropresnet20_cifar10",
        PYTORCHCV_RESNET,
        "ResNet",
        2,
        depth=20,
        stochastic_depth=0.5,
        quick=True,
        **_PROJECTED,
    ),
    _cifar("preresnet20_cifar10", PYTORCHCV_PREACT, "PreActResNet", 2, depth=20, quick=True, **_FIRST_NOT_ACTIVATED),
    _cifar("preresnet110_cifar10", PYTORCHCV_PREACT, "PreActResNet", 2, depth=110, **_FIRST_NOT_ACTIVATED),
    _cifar("preresnet164bn_cifar10", PYTORCHCV_PREACT, "PreActResNet", 3, depth=164, **_PREACT_BOTTLENECK),
    _cifar(
        "preresnet1001_cifar10",
        PYTORCHCV_PREACT,
        "PreActResNet",
        3,
        depth=1001,
        branch_scale=0.05,
        **_PREACT_BOTTLENECK,
    ),
    _cifar(
        "wrn16_4_cifar10",
        PYTORCHCV_WIDE,
        "WideResNet16_4",
        2,
        quick=True,
        build=("wrn_cifar.get_wrn_cifar", {"blocks": 16, "width_factor": 4}),
    ),
    _cifar("wrn16_10_cifar10", PYTORCHCV_WIDE, "WideResNet", 2, depth=16, widen_factor=10),
    _cifar("wrn28_10_cifar10", PYTORCHCV_WIDE, "WideResNet28_10", 2),
    _cifar("wrn40_8_cifar10", PYTORCHCV_WIDE, "WideResNet", 2, depth=40, widen_factor=8),
    _cifar(
        "resnext29_32x4d_cifar10",
        PYTORCHCV_RESNET,
        "ResNeXt",
        3,
        depth=29,
        groups=32,
        base_width=4,
        quick=True,
        **_RESNEXT,
    ),
    _cifar(
        "resnext29_8x64d_cifar10",
        PYTORCHCV_RESNET,
        "ResNeXt29_8x64d",
        3,
        build=("resnext_cifar.get_resnext_cifar", {"blocks": 29, "cardinality": 8, "bottleneck_width": 64}),
    ),
    _cifar("resnext29_16x64d_cifar10", PYTORCHCV_RESNET, "ResNeXt29_16x64d", 3),
    _cifar("resnext272_1x64d_cifar10", PYTORCHCV_RESNET, "ResNeXt", 3, depth=272, groups=1, base_width=64, **_RESNEXT),
    _cifar(
        "densenet40_k12_cifar10",
        PYTORCHCV_DENSE,
        "DenseNet",
        depth=40,
        growth_rate=12,
        initial_filters=24,
        quick=True,
        **_DENSE,
    ),
    _cifar(
        "densenet100_k24_cifar10", PYTORCHCV_DENSE, "DenseNet", depth=100, growth_rate=24, initial_filters=48, **_DENSE
    ),
    _cifar(
        "densenet40_k12_bc_cifar10", PYTORCHCV_DENSE_BC, "DenseNet", depth=40, growth_rate=12, quick=True, stem="cifar"
    ),
    _cifar("densenet100_k12_bc_cifar10", PYTORCHCV_DENSE_BC, "DenseNetBC100_12"),
    _cifar("densenet250_k24_bc_cifar10", PYTORCHCV_DENSE_BC, "DenseNetBC250_24"),
    _cifar("densenet190_k40_bc_cifar10", PYTORCHCV_DENSE_BC, "DenseNetBC190_40"),
)
