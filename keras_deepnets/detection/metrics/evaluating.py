"""Detections are compared with the true objects of a set of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_deepnets.detection.metrics import precision
from keras_deepnets.detection.metrics.coco import NAMES, check_installed, coco_numbers
from keras_deepnets.detection.metrics.inputs import (
    Detection,
    Truth,
    check_units,
    checked_classes,
    checked_detection,
    checked_truth,
)
from keras_deepnets.detection.metrics.matching import (
    IGNORED,
    by_score,
    first_of_each_class,
    match_coco,
    match_voc,
    same_class_overlaps,
)
from keras_deepnets.detection.metrics.results import ClassResult, Curve, DetectionEvaluation, mean
from keras_deepnets.errors import InputError


@dataclass(frozen=True, eq=False)
class _Matches:
    """Detections of one or all images with their outcomes, each ``[m]``."""

    labels: np.ndarray
    scores: np.ndarray
    coco: np.ndarray
    voc: np.ndarray
    counted: np.ndarray  # among the 100 best of their class and image


class DetectionMetrics:
    """Collects detections image by image, without the images, and evaluates them.

    Example:
        ``metrics = DetectionMetrics(classes)``, then ``metrics.update(truth, detection)`` for each image, then
        ``metrics.result().ap50``.
    """

    def __init__(self, classes: Sequence[str], coco: bool = True) -> None:
        """Start without images.

        Args:
            classes: Class names. The first is ``"background"``, label 0.
            coco: Whether COCO's twelve numbers are computed. Otherwise, only AP50 and VOC AP are, without an optional package.

        Raises:
            InputError: `classes` are wrong. The extra ``detection`` is missing and `coco` is true.
        """
        self.classes = checked_classes(classes)
        self.coco = coco
        if coco:
            check_installed()
        self._truths: list[Truth] = []
        self._detections: list[Detection] = []

    def update(self, truth: Mapping[str, Any], detection: Mapping[str, Any]) -> None:
        """Add one image.

        Args:
            truth: ``boxes`` float ``[n, 4]`` as x1, y1, x2, y2 in pixels, and ``labels`` int ``[n]`` from 1. Optionally ``crowd`` and
                ``difficult``, bool ``[n]``, and ``area``, float ``[n]`` in square pixels (default: that of the box).
            detection: ``boxes`` float ``[m, 4]``, ``scores`` float ``[m]`` and ``labels`` int ``[m]``.

        Raises:
            InputError: A value is missing, is not finite, has the wrong shape or is out of range.
        """
        image = len(self._truths)
        checked = checked_truth(truth, len(self.classes), image)
        self._detections.append(by_score(checked_detection(detection, len(self.classes), image)))
        self._truths.append(checked)

    def result(self) -> DetectionEvaluation:
        """Evaluate the images until now. More images may follow.

        Raises:
            InputError: No image was added. The boxes are fractions of the image.
        """
        if not self._truths:
            raise InputError("There are no images to evaluate; give at least one truth and its detections.")
        check_units(self._truths, self._detections)
        objects, images = self._counts()
        matches = _all_matches(self._truths, self._detections)
        summary: dict[str, float | None] = dict.fromkeys(NAMES)
        aps: Sequence[float | None] = [None] * (len(self.classes) - 1)
        rows, curves = [], []
        if self.coco:
            numbers = coco_numbers(self._truths, self._detections, self.classes)
            summary, aps = numbers.summary, numbers.per_class
        for label, name in enumerate(self.classes[1:], start=1):
            count = int(objects[label])
            curve = _curve(matches, label, name, count)
            ap50 = None if curve is None else float(np.mean(curve.interpolated))
            voc07, voc = _voc_aps(matches, label, count)
            rows.append(ClassResult(name, int(images[label]), count, aps[label - 1], ap50, voc07, voc))
            curves += [] if curve is None else [curve]
        if not self.coco:
            summary["ap50"] = mean([row.ap50 for row in rows])
        return DetectionEvaluation(
            images=len(self._truths),
            objects=int(objects.sum()),
            detections=len(matches.labels),
            **summary,
            voc07=mean([row.voc07 for row in rows]),
            voc=mean([row.voc for row in rows]),
            per_class=tuple(rows),
            curves=tuple(curves),
        )

    def _counts(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of objects, and of images with objects, by label."""
        objects = np.zeros(len(self.classes), np.int64)
        images = np.zeros_like(objects)
        for truth in self._truths:
            count = np.bincount(truth.labels[~(truth.crowd | truth.difficult)], minlength=len(objects))
            objects += count
            images += count > 0
        return objects, images


def evaluate_detections(
    truths: Sequence[Mapping[str, Any]],
    detections: Sequence[Mapping[str, Any]],
    classes: Sequence[str],
    coco: bool = True,
) -> DetectionEvaluation:
    """Evaluate detections: COCO's twelve numbers, VOC AP and precision-recall curves.

    Crowds follow COCO: a detection in a crowd is ignored, and the crowd does not count as an object. Difficult objects follow VOC: they
    do not count, and their detections are ignored. COCO has no difficult objects. Here its numbers ignore them too, like objects outside
    an area range: a detector is not punished for objects that the annotators excluded. A second detection of the same difficult object
    is false in COCO and ignored in VOC.

    Boxes are continuous: a VOC annotation xmin, ymin, xmax, ymax becomes xmin - 1, ymin - 1, xmax, ymax.

    Args:
        truths: One mapping per image: ``boxes`` float ``[n, 4]`` as x1, y1, x2, y2 in pixels, and ``labels`` int ``[n]`` from 1.
            Optionally ``crowd`` and ``difficult``, bool ``[n]``, and ``area``, float ``[n]`` in square pixels (default: that of the box).
        detections: One mapping per image: ``boxes`` float ``[m, 4]``, ``scores`` float ``[m]`` and ``labels`` int ``[m]``.
        classes: Class names. The first is ``"background"``, label 0.
        coco: Whether COCO's twelve numbers are computed. Otherwise, only AP50 and VOC AP are, without an optional package.

    Returns:
        The results. A number is None where COCO prints -1.

    Raises:
        InputError: The lengths differ. A value is missing, is not finite, has the wrong shape or is out of range. The boxes are
            fractions of the image. The extra ``detection`` is missing and `coco` is true.
    """
    if len(truths) != len(detections):
        raise InputError(
            f"There are {len(truths):,} truths and {len(detections):,} detections; give one of each per image, also for empty images."
        )
    metrics = DetectionMetrics(classes, coco)
    for truth, detection in zip(truths, detections, strict=True):
        metrics.update(truth, detection)
    return metrics.result()


def _matches(truth: Truth, detection: Detection) -> _Matches:
    overlap = same_class_overlaps(truth, detection)
    counted = first_of_each_class(detection.labels)
    coco = np.full(len(counted), IGNORED, np.int8)
    coco[counted] = match_coco(overlap[counted], truth.crowd, truth.crowd | truth.difficult)
    voc = match_voc(overlap, truth.crowd, truth.difficult)
    return _Matches(detection.labels, detection.scores, coco, voc, counted)


def _all_matches(truths: Sequence[Truth], detections: Sequence[Detection]) -> _Matches:
    """Outcomes of all detections, highest score first. Equal scores keep the order of the images."""
    parts = [_matches(*pair) for pair in zip(truths, detections, strict=True)]
    whole = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _Matches.__dataclass_fields__}
    order = np.argsort(-whole["scores"], kind="stable")
    return _Matches(**{name: values[order] for name, values in whole.items()})


def _curve(matches: _Matches, label: int, name: str, objects: int) -> Curve | None:
    """The curve of a class by COCO's rule; None without objects."""
    if objects == 0:
        return None
    of_class = (matches.labels == label) & matches.counted & (matches.coco != IGNORED)
    true, false = precision.ranked_counts(matches.coco[of_class])
    return Curve(
        name,
        label,
        recall=true / objects,
        precision=precision.precisions(true, false),
        scores=matches.scores[of_class],
        interpolated=precision.coco_precisions(true, false, objects),
    )


def _voc_aps(matches: _Matches, label: int, objects: int) -> tuple[float | None, float | None]:
    """11-point and all-point AP of a class."""
    true, false = precision.ranked_counts(matches.voc[matches.labels == label])
    return precision.voc07_ap(true, false, objects), precision.voc_ap(true, false, objects)
