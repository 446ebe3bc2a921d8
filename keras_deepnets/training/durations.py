"""Lengths of time in a run: in steps, epochs, examples, or as a share of the whole."""

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
    """``"5 epochs"``, ``"400 steps"``, ``"1e6 examples"``, ``"2 %"`` as a number and one of steps, epochs, examples, %.

    Raises:
        InputError: it is not written so.
    """
    match = _WRITTEN.fullmatch(text.lower())
    unit = match and _UNITS.get(match["unit"])
    if not unit:
        raise InputError(f"{text!r} is not a duration; write it as '400 steps', '5 epochs', '50000 examples' or '2 %'.")
    return float(match["number"]), unit


def in_steps(length: str | float, *, steps: int, steps_per_epoch: int, batch_size: int) -> int:
    """How many optimiser steps a duration has.

    Args:
        length: text as `parse` takes; a whole number of steps; or a fraction between 0 and 1 of the run.
        steps: of the whole run, what percentages and fractions are of.
        steps_per_epoch: of an epoch.
        batch_size: examples a step.
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
