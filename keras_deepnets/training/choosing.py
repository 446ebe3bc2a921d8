"""Functions of a run's metrics: which epoch is the best, and whether more epochs help."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[dict[str, float]]

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


def stalled(history: Rows, patience: int) -> bool:
    """Return whether the last `patience` validations did not improve on the best result before them."""
    values = [value for value in map(measure, history) if value is not None]
    if len(values) <= patience:
        return False
    return max(values[-patience:]) <= max(values[:-patience])
