"""Detections are matched to objects in one image, by the rules of COCO and of PASCAL VOC at one IoU.

Boxes are x1, y1, x2, y2 in continuous pixels, without the "+ 1" of the VOC devkit. A VOC annotation, which counts the pixels from 1,
becomes xmin - 1, ymin - 1, xmax, ymax. Then the IoU equals that of the devkit.
"""

from __future__ import annotations

import numpy as np

from keras_deepnets.detection.metrics.inputs import Detection, Truth

IOU = 0.5
MOST = 100  # detections per image and class that COCO counts
TRUE, FALSE, IGNORED = 1, 0, -1
"""Outcomes of a detection: true positive, false positive, or neither."""


def overlaps(boxes: np.ndarray, others: np.ndarray, crowd: np.ndarray | None = None) -> np.ndarray:
    """Intersection over union of each pair of boxes.

    The union of a crowd is the box itself, as in COCO. The arithmetic is that of `maskApi.c` in COCO's tools, so that overlaps of
    exactly 0.5 agree.

    Args:
        boxes: float64 ``[m, 4]``.
        others: float64 ``[n, 4]``.
        crowd: bool ``[n]``. Default: no crowds.

    Returns:
        float64 ``[m, n]``. Empty boxes have 0.
    """
    size, other = boxes[:, 2:] - boxes[:, :2], others[:, 2:] - others[:, :2]
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum((boxes[:, :2] + size)[:, None], (others[:, :2] + other)[None])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    own = np.prod(size, axis=1)[:, None]
    union = own + np.prod(other, axis=1)[None] - shared
    if crowd is not None:
        union = np.where(crowd[None], own, union)
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def same_class_overlaps(truth: Truth, detection: Detection) -> np.ndarray:
    """`overlaps` of detections and objects, float64 ``[m, n]``; pairs of different classes have 0."""
    same = detection.labels[:, None] == truth.labels[None]
    return overlaps(detection.boxes, truth.boxes, truth.crowd) * same


def by_score(detection: Detection) -> Detection:
    """Return the detections with the highest score first. Equal scores keep their order."""
    order = np.argsort(-detection.scores, kind="stable")
    return Detection(detection.boxes[order], detection.scores[order], detection.labels[order])


def first_of_each_class(labels: np.ndarray, most: int = MOST) -> np.ndarray:
    """Mask of the first `most` entries of each label, bool ``[m]``."""
    if len(labels) <= most:
        return np.ones(len(labels), bool)
    order = np.argsort(labels, kind="stable")
    grouped = labels[order]
    place = np.arange(len(labels)) - np.searchsorted(grouped, grouped)
    kept = np.empty(len(labels), bool)
    kept[order] = place < most
    return kept


def match_coco(overlap: np.ndarray, crowd: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Match detections by the rule of `COCOeval.evaluateImg` at IoU 0.5.

    Each detection, highest score first, takes the free object with the highest overlap. Ignored objects come second. A crowd is never
    used up. A detection that takes an ignored object is ignored.

    Args:
        overlap: float64 ``[m, n]`` from `same_class_overlaps`, highest score first.
        crowd: bool ``[n]``.
        ignored: bool ``[n]``; crowds and difficult objects.

    Returns:
        Outcomes, int8 ``[m]``.
    """
    outcomes = np.full(len(overlap), FALSE, np.int8)
    close = overlap >= IOU
    free = np.ones(overlap.shape[1], bool)
    for at in np.flatnonzero(close.any(axis=1)):
        for kind, outcome in ((~ignored, TRUE), (ignored, IGNORED)):
            places = np.flatnonzero(close[at] & free & kind)
            if len(places):
                # Of equal overlaps, COCO takes the last.
                best = places[::-1][np.argmax(overlap[at, places[::-1]])]
                free[best] = crowd[best]
                outcomes[at] = outcome
                break
    return outcomes


def match_voc(overlap: np.ndarray, crowd: np.ndarray, difficult: np.ndarray) -> np.ndarray:
    """Match detections by the rule of `VOCevaldet.m` in the VOC 2007 devkit, at IoU 0.5.

    Each detection belongs to the object with the highest overlap, even if that object is taken. The first detection of an object is
    true, the others are false. All detections of a difficult object are ignored. VOC has no crowds: a false detection with half of
    its area in a crowd is ignored, as in COCO.

    Args:
        overlap: float64 ``[m, n]`` from `same_class_overlaps`, highest score first.
        crowd: bool ``[n]``.
        difficult: bool ``[n]``.

    Returns:
        Outcomes, int8 ``[m]``.
    """
    outcomes = np.full(len(overlap), FALSE, np.int8)
    if overlap.size == 0:
        return outcomes
    single = np.where(crowd[None], -1.0, overlap)
    best = np.argmax(single, axis=1)
    found = np.flatnonzero(single[np.arange(len(single)), best] >= IOU)
    objects, first = np.unique(best[found], return_index=True)
    outcomes[found[first]] = np.where(difficult[objects], IGNORED, TRUE)
    outcomes[found[difficult[best[found]]]] = IGNORED
    inside = (np.where(crowd[None], overlap, 0) >= IOU).any(axis=1)
    outcomes[(outcomes == FALSE) & inside] = IGNORED
    return outcomes
