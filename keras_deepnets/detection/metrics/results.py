"""The results of evaluating an object detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np


class ClassResult(NamedTuple):
    """The results of one class. An AP is None without objects; `ap` is also None without COCO's numbers.

    Attributes:
        name: Class name.
        images: Number of images with objects of the class.
        objects: Number of objects, without crowds and difficult ones.
        ap: COCO AP, the mean over IoU 0.50 to 0.95.
        ap50: COCO AP at IoU 0.5.
        voc07: 11-point AP of VOC 2007 at IoU 0.5.
        voc: All-point AP of VOC 2010 and later at IoU 0.5.
    """

    name: str
    images: int
    objects: int
    ap: float | None
    ap50: float | None
    voc07: float | None
    voc: float | None


@dataclass(frozen=True, eq=False)
class Curve:
    """Precision and recall of one class at IoU 0.5, matched by COCO's rule.

    Attributes:
        name: Class name.
        label: Label of the class, from 1.
        recall: float64 ``[m]`` after each counted detection, highest score first. Ignored detections have no entry.
        precision: float64 ``[m]``.
        scores: float64 ``[m]``, score of that detection.
        interpolated: float64 ``[101]``, the highest precision at recall 0, 0.01, …, 1 or more. Its mean is `ClassResult.ap50`.
    """

    name: str
    label: int
    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray
    interpolated: np.ndarray


@dataclass(frozen=True)
class DetectionEvaluation:
    """The results of an object detector on a set of images. All APs and ARs are from 0 to 1, or None where COCO prints -1.

    A number is None without objects that count, for example `ap_small` without small objects. The means are over classes with
    objects. Without COCO's numbers (``coco=False``), `ap`, `ap75` and those of areas and recalls are None.

    Attributes:
        images: Number of images.
        objects: Number of objects, without crowds and difficult ones.
        detections: Number of detections.
        ap: COCO AP: mean over IoU 0.50, 0.55, …, 0.95.
        ap50: AP at IoU 0.5.
        ap75: AP at IoU 0.75.
        ap_small: AP of objects with an area below 32² pixels.
        ap_medium: AP of objects with an area of 32² to 96² pixels.
        ap_large: AP of objects with an area above 96² pixels.
        ar1: Mean recall over IoU 0.50 to 0.95, with at most 1 detection per image and class.
        ar10: Mean recall with at most 10 detections.
        ar100: Mean recall with at most 100 detections.
        ar_small: `ar100` of small objects.
        ar_medium: `ar100` of medium objects.
        ar_large: `ar100` of large objects.
        voc07: Mean of the 11-point APs of VOC 2007 at IoU 0.5.
        voc: Mean of the all-point APs of VOC 2010 and later at IoU 0.5.
        per_class: Results of each class, without the background.
        curves: Precision-recall curves of the classes with objects.
    """

    images: int
    objects: int
    detections: int
    ap: float | None
    ap50: float | None
    ap75: float | None
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    ar1: float | None
    ar10: float | None
    ar100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    voc07: float | None
    voc: float | None
    per_class: tuple[ClassResult, ...]
    curves: tuple[Curve, ...] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON. A curve is its precision at COCO's 101 recall levels, by class name."""
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        values["per_class"] = [row._asdict() for row in self.per_class]
        values["curves"] = {curve.name: curve.interpolated.tolist() for curve in self.curves}
        return values

    def table(self) -> list[tuple[str, ...]]:
        """Return rows of text: a heading, each class, and all classes. APs are in percent; "–" means that no object counts.

        Without COCO's numbers, the column "AP" is left out.
        """
        coco = self.ap is not None
        heading = ("class", "images", "objects", *(["AP"] if coco else []), "AP50", "VOC07", "VOC")
        total = ClassResult("all", self.images, self.objects, self.ap, self.ap50, self.voc07, self.voc)
        rows = []
        for row in (*self.per_class, total):
            shares = [*([row.ap] if coco else []), row.ap50, row.voc07, row.voc]
            rows.append((row.name, f"{row.images:,}", f"{row.objects:,}", *map(percent, shares)))
        return [heading, *rows]


def percent(share: float | None) -> str:
    """Format a share in percent with one decimal, without the sign; "–" for None."""
    return "–" if share is None else f"{100 * share:.1f}"


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
