"""Recognise the library, the kind of network and the options from the names and shapes of weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from keras_deepnets.weights.naming import BOOKKEEPING, Naming
from keras_deepnets.weights.naming_tables import (
    KERAS,
    KERAS_HUB_DENSENET,
    KERAS_HUB_RESNET,
    KERAS_HUB_RESNET_D,
    NAMINGS,
)

_MOVING = (".running_mean", ".running_var")


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
    channels = naming.our_array(first, 4, "conv2_block1_0_conv").shape[2:]
    return {"project_first": True} if channels[0] == channels[1] else {}


def has_applications_biases(names: Iterable[str]) -> bool:
    """Whether convolutions before batch normalisation have biases. Only keras.applications has them.

    Its ResNets stride in the first convolution of a bottleneck, and its ResNetV2s in the last unit of a stage. Both use a different
    epsilon than this library.
    """
    names = set(names)
    return "conv1_conv/bias" in names and not names.isdisjoint(("conv1_bn/gamma", "post_bn/gamma"))
