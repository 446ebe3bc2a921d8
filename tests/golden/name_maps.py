"""How the peers name what our networks name: one table of rules for each naming, read in both directions.

A rule is a pair of layer names, theirs and ours. ``{name}`` stands for a number, ``{name+1}`` and ``{name-1}`` for one more and one
less than the number that both sides share; the first rule of a table that fits counts. A tensor's name is its layer's and
what it is to that layer: torch says ``weight`` and ``bias`` of convolutions, norms and classifiers alike.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

import numpy as np

Rules = tuple[tuple[str, str], ...]

_NUMBER = re.compile(r"\{(\w+)([+-]\d+)?\}")
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_OTHER = {"weight": "kernel", "bias": "bias"}
_THEIRS = {ours: theirs for table in (_NORM, _OTHER) for theirs, ours in table.items()}

BOOKKEEPING = "num_batches_tracked"
"""A tensor of torch's BN that no forward pass reads."""


@dataclass(frozen=True)
class Naming:
    """A peer's naming.

    Attributes:
        name: of the naming.
        rules: theirs and ours.
        convolutional_classifier: whether their classifier is a 1×1 convolution.
    """

    name: str
    rules: Rules
    convolutional_classifier: bool = False

    def ours(self, tensor: str) -> str | None:
        """``"layer1.0.conv1.weight"`` to ``"conv2_block1_1_conv/kernel"``; None for a name that no rule knows."""
        layer, _, part = tensor.rpartition(".")
        found = _translated(layer, self.rules)
        if found is None:
            return None
        table = _NORM if found.endswith("bn") else _OTHER
        return f"{found}/{table[part]}" if part in table else None

    def theirs(self, weight: str) -> str | None:
        """``"conv2_block1_1_conv/kernel"`` to ``"layer1.0.conv1.weight"``; None for a name that no rule knows."""
        layer, _, part = weight.rpartition("/")
        found = _translated(layer, tuple((ours, theirs) for theirs, ours in self.rules))
        return None if found is None or part not in _THEIRS else f"{found}.{_THEIRS[part]}"

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that a weight of ours has there."""
        if len(shape) == 4:
            return (shape[3], shape[2], shape[0], shape[1])
        if len(shape) == 2 and self.convolutional_classifier:
            return (shape[1], shape[0], 1, 1)
        return tuple(reversed(shape))


def our_array(array: np.ndarray, dimensions: int) -> np.ndarray:
    """A tensor of theirs in the layout of a weight of ours that has so many dimensions.

    Convolutions ``[out, in, h, w]`` to ``[h, w, in, out]``, with groups too; classifiers ``[out, in]`` or ``[out, in, 1, 1]``
    to ``[in, out]``; vectors as they are.
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
    for field, literal in zip(literals[1::3], literals[3::3], strict=True):
        again = f"(?P<{field}>" in pattern
        pattern += (f"(?P={field})" if again else rf"(?P<{field}>\d+)") + re.escape(literal)
    return re.compile(pattern)


@functools.cache
def _offset(template: str, field: str) -> int:
    return next(int(offset or 0) for name, offset in _NUMBER.findall(template) if name == field)


def _residual(classifier: str) -> Rules:
    return (
        ("conv1", "conv1_conv"),
        ("bn1", "conv1_bn"),
        ("layer{stage-1}.{block-1}.downsample.0", "conv{stage}_block{block}_0_conv"),
        ("layer{stage-1}.{block-1}.downsample.1", "conv{stage}_block{block}_0_bn"),
        ("layer{stage-1}.{block-1}.conv{number}", "conv{stage}_block{block}_{number}_conv"),
        ("layer{stage-1}.{block-1}.bn{number}", "conv{stage}_block{block}_{number}_bn"),
        (classifier, "predictions"),
    )


TORCHVISION_RESNET = Naming("torchvision ResNet, Wide ResNet and ResNeXt; timm's", _residual("fc"))
PLAIN_CIFAR_RESNET = Naming("CIFAR checkpoints named as torchvision's, shortcut A", _residual("linear"))

TORCHVISION_DENSENET = Naming(
    "torchvision and timm DenseNet",
    (
        ("features.conv0", "conv1_conv"),
        ("features.norm0", "conv1_bn"),
        ("features.denseblock{stage-1}.denselayer{layer}.norm1", "conv{stage}_block{layer}_0_bn"),
        ("features.denseblock{stage-1}.denselayer{layer}.conv1", "conv{stage}_block{layer}_1_conv"),
        ("features.denseblock{stage-1}.denselayer{layer}.norm2", "conv{stage}_block{layer}_1_bn"),
        ("features.denseblock{stage-1}.denselayer{layer}.conv2", "conv{stage}_block{layer}_2_conv"),
        ("features.transition{stage-1}.norm", "pool{stage}_bn"),
        ("features.transition{stage-1}.conv", "pool{stage}_conv"),
        ("features.norm5", "bn"),
        ("classifier", "predictions"),
    ),
)

TIMM_RESNETV2 = Naming(
    "timm ResNetV2 with BN",
    (
        ("stem.conv", "conv1_conv"),
        ("stages.{stage-2}.blocks.{block-1}.downsample.conv", "conv{stage}_block{block}_0_conv"),
        ("stages.{stage-2}.blocks.{block-1}.norm1", "conv{stage}_block{block}_preact_bn"),
        ("stages.{stage-2}.blocks.{block-1}.norm{number+1}", "conv{stage}_block{block}_{number}_bn"),
        ("stages.{stage-2}.blocks.{block-1}.conv{number}", "conv{stage}_block{block}_{number}_conv"),
        ("norm", "post_bn"),
        ("head.fc", "predictions"),
    ),
    convolutional_classifier=True,
)

PYTORCHCV_CIFAR_RESNET = Naming(
    "pytorchcv ResNet, ResNeXt and ResDrop-ResNet for CIFAR",
    (
        ("features.init_block.conv", "conv1_conv"),
        ("features.init_block.bn", "conv1_bn"),
        ("features.stage{stage-1}.unit{block}.identity_conv.conv", "conv{stage}_block{block}_0_conv"),
        ("features.stage{stage-1}.unit{block}.identity_conv.bn", "conv{stage}_block{block}_0_bn"),
        ("features.stage{stage-1}.unit{block}.body.conv{number}.conv", "conv{stage}_block{block}_{number}_conv"),
        ("features.stage{stage-1}.unit{block}.body.conv{number}.bn", "conv{stage}_block{block}_{number}_bn"),
        ("output", "predictions"),
    ),
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
    "pytorchcv pre-activation ResNet for CIFAR: the first unit's shortcut is not activated", _PYTORCHCV_CIFAR_PREACT
)

PYTORCHCV_CIFAR_WIDE = Naming(
    # Where the first unit projects, its pre-activation is the stem's activation.
    "pytorchcv Wide ResNet for CIFAR",
    (("features.stage1.unit1.body.conv1.bn", "conv1_bn"), *_PYTORCHCV_CIFAR_PREACT),
)

_PYTORCHCV_CIFAR_DENSE: Rules = (
    ("features.init_block", "conv1_conv"),
    ("features.stage{stage}.trans{stage}.conv.bn", "pool{stage}_bn"),
    ("features.stage{stage}.trans{stage}.conv.conv", "pool{stage}_conv"),
    ("features.post_activ.bn", "bn"),
    ("output", "predictions"),
)

PYTORCHCV_CIFAR_DENSENET = Naming(
    "pytorchcv DenseNet for CIFAR",
    (
        *_PYTORCHCV_CIFAR_DENSE,
        ("features.stage{stage-1}.unit{layer}.conv.bn", "conv{stage}_block{layer}_0_bn"),
        ("features.stage{stage-1}.unit{layer}.conv.conv", "conv{stage}_block{layer}_1_conv"),
    ),
)

PYTORCHCV_CIFAR_DENSENET_BC = Naming(
    "pytorchcv DenseNet-BC for CIFAR",
    (
        *_PYTORCHCV_CIFAR_DENSE,
        ("features.stage{stage-1}.unit{layer}.conv{number+1}.bn", "conv{stage}_block{layer}_{number}_bn"),
        ("features.stage{stage-1}.unit{layer}.conv{number}.conv", "conv{stage}_block{layer}_{number}_conv"),
    ),
)
