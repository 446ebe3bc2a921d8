"""Precision and recall of ranked detections, and three definitions of average precision (AP)."""

from __future__ import annotations

import numpy as np

from keras_deepnets.detection.metrics.matching import FALSE, TRUE

RECALLS = np.linspace(0.0, 1.0, 101)
"""Recall levels of COCO."""


def ranked_counts(outcomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cumulative numbers of true and of false positives, int64 ``[m]`` each.

    Args:
        outcomes: Outcomes of `match_coco` or `match_voc`, int8 ``[m]``, highest score first.
    """
    return np.cumsum(outcomes == TRUE, dtype=np.int64), np.cumsum(outcomes == FALSE, dtype=np.int64)


def precisions(true: np.ndarray, false: np.ndarray) -> np.ndarray:
    """Precision after each detection, float64 ``[m]``; 0 while all detections are ignored."""
    return true / np.maximum(true + false, 1)


def envelope(precision: np.ndarray) -> np.ndarray:
    """The highest precision at this or a later detection, float64 ``[m]``."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def coco_precisions(true: np.ndarray, false: np.ndarray, objects: int) -> np.ndarray:
    """Interpolated precision at COCO's 101 recall levels, float64 ``[101]``, as in `COCOeval.accumulate`.

    Args:
        true: Cumulative true positives, ``[m]``.
        false: Cumulative false positives, ``[m]``.
        objects: Number of objects, at least 1.
    """
    # The spacing is COCO's guard against 0 / 0. It changes the last bit, so it is kept.
    best = envelope(true / (false + true + np.spacing(1.0)))
    places = np.searchsorted(true / objects, RECALLS, side="left")
    return np.append(best, 0.0)[places]


def voc07_ap(true: np.ndarray, false: np.ndarray, objects: int) -> float | None:
    """The 11-point AP of VOC 2007: mean of the highest precision at recall >= 0, 0.1, …, 1.

    Everingham et al., IJCV 88, 303 (2010), section 4.2. Recall and level are compared as whole numbers. With floats, a recall of 3/10
    misses the level 0.3 in some implementations.

    Args:
        true: Cumulative true positives, ``[m]``.
        false: Cumulative false positives, ``[m]``.
        objects: Number of objects. Without objects, the AP is None.
    """
    if objects == 0:
        return None
    precision = precisions(true, false)
    return sum(float(precision[10 * true >= level * objects].max(initial=0.0)) for level in range(11)) / 11


def voc_ap(true: np.ndarray, false: np.ndarray, objects: int) -> float | None:
    """The all-point AP of VOC 2010 and later: the area under the envelope of precision over recall.

    Everingham et al., IJCV 111, 98 (2015), section 3.2. `VOCap.m` in the VOC 2010 devkit.

    Args:
        true: Cumulative true positives, ``[m]``.
        false: Cumulative false positives, ``[m]``.
        objects: Number of objects. Without objects, the AP is None.
    """
    if objects == 0:
        return None
    steps = np.diff(true, prepend=0) / objects
    return float(np.sum(steps * envelope(precisions(true, false))))
