"""Freeze the lower part of a detector's backbone."""

from __future__ import annotations

import re

import keras

from keras_deepnets import surgery
from keras_deepnets.detection.detector import Detector
from keras_deepnets.errors import InputError

_LEVEL = re.compile(r"P([0-9])")


def freeze(model: Detector, up_to: str | None) -> list[tuple[keras.layers.Layer, bool]]:
    """Freeze the layers of the backbone up to one of them.

    Args:
        model: detector.
        up_to: name of the last frozen layer, or ``"P2"``: the end of the stage of stride 2². None: no layer.

    Returns:
        The frozen layers with their earlier state, for `restore`.

    Raises:
        InputError: the layer or the level does not exist.
    """
    if up_to is None:
        return []
    body = model.get_layer("body")
    if _LEVEL.fullmatch(up_to):
        levels = surgery.stage_ends(body)
        if up_to not in levels:
            raise InputError(f"freeze={up_to!r}: the backbone of {model.name} has the levels {', '.join(levels)}.")
        up_to = levels[up_to]
    names = [layer.name for layer in body.layers]
    if up_to not in names:
        raise InputError(f"freeze={up_to!r} is not a layer of the backbone of {model.name}; give e.g. P2.")
    below = surgery.ancestors(body.get_layer(up_to))
    found = [(layer, layer.trainable) for layer in body.layers if layer.name in below]
    for layer, _ in found:
        layer.trainable = False
    return found


def restore(frozen: list[tuple[keras.layers.Layer, bool]]) -> None:
    """Restore the state of frozen layers."""
    for layer, trainable in frozen:
        layer.trainable = trainable
