"""Reading the `metrics.csv` of a run."""

from __future__ import annotations

import csv
from pathlib import Path

from keras_deepnets.errors import InputError


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """Read the rows of a `metrics.csv`. Whole numbers are `int`.

    Raises:
        InputError: The file does not exist or is not a table of numbers.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            return [{name: _number(text) for name, text in row.items() if text != ""} for row in csv.DictReader(file)]
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is not a table of numbers ({error}).") from None


def _number(text: str) -> float:
    return int(text) if text.lstrip("-").isdigit() else float(text)
