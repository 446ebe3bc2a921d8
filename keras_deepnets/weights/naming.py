"""Weight names of other libraries. Each naming is one table of rules, which is read in both directions.

A rule is a pair of layer names: the other library's and this library's. ``{name}`` means a number. ``{name+1}`` and ``{name-1}`` mean
one more and one less than the number that both sides share. The first matching rule of a table applies. A tensor's name consists of
the layer's name and the tensor's role in that layer. Torch uses ``weight`` and ``bias`` for convolutions, norms and classifiers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Rules = tuple[tuple[str, str], ...]

_NUMBER = re.compile(r"\{(\w+)([+-]\d+)?\}")
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_OTHER = {"weight": "kernel", "bias": "bias"}
_THEIRS = {ours: theirs for table in (_NORM, _OTHER) for theirs, ours in table.items()}

_MOVING = (".running_mean", ".running_var")

BOOKKEEPING = "num_batches_tracked"
"""A tensor of torch's batch normalisation that no forward pass reads."""


@dataclass(frozen=True)
class Naming:
    """Another library's names and layout of the same weights.

    Attributes:
        name: Name of the naming for users.
        rules: Pairs of layer names, the other library's and this library's. Empty if they are the same.
        families: Names of this library's families with such networks.
        layout: ``"torch"`` or ``"keras"``.
        convolutional_classifier: Whether the other library's classifier is a 1×1 convolution.
        needs: Options that a network of this library needs to compute the same. Shapes do not show them.
        has: A tensor that all networks of this naming have, if names alone do not identify the naming.
        moving: Whether the norms have moving statistics. Group normalisation has none.
        epsilon: Epsilon of the other library's batch normalisation, if it differs and files do not store it.
    """

    name: str
    rules: Rules
    families: tuple[str, ...] = ()
    layout: str = "torch"
    convolutional_classifier: bool = False
    needs: Mapping[str, Any] = field(default_factory=dict)
    has: str | None = None
    moving: bool = True
    epsilon: float | None = None

    def ours(self, tensor: str) -> str | None:
        """Translate ``"layer1.0.conv1.weight"`` to ``"conv2_block1_1_conv/kernel"``. None if no rule matches the name."""
        if self.layout == "keras":
            layer, _, part = tensor.rpartition("/")
            found = _translated(layer, self.rules) if self.rules else layer
            return None if found is None or part not in _THEIRS else f"{found}/{part}"
        layer, _, part = tensor.rpartition(".")
        found = _translated(layer, self.rules)
        if found is None:
            return None
        table = _NORM if found.endswith(("bn", "gn")) else _OTHER
        return f"{found}/{table[part]}" if part in table else None

    def theirs(self, weight: str) -> str | None:
        """Translate ``"conv2_block1_1_conv/kernel"`` to ``"layer1.0.conv1.weight"``. None if no rule matches the name."""
        layer, _, part = weight.rpartition("/")
        found = _translated(layer, tuple((ours, theirs) for theirs, ours in self.rules))
        if found is None or part not in _THEIRS:
            return None
        return f"{found}/{part}" if self.layout == "keras" else f"{found}.{_THEIRS[part]}"

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The other library's shape for a weight of this library."""
        if self.layout == "keras":
            return shape
        if len(shape) == 4:
            return (shape[3], shape[2], shape[0], shape[1])
        if len(shape) == 2 and self.convolutional_classifier:
            return (shape[1], shape[0], 1, 1)
        return tuple(reversed(shape))

    def our_array(self, array: np.ndarray, dimensions: int) -> np.ndarray:
        """Convert a tensor of the other library to this library's layout, for a weight with `dimensions` dimensions."""
        return array if self.layout == "keras" else our_array(array, dimensions)


def our_array(array: np.ndarray, dimensions: int) -> np.ndarray:
    """Convert a torch tensor to this library's layout, for a weight with `dimensions` dimensions.

    * Convolutions, grouped ones too: ``[out, in, h, w]`` to ``[h, w, in, out]``.
    * Convolutions along one axis: ``[out, in, k]`` to ``[k, in, out]``.
    * Classifiers: ``[out, in]`` or ``[out, in, 1, 1]`` to ``[in, out]``.
    * Vectors: unchanged.
    """
    if dimensions == 2 and array.ndim == 4:
        array = array[:, :, 0, 0]
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.transpose()


def _translated(name: str, rules: Rules) -> str | None:
    for source, target in rules:
        match = _pattern(source).fullmatch(name)
        if match:
            return _filled(
                target, {name: int(text) - _offset(source, name) for name, text in match.groupdict().items()}
            )
    return None


def _filled(template: str, numbers: dict[str, int]) -> str:
    return _NUMBER.sub(lambda found: str(numbers[found[1]] + int(found[2] or 0)), template)


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    literals = _NUMBER.split(template)
    pattern = re.escape(literals[0])
    for number, literal in zip(literals[1::3], literals[3::3], strict=True):
        again = f"(?P<{number}>" in pattern
        pattern += (f"(?P={number})" if again else rf"(?P<{number}>\d+)") + re.escape(literal)
    return re.compile(pattern)


@functools.cache
def _offset(template: str, field: str) -> int:
    return next(int(offset or 0) for name, offset in _NUMBER.findall(template) if name == field)


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
    convolutional_classifier=True,
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
    convolutional_classifier=True,
    has="stem.conv1.weight",
)
TIMM_GROUPED_RESNETV2_D = Naming(
    "timm's ResNetV2-D with group normalisation",
    _grouped(_DEEP_PREACTIVATED),
    ("ResNetV2", "PreActResNet"),
    needs={"downsample": "3x3", "activate_first": False, "shortcut": "D", "norm": "group"},
    convolutional_classifier=True,
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

NAMINGS = (
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
)
"""All recognised namings except Keras' names, which this library uses itself."""

_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.|model\.|state_dict\.)+")
_OLD_DENSE = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)")


def plain_name(name: str) -> str:
    """Remove wrapper prefixes from a tensor's name, and update old torchvision DenseNet names."""
    return _OLD_DENSE.sub(r"\1\2", _WRAPPERS.sub("", name))


def recognised(names: Iterable[str], wanted: Iterable[str]) -> Naming | None:
    """Return the naming that translates most of the `names`. Ties go to the one that gives most of the `wanted`. None if no name fits."""
    names, wanted = [name for name in names if not name.endswith(BOOKKEEPING)], set(wanted)
    if names and all("/" in name for name in names):
        if not any(name.startswith("stack") for name in names):
            return KERAS
        return next((hub for hub in (KERAS_HUB_DENSENET, KERAS_HUB_RESNET_D) if hub.has in names), KERAS_HUB_RESNET)
    best, score = None, (0, 0)
    moving = any(name.endswith(_MOVING) for name in names)
    for naming in NAMINGS:
        if (naming.has and naming.has not in names) or (moving and not naming.moving):
            continue
        ours = _known(naming, names)
        found = (len(ours), len(wanted.intersection(ours)))
        if found > score:
            best, score = naming, found
    return best


def _known(naming: Naming, names: Iterable[str]) -> list[str]:
    return [ours for ours in map(naming.ours, names) if ours is not None]


_KINDS = (
    (("bn/gamma",), "DenseNet"),
    (("post_bn/gamma", "post_gn/gamma"), "ResNet with pre-activation"),
    (("conv2_block1_1_bn/gamma", "conv2_block1_1_gn/gamma"), "ResNet"),
)


def kind_of(names: Iterable[str]) -> str | None:
    """Return the kind of network with these weight names of this library: ``"DenseNet"``, …. None if the names do not show it."""
    names = set(names)
    return next((kind for signs, kind in _KINDS if names.intersection(signs)), None)


def told_by(arrays: Mapping[str, np.ndarray], naming: Naming) -> dict[str, Any]:
    """The options that the tensors of a file without a record imply."""
    found = {ours: array for ours, array in ((naming.ours(name), array) for name, array in arrays.items()) if ours}
    if has_applications_biases(found):
        return {"form": "keras"} if "post_bn/gamma" in found else {"downsample": "1x1"}
    first = found.get("conv2_block1_0_conv/kernel")
    if (
        first is None
        or first.ndim != 4
        or "conv2_block1_3_conv/kernel" in found
        or "conv2_block2_0_conv/kernel" in found
    ):
        return {}
    channels = naming.our_array(first, 4).shape[2:]
    return {"project_first": True} if channels[0] == channels[1] else {}


def has_applications_biases(names: Iterable[str]) -> bool:
    """Whether convolutions before batch normalisation have biases. Only keras.applications has them.

    Its ResNets stride in the first convolution of a bottleneck, and its ResNetV2s in the last unit of a stage. Both use a different
    epsilon than this library.
    """
    names = set(names)
    return "conv1_conv/bias" in names and not names.isdisjoint(("conv1_bn/gamma", "post_bn/gamma"))
