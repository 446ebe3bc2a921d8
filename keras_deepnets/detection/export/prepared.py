"""Facts about a detector that every export needs, checked before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_deepnets.detection.detector import Detector
from keras_deepnets.errors import InputError
from keras_deepnets.export import classifier, model_card

if TYPE_CHECKING:
    import keras

TASK = "detection"
"""The entry ``"task"`` of the model cards of detectors."""

BACKGROUND = "background"


@dataclass(frozen=True)
class Prepared:
    """A detector ready for export.

    Attributes:
        model: The network, which computes in float32, with batch normalisation folded if requested.
        labels: Class names by label number. The first is the background.
        min_size: Length to which the shorter side of an image is resized, in pixels.
        max_size: Largest length of the longer side, in pixels.
        most: Largest number of detections per image.
        folded: Whether batch normalisation is folded.
    """

    model: keras.Model
    labels: tuple[str, ...]
    min_size: int
    max_size: int
    most: int
    folded: bool


def prepared(model: Detector, labels: Sequence[str] | None, fold: bool = True) -> Prepared:
    """Check a detector and prepare it for export. `model` itself is not changed.

    Args:
        model: The detector.
        labels: Class names, the background first. Default: the model's own, else ``"background"``, ``"1"``, ``"2"``, ….
        fold: Whether to fold batch normalisation.

    Raises:
        InputError: The model is not a detector with a record, or there is not one label per class.
    """
    classifier.check_model(model)
    if not isinstance(model, Detector):
        raise InputError(f"{model.name} is not a detector; build one with keras_deepnets.detection.")
    min_size, max_size, classes = model.min_size, model.max_size, model.classes
    if classes is None:
        raise InputError(
            f"{model.name} has no record of its classes; build it with a constructor of keras_deepnets.detection."
        )
    if labels is None:
        labels = model.labels or (BACKGROUND, *map(str, range(1, classes)))
    names = classifier.checked_labels(model, labels, classes)
    most = model.output["boxes"].shape[1]
    return Prepared(classifier.for_inference(model, fold, False), names, min_size, max_size, most, fold)


def describe(original: Detector, found: Prepared, view: dict[str, Any]) -> dict[str, Any]:
    """The model card as JSON values.

    Args:
        original: The detector as the caller gave it.
        found: The detector in its exported form.
        view: More entries of ``"input"``.
    """
    told = {"channels": 3, "channel_order": "RGB", "values": "0-255; scaled inside the artifact"}
    told |= {"interpolation": "bilinear, without antialiasing"}
    return {"task": TASK} | model_card.common(original, found.labels, told | view, found.folded)
