"""Several runs in one table, with their curves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_deepnets import insight
from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures
from keras_deepnets.reports import sections
from keras_deepnets.reports.plotting import named
from keras_deepnets.reports.runs import DETECTION, RunSummary, read_run


@dataclass(frozen=True)
class Comparison:
    """Several runs side by side.

    Attributes:
        rows: Values of each run. All have `run`, `network`, `options`, `data`, `recipe`, `epochs`, `parameters` and
            `seconds`. Classifiers have `train_error` and `held_error`, from 0 to 1. Detectors have `ap`, `ap50` and `loss`.
            Missing values are None.
        picture: Picture of the curves, or None.
    """

    rows: tuple[dict[str, Any], ...]
    picture: Path | None = None

    def table(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return the names of the columns and the rows as texts."""
        detectors = "ap" in self.rows[0]
        measures = ("AP", "AP50", "loss") if detectors else ("train error", "held-out error")
        heading = ("run", "network", "data", "recipe", "epochs", *measures, "parameters", "time")
        return heading, [_texts(row, detectors) for row in self.rows]


def compare(runs: Sequence[str | os.PathLike], path: str | os.PathLike | None = None) -> Comparison:
    """Compare runs: their results in a table, and their curves in one picture.

    Args:
        runs: Run folders, all of classifiers or all of detectors.
        path: Path of the picture of the curves. None: no picture.

    Raises:
        InputError: A folder is not a run or has no epoch yet, the runs have different tasks, or the picture cannot be
            written.
    """
    if not runs:
        raise InputError("There are no runs to compare; give the folders of runs.")
    found = [read_run(run) for run in runs]
    places = named(found)
    if len(places) < len(found):
        raise InputError("A run is given twice; name each run once.")
    target = None if path is None else figures.check_path(path)
    rows = tuple(_row(name, run) for name, run in zip(places, found, strict=True))
    return Comparison(rows, None if target is None else insight.draw_curves(places, target))


def _row(name: str, run: RunSummary) -> dict[str, Any]:
    values: dict[str, Any] = {
        "run": name,
        "network": run.network,
        "options": run.options,
        "data": run.data,
        "recipe": run.recipe,
        "epochs": run.metrics.get("epochs"),
    }
    if run.task == DETECTION:
        found = run.evaluation or {}
        values |= {"ap": found.get("ap"), "ap50": found.get("ap50"), "loss": run.metrics.get("loss")}
    else:
        errors = run.errors
        values |= {"train_error": errors.get("train"), "held_error": errors.get("held")}
    return values | {
        "parameters": _parameters(run),
        "seconds": run.metrics.get("seconds"),
        "time": sections.duration(run),
    }


def _parameters(run: RunSummary) -> int | None:
    """Return the trainable parameters of the trained model; None if the run has not ended."""
    if run.model is None:
        return None
    from keras_deepnets.models import trainable_parameters
    from keras_deepnets.reports.subjects import open_subject

    return trainable_parameters(open_subject(run.path).model)


def _texts(row: dict[str, Any], detectors: bool) -> tuple[str, ...]:
    options = ", ".join(
        f"{name}={value}" for name, value in row["options"].items() if name not in ("min_size", "max_size")
    )
    network = f"{row['network']} ({options})" if options else row["network"]
    measures = ("ap", "ap50") if detectors else ("train_error", "held_error")
    numbers = [_percent(row[name]) for name in measures]
    if detectors:
        numbers.append("–" if row["loss"] is None else f"{row['loss']:.3f}")
    parameters = "–" if row["parameters"] is None else f"{row['parameters']:,}"
    return (row["run"], network, row["data"], row["recipe"], f"{row['epochs']:g}", *numbers, parameters, row["time"])


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"
