"""Durations within a run: in steps, epochs or examples, as a share of the run, or in seconds."""

from __future__ import annotations

import math
import re

from keras_deepnets.errors import InputError

_UNITS = {
    "step": "steps",
    "steps": "steps",
    "iteration": "steps",
    "iterations": "steps",
    "epoch": "epochs",
    "epochs": "epochs",
    "example": "examples",
    "examples": "examples",
    "%": "%",
    "percent": "%",
}
_WRITTEN = re.compile(r"\s*(?P<number>[0-9][0-9_]*\.?[0-9]*(e[0-9]+)?)\s*(?P<unit>%|[a-z]+)\s*")


def parse(text: str) -> tuple[float, str]:
    """Parse a duration such as ``"5 epochs"``, ``"400 steps"``, ``"1e6 examples"`` or ``"2 %"``.

    Returns:
        The number and its unit: ``"steps"``, ``"epochs"``, ``"examples"`` or ``"%"``.

    Raises:
        InputError: The text is not a duration.
    """
    match = _WRITTEN.fullmatch(text.lower())
    unit = _UNITS.get(match["unit"]) if match else None
    if match is None or unit is None:
        raise InputError(f"{text!r} is not a duration. Write it as '400 steps', '5 epochs', '50000 examples' or '2 %'.")
    return float(match["number"]), unit


def seconds(text: str) -> float | None:
    """Parse a time such as ``"10 minutes"``, and return its seconds. None: the text is not a time."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(second|minute|hour)s?\s*", text)
    return float(match[1]) * {"second": 1.0, "minute": 60.0, "hour": 3600.0}[match[2]] if match else None


def in_steps(length: str | float, *, steps: int, steps_per_epoch: int, batch_size: int) -> int:
    """Convert a duration to optimizer steps.

    Args:
        length: Text for `parse`, a whole number of steps, or a fraction of the run between 0 and 1.
        steps: Steps of the whole run.
        steps_per_epoch: Steps per epoch.
        batch_size: Examples per step.
    """
    if not isinstance(length, str):
        return round(length * steps) if 0 < length < 1 else int(length)
    number, unit = parse(length)
    return {
        "steps": lambda: round(number),
        "epochs": lambda: round(number * steps_per_epoch),
        "examples": lambda: math.ceil(number / batch_size),
        "%": lambda: round(number / 100 * steps),
    }[unit]()
