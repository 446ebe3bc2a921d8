"""The weight names of torchvision, timm, pytorchcv, KerasHub and Keras, as tables of rules."""

from __future__ import annotations

import re

from keras_deepnets.families import bn_inception, googlenet, inception
from keras_deepnets.weights.naming import Naming, Rules

_STEM: Rules = (("conv1", "conv1_conv"), ("bn1", "conv1_bn"))
_DEEP_STEM: Rules = (
    ("conv1.0", "conv1_1_conv"),
    ("conv1.1", "conv1_1_bn"),
    ("conv1.3", "conv1_2_conv"),
    ("conv1.4", "conv1_2_bn"),
    ("conv1.6", "conv1_conv"),
    ("bn1", "conv1_bn"),
    ("maxpool.0", "pool1_conv"),
    ("maxpool.1", "pool1_bn"),
)


def _residual(classifier: str, stem: Rules = _STEM, projection: int = 0) -> Rules:
    """Rules for residual networks. `projection` is the index of the shortcut's convolution in torch's sequence."""
    return (
        *stem,
        (f"layer{{stage-1}}.{{block-1}}.downsample.{projection}", "conv{stage}_block{block}_0_conv"),
        (f"layer{{stage-1}}.{{block-1}}.downsample.{projection + 1}", "conv{stage}_block{block}_0_bn"),
        ("layer{stage-1}.{block-1}.se.fc{number}", "conv{stage}_block{block}_se_{number}_conv"),
        ("layer{stage-1}.{block-1}.se.conv", "conv{stage}_block{block}_se_conv"),
        ("layer{stage-1}.{block-1}.conv{number}", "conv{stage}_block{block}_{number}_conv"),
        ("layer{stage-1}.{block-1}.bn{number}", "conv{stage}_block{block}_{number}_bn"),
        (classifier, "predictions"),
    )


def _grouped(rules: Rules) -> Rules:
    """The same rules for group normalisation instead of batch normalisation. The other library's names do not change."""
    return tuple((theirs, re.sub("bn$", "gn", ours)) for theirs, ours in rules)


TORCHVISION_RESNET = Naming(
    "torchvision's and timm's ResNet",
    _residual("fc"),
    ("ResNet", "WideResNet", "ResNeXt"),
    needs={"downsample": "3x3"},
)
TIMM_DEEP_STEM_RESNET = Naming(
    "timm's ResNet-C",
    _residual("fc", _DEEP_STEM),
    ("ResNet", "ResNeXt"),
    needs={"downsample": "3x3"},
    has="conv1.0.weight",
)
TIMM_RESNET_D = Naming(
    "timm's ResNet-D",
    _residual("fc", _DEEP_STEM, projection=1),
    ("ResNet", "ResNeXt"),
    needs={"downsample": "3x3", "shortcut": "D"},
    has="layer2.0.downsample.2.weight",
)
TIMM_RESNET_D_PLAIN_STEM = Naming(
    "timm's ResNet with ResNet-D's shortcuts",
    _residual("fc", projection=1),
    ("ResNet", "ResNeXt"),
    needs={"downsample": "3x3", "shortcut": "D"},
    has="layer2.0.downsample.2.weight",
)
TIMM_GROUPED_RESNET = Naming(
    "timm's ResNet with group normalisation",
    _grouped(_residual("fc")),
    ("ResNet", "ResNeXt"),
    needs={"downsample": "3x3", "norm": "group"},
    moving=False,
)
PLAIN_CIFAR_RESNET = Naming("plain CIFAR ResNet", _residual("linear"), ("ResNet",), needs={"shortcut": "A"})

_DENSE_STEM: Rules = (("features.conv0", "conv1_conv"), ("features.norm0", "conv1_bn"))
_DEEP_DENSE_STEM: Rules = (
    ("features.conv0", "conv1_1_conv"),
    ("features.norm0", "conv1_1_bn"),
    ("features.conv1", "conv1_2_conv"),
    ("features.norm1", "conv1_2_bn"),
    ("features.conv2", "conv1_conv"),
    ("features.norm2", "conv1_bn"),
)


def _dense(stem: Rules) -> Rules:
    return (
        *stem,
        ("features.denseblock{stage-1}.denselayer{layer}.norm1", "conv{stage}_block{layer}_0_bn"),
        ("features.denseblock{stage-1}.denselayer{layer}.conv1", "conv{stage}_block{layer}_1_conv"),
        ("features.denseblock{stage-1}.denselayer{layer}.norm2", "conv{stage}_block{layer}_1_bn"),
        ("features.denseblock{stage-1}.denselayer{layer}.conv2", "conv{stage}_block{layer}_2_conv"),
        ("features.transition{stage-1}.norm", "pool{stage}_bn"),
        ("features.transition{stage-1}.conv", "pool{stage}_conv"),
        ("features.norm5", "bn"),
        ("classifier", "predictions"),
    )


TORCHVISION_DENSENET = Naming("torchvision's and timm's DenseNet", _dense(_DENSE_STEM), ("DenseNet",))
TIMM_DEEP_STEM_DENSENET = Naming(
    "timm's DenseNet with a deep stem", _dense(_DEEP_DENSE_STEM), ("DenseNet",), has="features.conv2.weight"
)


def _preactivated(stem: Rules) -> Rules:
    return (
        *stem,
        ("stages.{stage-2}.blocks.{block-1}.downsample.conv", "conv{stage}_block{block}_0_conv"),
        ("stages.{stage-2}.blocks.{block-1}.norm1", "conv{stage}_block{block}_preact_bn"),
        ("stages.{stage-2}.blocks.{block-1}.norm{number+1}", "conv{stage}_block{block}_{number}_bn"),
        ("stages.{stage-2}.blocks.{block-1}.conv{number}", "conv{stage}_block{block}_{number}_conv"),
        ("norm", "post_bn"),
        ("head.fc", "predictions"),
    )


TIMM_RESNETV2 = Naming(
    "timm's ResNetV2",
    _preactivated((("stem.conv", "conv1_conv"),)),
    ("ResNetV2", "PreActResNet"),
    needs={"downsample": "3x3", "activate_first": False},
    convolutions={"predictions": 1},
)
_DEEP_PREACTIVATED = _preactivated(
    (
        ("stem.conv1", "conv1_1_conv"),
        ("stem.norm1", "conv1_1_bn"),
        ("stem.conv2", "conv1_2_conv"),
        ("stem.norm2", "conv1_2_bn"),
        ("stem.conv3", "conv1_conv"),
    )
)
TIMM_RESNETV2_D = Naming(
    "timm's ResNetV2-D",
    _DEEP_PREACTIVATED,
    ("ResNetV2", "PreActResNet"),
    needs={"downsample": "3x3", "activate_first": False, "shortcut": "D"},
    convolutions={"predictions": 1},
    has="stem.conv1.weight",
)
TIMM_GROUPED_RESNETV2_D = Naming(
    "timm's ResNetV2-D with group normalisation",
    _grouped(_DEEP_PREACTIVATED),
    ("ResNetV2", "PreActResNet"),
    needs={"downsample": "3x3", "activate_first": False, "shortcut": "D", "norm": "group"},
    convolutions={"predictions": 1},
    has="stem.conv1.weight",
    moving=False,
)

PYTORCHCV_CIFAR_RESNET = Naming(
    "pytorchcv's CIFAR ResNet",
    (
        ("features.init_block.conv", "conv1_conv"),
        ("features.init_block.bn", "conv1_bn"),
        ("features.stage{stage-1}.unit{block}.identity_conv.conv", "conv{stage}_block{block}_0_conv"),
        ("features.stage{stage-1}.unit{block}.identity_conv.bn", "conv{stage}_block{block}_0_bn"),
        ("features.stage{stage-1}.unit{block}.body.conv{number}.conv", "conv{stage}_block{block}_{number}_conv"),
        ("features.stage{stage-1}.unit{block}.body.conv{number}.bn", "conv{stage}_block{block}_{number}_bn"),
        ("output", "predictions"),
    ),
    ("ResNet", "ResNeXt"),
    needs={"downsample": "3x3"},
)

_PYTORCHCV_CIFAR_PREACT: Rules = (
    ("features.init_block", "conv1_conv"),
    ("features.stage{stage-1}.unit{block}.identity_conv", "conv{stage}_block{block}_0_conv"),
    ("features.stage{stage-1}.unit{block}.body.conv1.bn", "conv{stage}_block{block}_preact_bn"),
    ("features.stage{stage-1}.unit{block}.body.conv{number+1}.bn", "conv{stage}_block{block}_{number}_bn"),
    ("features.stage{stage-1}.unit{block}.body.conv{number}.conv", "conv{stage}_block{block}_{number}_conv"),
    ("features.post_activ.bn", "post_bn"),
    ("output", "predictions"),
)

PYTORCHCV_CIFAR_PREACT = Naming(
    # The shortcut of the first unit has no activation.
    "pytorchcv's CIFAR PreResNet",
    _PYTORCHCV_CIFAR_PREACT,
    ("PreActResNet",),
    needs={"downsample": "3x3", "activate_first": False},
)

PYTORCHCV_CIFAR_WIDE = Naming(
    # If the first unit has a projection, its pre-activation is the stem's activation.
    "pytorchcv's CIFAR Wide ResNet",
    (("features.stage1.unit1.body.conv1.bn", "conv1_bn"), *_PYTORCHCV_CIFAR_PREACT),
    ("WideResNet", "PreActResNet"),
    needs={"downsample": "3x3", "activate_first": True},
    has="features.stage1.unit1.identity_conv.weight",
)

_PYTORCHCV_CIFAR_DENSE: Rules = (
    ("features.init_block", "conv1_conv"),
    ("features.stage{stage}.trans{stage}.conv.bn", "pool{stage}_bn"),
    ("features.stage{stage}.trans{stage}.conv.conv", "pool{stage}_conv"),
    ("features.post_activ.bn", "bn"),
    ("output", "predictions"),
)

PYTORCHCV_CIFAR_DENSENET = Naming(
    "pytorchcv's CIFAR DenseNet",
    (
        *_PYTORCHCV_CIFAR_DENSE,
        ("features.stage{stage-1}.unit{layer}.conv.bn", "conv{stage}_block{layer}_0_bn"),
        ("features.stage{stage-1}.unit{layer}.conv.conv", "conv{stage}_block{layer}_1_conv"),
    ),
    ("DenseNet",),
)

PYTORCHCV_CIFAR_DENSENET_BC = Naming(
    "pytorchcv's CIFAR DenseNet-BC",
    (
        *_PYTORCHCV_CIFAR_DENSE,
        ("features.stage{stage-1}.unit{layer}.conv{number+1}.bn", "conv{stage}_block{layer}_{number}_bn"),
        ("features.stage{stage-1}.unit{layer}.conv{number}.conv", "conv{stage}_block{layer}_{number}_conv"),
    ),
    ("DenseNet",),
)

KERAS = Naming("Keras", (), layout="keras")

_KERAS_HUB: Rules = (
    ("stack{stage-2}_block{block-1}_pre_activation_bn", "conv{stage}_block{block}_preact_bn"),
    ("stack{stage-2}_block{block-1}_{number}_conv", "conv{stage}_block{block}_{number}_conv"),
    ("stack{stage-2}_block{block-1}_{number}_bn", "conv{stage}_block{block}_{number}_bn"),
    ("post_bn", "post_bn"),
    ("predictions", "predictions"),
)
KERAS_HUB_RESNET = Naming(
    "KerasHub's ResNet",
    (("conv1_conv", "conv1_conv"), ("conv1_bn", "conv1_bn"), *_KERAS_HUB),
    ("ResNet", "ResNetV2", "PreActResNet"),
    layout="keras",
    needs={"downsample": "3x3", "activate_first": False},
)
KERAS_HUB_RESNET_D = Naming(
    "KerasHub's ResNet-D",
    (
        ("conv1_conv", "conv1_1_conv"),
        ("conv1_bn", "conv1_1_bn"),
        ("conv2_conv", "conv1_2_conv"),
        ("conv2_bn", "conv1_2_bn"),
        ("conv3_conv", "conv1_conv"),
        ("conv3_bn", "conv1_bn"),
        *_KERAS_HUB,
    ),
    ("ResNet", "ResNetV2", "PreActResNet"),
    layout="keras",
    needs={"downsample": "3x3", "activate_first": False, "shortcut": "D"},
    has="conv3_conv/kernel",
)
KERAS_HUB_DENSENET = Naming(
    "KerasHub's DenseNet",
    (
        ("conv1_conv", "conv1_conv"),
        ("conv1_bn", "conv1_bn"),
        ("stack{stage-1}_block{layer}_{number+1}_bn", "conv{stage}_block{layer}_{number}_bn"),
        ("stack{stage-1}_block{layer}_{number}_conv", "conv{stage}_block{layer}_{number}_conv"),
        ("transition{stage-1}_bn", "pool{stage}_bn"),
        ("transition{stage-1}_conv", "pool{stage}_conv"),
        ("bn", "bn"),
        ("predictions", "predictions"),
    ),
    ("DenseNet",),
    layout="keras",
    needs={"stem_padding": "same"},
    has="bn/gamma",
    epsilon=1.001e-5,
)

VGG_STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def _vgg(depth: int, batch_norm: bool) -> Rules:
    """The convolutions are numbered together with what follows them: batch normalisation, ReLU, and the pooling after a stage."""
    rules, at = [], 0
    for stage, count in enumerate(VGG_STAGES[depth], start=1):
        for number in range(1, count + 1):
            rules.append((f"features.{at}", f"block{stage}_conv{number}"))
            if batch_norm:
                rules.append((f"features.{at + 1}", f"block{stage}_conv{number}_bn"))
            at += 3 if batch_norm else 2
        at += 1
    return tuple(rules)


def _vgg_namings(depth: int, batch_norm: bool) -> tuple[Naming, Naming]:
    kind = f"VGG{depth}{' with BN' if batch_norm else ''}"
    rules, needs = _vgg(depth, batch_norm), {"pooled_size": 7}
    layers = (("classifier.0", "fc1"), ("classifier.3", "fc2"), ("classifier.6", "predictions"))
    torchvision = Naming(f"torchvision's {kind}", rules + layers, ("VGG",), needs=needs, flattened={"fc1": 7})
    layers = (("pre_logits.fc1", "fc1"), ("pre_logits.fc2", "fc2"), ("head.fc", "predictions"))
    timm = Naming(f"timm's {kind}", rules + layers, ("VGG",), convolutions={"fc1": 7, "fc2": 1}, needs=needs)
    return torchvision, timm


VGG = {(depth, batch_norm): _vgg_namings(depth, batch_norm) for depth in VGG_STAGES for batch_norm in (False, True)}
"""Depth and whether there is batch normalisation, to torchvision's and timm's naming."""


def _bn_inception() -> tuple[Rules, Rules]:
    """Cadene's names, which are Caffe's, and pytorchcv's. In pytorchcv, the modules that halve the resolution begin their stage."""
    theirs: list[tuple[str, str]] = []
    pytorchcv: list[tuple[str, str]] = []

    def add(name: str, path: str) -> None:
        theirs.extend(((name, f"{name}_conv"), (f"{name}_bn", f"{name}_bn")))
        pytorchcv.extend(((f"features.{path}.conv", f"{name}_conv"), (f"features.{path}.bn", f"{name}_bn")))

    add("conv1_7x7_s2", "init_block.conv1")
    add("conv2_3x3_reduce", "init_block.conv2.conv1")
    add("conv2_3x3", "init_block.conv2.conv2")
    stage, unit = 1, 0
    for name, module in inception.module_names(bn_inception.MODULES):
        first = 2 if module[0] else 1
        stage, unit = (stage, unit + 1) if module[0] else (stage + 1, 1)
        start, path = f"inception_{name}", f"stage{stage}.unit{unit}.branches.branch"
        if module[0]:
            add(f"{start}_1x1", f"{path}1")
            add(f"{start}_pool_proj", f"{path}4.conv")
        for number, part in enumerate(("3x3_reduce", "3x3"), start=1):
            add(f"{start}_{part}", f"{path}{first}.conv{number}")
        for number, part in enumerate(("double_3x3_reduce", "double_3x3_1", "double_3x3_2"), start=1):
            add(f"{start}_{part}", f"{path}{first + 1}.conv{number}")
    return (*theirs, ("last_linear", "predictions")), (*pytorchcv, ("output", "predictions"))


def _googlenet() -> Rules:
    rules: list[tuple[str, str]] = []

    def add(theirs: str, ours: str) -> None:
        rules.extend(((f"{theirs}.conv", f"{ours}_conv"), (f"{theirs}.bn", f"{ours}_bn")))

    add("conv1", "conv1_7x7_s2")
    add("conv2", "conv2_3x3_reduce")
    add("conv3", "conv2_3x3")
    parts = {"1x1": "1", "3x3_reduce": "2.0", "3x3": "2.1", "5x5_reduce": "3.0", "5x5": "3.1", "pool_proj": "4.1"}
    for name, _ in inception.module_names(googlenet.MODULES):
        for ours, branch in parts.items():
            add(f"inception{name}.branch{branch}", f"inception_{name}_{ours}")
    for head in ("aux1", "aux2"):
        add(f"{head}.conv", f"{head}_1x1")
        rules += [(f"{head}.fc1", f"{head}_fc"), (f"{head}.fc2", f"{head}_predictions")]
    return (*rules, ("fc", "predictions"))


TORCHVISION_GOOGLENET = Naming(
    "torchvision's GoogLeNet",
    _googlenet(),
    ("GoogLeNet",),
    needs={"batch_norm": True},
    flattened={"aux1_fc": 4, "aux2_fc": 4},
    epsilon=1e-3,
)
PYTORCHCV_NIN = Naming(
    "pytorchcv's NIN",
    (
        ("features.stage{stage}.unit{unit}.conv", "conv{stage}_{unit}_conv"),
        ("output.final_conv.conv", "predictions"),
    ),
    ("NIN",),
    needs={"pool2": "avg", "pool_padding": "symmetric"},
)


PYTORCHCV_VGG = Naming(
    "pytorchcv's VGG",
    (
        ("features.stage{stage}.unit{unit}.conv", "block{stage}_conv{unit}"),
        ("features.stage{stage}.unit{unit}.bn", "block{stage}_conv{unit}_bn"),
        ("output.fc{number}.fc", "fc{number}"),
        ("output.fc3", "predictions"),
    ),
    ("VGG",),
    needs={"pooled_size": 7},
    flattened={"fc1": 7},
    has="output.fc3.weight",
)


def _fractalnet(columns: int) -> Rules:
    """In pytorchcv, the convolutions of a block are numbered by row, and the columns of a row from the deepest."""
    rules = []
    for column in range(1, columns + 1):
        for number in range(1, 2 ** (column - 1) + 1):
            theirs = f"features.unit{{block}}.block.blocks.block{number * 2 ** (columns - column)}.subblock{columns - column + 1}"
            for part in ("conv", "bn"):
                rules.append((f"{theirs}.{part}", f"block{{block}}_column{column}_{number}_{part}"))
    return (*rules, ("output", "predictions"))


PYTORCHCV_FRACTALNET = Naming(
    "pytorchcv's FractalNet", _fractalnet(3), ("FractalNet",), needs={"pool_before_join": False}
)
_CADENE, _PYTORCHCV = _bn_inception()
CADENE_BN_INCEPTION = Naming("Cadene's BN-Inception", _CADENE, ("BNInception",))
PYTORCHCV_BN_INCEPTION = Naming("pytorchcv's BN-Inception", _PYTORCHCV, ("BNInception",))


def _faster_rcnn(head: Rules) -> Rules:
    """Rules for torchvision's Faster R-CNN on a residual network with a feature pyramid. Old files have shorter names."""
    body = tuple((f"backbone.body.{theirs}", ours) for theirs, ours in _residual("fc")[:-1])
    return (
        *body,
        *(
            (f"backbone.fpn.{theirs}_blocks.{{level-2}}{suffix}", f"fpn_{theirs}{{level}}_{part}")
            for theirs in ("inner", "layer")
            for suffix, part in ((".0", "conv"), (".1", "bn"), ("", "conv"))
        ),
        ("rpn.head.conv.{number-1}.0", "rpn_conv{number}"),
        ("rpn.head.conv", "rpn_conv1"),
        ("rpn.head.cls_logits", "rpn_objectness"),
        ("rpn.head.bbox_pred", "rpn_deltas"),
        *head,
        ("roi_heads.box_predictor.cls_score", "predictions"),
        ("roi_heads.box_predictor.bbox_pred", "predictions_boxes"),
    )


TORCHVISION_FASTER_RCNN = Naming(
    "torchvision's Faster R-CNN",
    _faster_rcnn((("roi_heads.box_head.fc6", "head_fc6"), ("roi_heads.box_head.fc7", "head_fc7"))),
    ("FasterRCNN",),
    flattened={"head_fc6": 7},
    has="roi_heads.box_head.fc6.weight",
)
TORCHVISION_FASTER_RCNN_V2 = Naming(
    "torchvision's Faster R-CNN, version 2",
    _faster_rcnn(
        (
            ("roi_heads.box_head.5", "head_fc6"),
            ("roi_heads.box_head.{number-1}.0", "head_conv{number}_conv"),
            ("roi_heads.box_head.{number-1}.1", "head_conv{number}_bn"),
        )
    ),
    ("FasterRCNN",),
    flattened={"head_fc6": 7},
    has="roi_heads.box_head.5.weight",
)

NAMINGS = (
    TORCHVISION_FASTER_RCNN,
    TORCHVISION_FASTER_RCNN_V2,
    TIMM_GROUPED_RESNET,
    TIMM_GROUPED_RESNETV2_D,
    TORCHVISION_RESNET,
    TIMM_DEEP_STEM_RESNET,
    TIMM_RESNET_D,
    TIMM_RESNET_D_PLAIN_STEM,
    PLAIN_CIFAR_RESNET,
    TORCHVISION_DENSENET,
    TIMM_DEEP_STEM_DENSENET,
    TIMM_RESNETV2,
    TIMM_RESNETV2_D,
    PYTORCHCV_CIFAR_RESNET,
    PYTORCHCV_CIFAR_WIDE,
    PYTORCHCV_CIFAR_PREACT,
    PYTORCHCV_CIFAR_DENSENET,
    PYTORCHCV_CIFAR_DENSENET_BC,
    KERAS_HUB_RESNET,
    KERAS_HUB_RESNET_D,
    KERAS_HUB_DENSENET,
    *(naming for pair in VGG.values() for naming in pair),
    TORCHVISION_GOOGLENET,
    CADENE_BN_INCEPTION,
    PYTORCHCV_BN_INCEPTION,
    PYTORCHCV_NIN,
    PYTORCHCV_VGG,
    PYTORCHCV_FRACTALNET,
)
"""All recognised namings except Keras' names, which this library uses itself."""
