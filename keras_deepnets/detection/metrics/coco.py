"""COCO's twelve numbers, computed by the package faster-coco-eval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from keras_deepnets.detection.metrics.inputs import Detection, Truth
from keras_deepnets.errors import InputError

EXTRA = "keras-deepnets[detection]"
NAMES = (
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"),
    *("ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"),
)
"""Names of the twelve numbers, in the order of `COCOeval.stats`."""

# Above COCO's largest area (1e5 squared), an object is ignored in every area range.
_IGNORED_AREA = 1e12


@dataclass(frozen=True)
class CocoNumbers:
    """COCO's numbers; None where no object counts.

    Attributes:
        summary: The twelve numbers by name.
        per_class: AP of the classes 1, 2, ….
    """

    summary: dict[str, float | None]
    per_class: tuple[float | None, ...]


def check_installed() -> None:
    """Raise an `InputError` with the pip command if faster-coco-eval is missing."""
    if find_spec("faster_coco_eval") is None:
        raise InputError(
            f"COCO AP needs faster-coco-eval, not installed here: pip install '{EXTRA}'. VOC AP and AP50 work with coco=False."
        )


def coco_numbers(truths: Sequence[Truth], detections: Sequence[Detection], classes: Sequence[str]) -> CocoNumbers:
    """COCO's twelve numbers and the AP of each class (Lin et al. 2014; `COCOeval` of the COCO API).

    A crowd is matched with the intersection over the area of the detection, any number of times, and ignored. A difficult object is
    ignored like an object outside of an area range.

    Args:
        truths: Objects of each image.
        detections: Detections in each image, in the same order.
        classes: Class names, with the background first.

    Raises:
        InputError: The package is missing.
    """
    check_installed()
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(_dataset(truths, classes), print_function=_quiet)
    found = truth.loadRes(_results(detections))
    evaluation = COCOeval_faster(truth, found, iouType="bbox", print_function=_quiet)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    summary = {name: _value(number) for name, number in zip(NAMES, evaluation.stats[:12], strict=True)}
    precision = evaluation.eval["precision"]  # IoU, recall, class, area range, number of detections
    per_class = (precision[:, :, place, 0, -1] for place in range(len(classes) - 1))
    return CocoNumbers(summary, tuple(_value(np.mean(part) if part.min() > -1 else -1) for part in per_class))


def _quiet(*_: Any, **__: Any) -> None:
    """Print nothing."""


def _value(number: Any) -> float | None:
    """None instead of COCO's -1."""
    return None if number < 0 else float(number)


def _sides(boxes: np.ndarray) -> list[list[float]]:
    """x, y, width and height."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()


def _dataset(truths: Sequence[Truth], classes: Sequence[str]) -> dict[str, Any]:
    """The annotations in COCO's format."""
    rows: list[dict[str, Any]] = []
    for image, truth in enumerate(truths, start=1):
        areas = np.where(truth.difficult & ~truth.crowd, _IGNORED_AREA, truth.area).tolist()
        parts = (truth.labels.tolist(), _sides(truth.boxes), areas, truth.crowd.tolist())
        for label, box, area, crowd in zip(*parts, strict=True):
            row = {"id": len(rows) + 1, "image_id": image, "category_id": label, "bbox": box, "area": area}
            rows.append(row | {"iscrowd": int(crowd)})
    return {
        "info": {},
        "images": [{"id": image} for image in range(1, len(truths) + 1)],
        "categories": [{"id": label, "name": name} for label, name in enumerate(classes) if label],
        "annotations": rows,
    }


def _results(detections: Sequence[Detection]) -> list[dict[str, Any]]:
    """The detections in COCO's format of results."""
    rows: list[dict[str, Any]] = []
    for image, detection in enumerate(detections, start=1):
        parts = (detection.labels.tolist(), _sides(detection.boxes), detection.scores.tolist())
        for label, box, score in zip(*parts, strict=True):
            rows.append({"image_id": image, "category_id": label, "bbox": box, "score": score})
    return rows
