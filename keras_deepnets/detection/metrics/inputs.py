"""Checks of true boxes and detections, one image per call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_deepnets.errors import InputError

# No real box in pixels is this close to the origin; fractions of the image may exceed 1 a little.
_FRACTION, _PIXELS = 1.5, 2.0
_BACKGROUND = "background"


@dataclass(frozen=True, eq=False)
class Truth:
    """The objects of one image.

    Attributes:
        boxes: float64 ``[n, 4]`` as x1, y1, x2, y2 in pixels.
        labels: int64 ``[n]``, from 1.
        crowd: bool ``[n]``.
        difficult: bool ``[n]``.
        area: float64 ``[n]`` in square pixels.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    area: np.ndarray


@dataclass(frozen=True, eq=False)
class Detection:
    """The detections in one image.

    Attributes:
        boxes: float64 ``[m, 4]`` as x1, y1, x2, y2 in pixels.
        scores: float64 ``[m]``.
        labels: int64 ``[m]``, from 1.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def checked_classes(classes: Sequence[str]) -> tuple[str, ...]:
    """Return the class names as a tuple; raise `InputError` unless the first is ``"background"`` and another follows."""
    if isinstance(classes, str) or len(classes) < 2 or classes[0] != _BACKGROUND:
        shown = repr(classes) if len(repr(classes)) < 80 else f"{repr(classes)[:77]}…"
        raise InputError(f'classes is {shown}; give "background" first, then the names of labels 1, 2, ….')
    return tuple(map(str, classes))


def checked_truth(truth: Mapping[str, Any], classes: int, image: int) -> Truth:
    """Return the objects of an image as arrays.

    Args:
        truth: ``boxes`` and ``labels``; optionally ``crowd``, ``difficult`` and ``area``.
        classes: Number of classes, including the background.
        image: Index of the image, for messages.

    Raises:
        InputError: A value is missing, is not finite, has the wrong shape or is out of range.
    """
    where = f"truth of image {image}"
    boxes = _boxes(truth, where)
    count = len(boxes)
    labels = _labels(truth, count, classes, where)
    crowd, difficult = (_flags(truth, name, count, where) for name in ("crowd", "difficult"))
    area = truth.get("area")
    if area is None:
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    area = _vector(area, "area", count, where)
    if (area < 0).any():
        raise InputError(f"{where}: area has {area.min():g}; an area is in square pixels and at least 0.")
    return Truth(boxes, labels, crowd, difficult, area)


def checked_detection(detection: Mapping[str, Any], classes: int, image: int) -> Detection:
    """Return the detections in an image as arrays.

    Args:
        detection: ``boxes``, ``scores`` and ``labels``.
        classes: Number of classes, including the background.
        image: Index of the image, for messages.

    Raises:
        InputError: A value is missing, is not finite, has the wrong shape or is out of range.
    """
    where = f"detections of image {image}"
    boxes = _boxes(detection, where)
    scores = _vector(_value(detection, "scores", where), "scores", len(boxes), where)
    return Detection(boxes, scores, _labels(detection, len(boxes), classes, where))


def check_units(truths: Iterable[Truth], detections: Iterable[Detection]) -> None:
    """Raise `InputError` if the true boxes, the detections or both are fractions of the image instead of pixels.

    The check needs the whole data: a single image may have only one small box at the origin.
    """
    true, found = _largest(truths), _largest(detections)
    rule = "boxes are in pixels; multiply x by the width of the image and y by its height"
    if true is not None and true <= _FRACTION and (found is None or found <= _FRACTION or found > _PIXELS):
        other = "" if found is None else f", those of the detections to {found:g}"
        raise InputError(f"The true boxes look like fractions (coordinates to {true:g}{other}): {rule}.")
    if found is not None and found <= _FRACTION and true is not None and true > _PIXELS:
        raise InputError(
            f"The detections look like fractions (coordinates to {found:g}, those of the true boxes to {true:g}): {rule}."
        )


def _largest(rows: Iterable[Truth] | Iterable[Detection]) -> float | None:
    """The largest coordinate, or None without boxes."""
    return max((float(row.boxes.max()) for row in rows if len(row.boxes)), default=None)


def _value(row: Mapping[str, Any], name: str, where: str) -> Any:
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: {type(row).__name__} is not a mapping; give a dict with boxes and labels.")
    if name not in row:
        raise InputError(f"{where}: there is no {name!r} among {', '.join(map(str, row)) or 'no keys'}; add it.")
    return row[name]


def _finite(value: Any, name: str, where: str) -> np.ndarray:
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{where}: {name} are not numbers of one shape; give an array.") from None
    if not np.isfinite(array).all():
        wrong = array[~np.isfinite(array)][0]
        at = int(np.argwhere(~np.isfinite(array))[0][0]) if array.ndim else 0
        raise InputError(f"{where}: {name} has {wrong} at {at}; give finite numbers, or remove the box.")
    return array


def _boxes(row: Mapping[str, Any], where: str) -> np.ndarray:
    boxes = _finite(_value(row, "boxes", where), "boxes", where)
    if boxes.size == 0:
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise InputError(f"{where}: boxes have shape {list(boxes.shape)}; give [n, 4] as x1, y1, x2, y2.")
    inverted = (boxes[:, 2] < boxes[:, 0]) | (boxes[:, 3] < boxes[:, 1])
    if inverted.any():
        box = ", ".join(f"{value:g}" for value in boxes[inverted][0])
        raise InputError(
            f"{where}: box [{box}] ends before it starts; give x1, y1, x2, y2, not x, y, width, height, nor y first."
        )
    return boxes


def _vector(value: Any, name: str, count: int, where: str) -> np.ndarray:
    array = _finite(value, name, where)
    if array.shape != (count,) and not (array.size == 0 and count == 0):
        raise InputError(
            f"{where}: {name} has shape {list(array.shape)}, and there are {count} boxes; give one per box."
        )
    return array.reshape(count)


def _labels(row: Mapping[str, Any], count: int, classes: int, where: str) -> np.ndarray:
    array = _vector(_value(row, "labels", where), "labels", count, where)
    labels = array.astype(np.int64)
    if (labels != array).any():
        raise InputError(f"{where}: label {array[labels != array][0]:g} is not a whole number; give class numbers.")
    if (labels == 0).any():
        raise InputError(
            f"{where}: label 0 at {int(np.argmax(labels == 0))} is the background; remove padding, and count classes from 1."
        )
    wrong = labels[(labels < 0) | (labels >= classes)]
    if len(wrong):
        raise InputError(
            f"{where}: label {wrong[0]} is beyond the classes; labels are 1 to {classes - 1}. Give the classes of the data."
        )
    return labels


def _flags(row: Mapping[str, Any], name: str, count: int, where: str) -> np.ndarray:
    value = row.get(name)
    if value is None:
        return np.zeros(count, bool)
    array = _vector(value, name, count, where)
    if not np.isin(array, (0, 1)).all():
        raise InputError(f"{where}: {name} has {array[~np.isin(array, (0, 1))][0]:g}; give true or false per box.")
    return array.astype(bool)
