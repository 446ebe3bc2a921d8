"""The detector at the start of a run: a named one with its initial weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_deepnets import registry
from keras_deepnets.detection.detector import Detector
from keras_deepnets.weights import load_weights


def started(name: str, weights: Any, backbone: Any, options: Mapping[str, Any], classes: Sequence[str]) -> Detector:
    """Build a detector and load its initial weights.

    Args:
        name: name of the detector.
        weights: weights of the detector, or None. The predictions are loaded only if they are for the same classes.
        backbone: weights of the classifier for the backbone, or None.
        options: further arguments of the constructor.
        classes: names of the classes, the background first.

    Raises:
        InputError: an argument is invalid, or the weights do not fit.
    """
    constructor = registry.constructor_of(name)
    model = constructor(classes=len(classes), weights_backbone=_file(backbone), **options)  # type: ignore[call-arg]
    if weights is not None:
        load_weights(model, _file(weights), skip_head=not _same_classes(weights, classes))
    model.labels = classes
    return model  # type: ignore[return-value]


def _file(source: Any) -> Any:
    """The weight file of a finished run; any other source unchanged."""
    if source is None:
        return None
    path = Path(os.fspath(source))
    return path / "model.keras" if path.is_dir() else source


def _same_classes(weights: Any, classes: Sequence[str]) -> bool:
    """Whether a file of this library records the same classes."""
    from keras_deepnets.weights import reading

    path = Path(os.fspath(_file(weights)))
    if not path.is_file():
        return False
    record = reading.read(path).record or {}
    return list(record.get("labels") or ()) == list(classes)
