"""Measure a detector on labelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.detection.detecting import detections
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    from keras_deepnets.detection.data import DetectionData
    from keras_deepnets.detection.detector import Detector
    from keras_deepnets.detection.metrics import DetectionEvaluation


def evaluate(
    model: Detector,
    data: DetectionData,
    *,
    batch_size: int = 1,
    coco: bool = True,
    each: Callable[[int, dict[str, Any], dict[str, Any]], None] | None = None,
) -> DetectionEvaluation:
    """Measure a detector on labelled images.

    Args:
        model: detector.
        data: result of `keras_deepnets.detection.load`.
        batch_size: images per call of the model; see `detect`.
        coco: whether to compute COCO's metrics, which need the extra ``detection``. If False, AP50 and VOC AP remain.
        each: called for each image with its index, its true objects and its detections.

    Returns:
        The metrics: `.ap` (COCO, mean over thresholds 0.5 to 0.95), `.ap50`, `.ap75`, `.per_class`, `.voc07` and others.

    Raises:
        ValueError: the detector has other classes than the data, or an image cannot be read.
    """
    from keras_deepnets.detection.metrics import DetectionMetrics

    check_classes(model, data)
    metrics = DetectionMetrics(data.classes, coco=coco)
    for place, (truth, found) in enumerate(zip(truths(data), detections(model, images(data), batch_size), strict=True)):
        metrics.update(truth, found)
        if each is not None:
            each(place, truth, found)
    return metrics.result()


def check_classes(model: Detector, data: DetectionData) -> None:
    """Raise InputError unless a detector has the classes of the data."""
    if model.classes != len(data.classes):
        raise InputError(
            f"{model.name} has {model.classes} classes with the background, but {data.name} has {len(data.classes)} "
            f"({', '.join(data.classes[:6])}{', …' if len(data.classes) > 6 else ''}). Train it on this data, or load the data with the "
            "model's classes."
        )
    labels = model.labels
    if labels is not None and tuple(labels) != tuple(data.classes):
        at = next(place for place, pair in enumerate(zip(labels, data.classes, strict=True)) if pair[0] != pair[1])
        raise InputError(
            f"Class {at} of {model.name} is {labels[at]!r}, but class {at} of {data.name} is {data.classes[at]!r}."
        )


def images(data: DetectionData) -> Iterator[np.ndarray]:
    """The images of a set in order: uint8 ``[h, w, 3]``."""
    for place in range(len(data)):
        yield data.image(place)


def truths(data: DetectionData) -> Iterator[dict[str, np.ndarray]]:
    """The true objects of each image in order."""
    for record in data.annotations:
        yield {
            "boxes": record.boxes,
            "labels": record.labels,
            "crowd": record.crowd,
            "difficult": record.difficult,
            "area": record.area,
        }


class ImagesOf(Sequence):
    """The images of a set as a sequence that reads them on demand."""

    def __init__(self, data: DetectionData):
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, place: Any) -> Any:
        return self._data.image(int(place))
