"""Which epoch of a run is the best, and whether more of them help: functions of the measured values alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

Rows = Sequence[dict[str, float]]


def best_epoch(history: Rows) -> int:
    """The epoch, counted from 1, with the best validation accuracy; of equal ones the last. 0 where nothing was measured.

    Of the epochs of the classifier alone only the last counts.
    """
    last_of_head = max((at for at, row in enumerate(history) if row.get("phase") == 1), default=-1)
    measured = [
        (row["val_accuracy"], at + 1)
        for at, row in enumerate(history)
        if at >= last_of_head and math.isfinite(row.get("val_accuracy", math.nan))
    ]
    return max(measured, default=(0.0, 0))[1]


def stalled(history: Rows, patience: int) -> bool:
    """Whether the last `patience` epochs brought no better validation accuracy than those before."""
    values = [row["val_accuracy"] for row in history if "val_accuracy" in row]
    if len(values) <= patience:
        return False
    return max(values[-patience:]) <= max(values[:-patience])
