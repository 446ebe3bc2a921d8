"""Functions of a run's metrics: which epoch is the best, and whether more epochs help."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[dict[str, float]]


def best_epoch(history: Rows) -> int:
    """Return the epoch with the best validation accuracy, counted from 1.

    If several are equal, the last one is returned. The result is 0 if no epoch has a validation accuracy. Of the epochs
    that train only the classifier, only the last counts.
    """
    last_of_head = max((at for at, row in enumerate(history) if row.get("phase") == 1), default=-1)
    measured = [
        (row["val_accuracy"], at + 1)
        for at, row in enumerate(history)
        if at >= last_of_head and math.isfinite(row.get("val_accuracy", math.nan))
    ]
    return max(measured, default=(0.0, 0))[1]


def stalled(history: Rows, patience: int) -> bool:
    """Return whether the last `patience` epochs did not improve on the best validation accuracy before them."""
    values = [row["val_accuracy"] for row in history if "val_accuracy" in row]
    if len(values) <= patience:
        return False
    return max(values[-patience:]) <= max(values[:-patience])
