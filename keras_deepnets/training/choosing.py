"""Functions of a run's metrics: which epoch is the best, and whether more epochs help."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[dict[str, float]]

_ERRORS = 2.0
"""Standard errors by which the best epoch must be better than the last (`keep="auto"`)."""
MEASURES = ("val_accuracy", "val_ap50")
"""Columns of the validation result, the larger the better: of a classifier and of a detector."""


def measure(row: dict[str, float]) -> float | None:
    """Return the validation result of an epoch; None if the epoch has none."""
    return next((row[name] for name in MEASURES if name in row), None)


def best_epoch(history: Rows) -> int:
    """Return the epoch with the best validation accuracy (or AP50), counted from 1.

    If several are equal, the last one is returned. The result is 0 if no epoch has a validation result. Of the epochs
    that train only the classifier, only the last counts.
    """
    last_of_head = max((at for at, row in enumerate(history) if row.get("phase") == 1), default=-1)
    measured = [
        (value, at + 1)
        for at, row in enumerate(history)
        if at >= last_of_head and (value := measure(row)) is not None and math.isfinite(value)
    ]
    return max(measured, default=(0.0, 0))[1]


def kept_epoch(history: Rows, keep: str, images: int) -> int:
    """Return the epoch whose weights a run keeps, counted from 1.

    Args:
        history: One row per epoch.
        keep: The recipe's `keep`. For ``"auto"``, it is the last epoch, unless the best one is better by more than two
            standard errors. Of few validation images, the best epoch is mostly the luckiest.
        images: Number of validation images.
    """
    last, best = len(history), best_epoch(history)
    if keep == "last" or not best:
        return last
    highest, end = measure(history[best - 1]), measure(history[-1])
    if keep == "auto" and highest is not None and end is not None:
        mean = min((highest + end) / 2, 1.0)
        if highest - end <= _ERRORS * math.sqrt(mean * (1 - mean) / max(images, 1)):
            return last
    return best


def stalled(history: Rows, patience: int) -> bool:
    """Return whether the last `patience` validations did not improve on the best result before them."""
    values = [value for value in map(measure, history) if value is not None]
    if len(values) <= patience:
        return False
    return max(values[-patience:]) <= max(values[:-patience])
