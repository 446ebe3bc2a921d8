"""Measure a finished run of a study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_deepnets.files import write_json
from keras_deepnets.insight.metrics import read_metrics
from keras_deepnets.studies.plan import PlannedRun
from keras_deepnets.studies.results import Result

if TYPE_CHECKING:
    from pathlib import Path

    from keras_deepnets.data import ImageData
    from keras_deepnets.training import Run

FILE = "study-result.json"
"""File in the folder of a run: what the study measured of it."""


def measure(planned: PlannedRun, run: Run, held: ImageData | None, *, maps: bool) -> Result:
    """Measure a finished run, and store the result in its folder. A stored result is returned unchanged.

    Args:
        planned: The run as planned.
        run: The run as trained.
        held: Test images.
        maps: Whether to measure how a DenseNet reuses features.
    """
    file = run.path / FILE
    measured, weights = _stored(file)
    if measured is None or (maps and not weights):
        measured, weights = _of_model(run, held, maps)
        write_json(file, {"measured": measured, "maps": weights})
    rows = run.history
    curves = {"epoch": rows["epoch"]}
    for name, key in (("train", "accuracy"), ("test", "val_accuracy")):
        if key in rows:
            curves[f"{name}_error"] = [round(100 * (1 - value), 6) for value in rows[key]]
    last = {name: values[-1] for name, values in curves.items() if name != "epoch"}
    losses = {f"{part}_loss": rows[key][-1] for part, key in (("train", "loss"), ("test", "val_loss")) if key in rows}
    times = {"seconds": run.metrics["seconds"], "step_time": _step_time(run)}
    labels, drawn = _words(planned)
    return Result(run.path.name, labels, drawn, last | losses | times | measured, curves, weights)


def diverged(planned: PlannedRun, path: Path, measured: Mapping[str, float], guessing: float, what: str) -> Result:
    """Measure a run that diverged, and store the result in its folder.

    From the epoch in which it diverged, its errors are those of guessing.

    Args:
        planned: The run as planned.
        path: Its folder.
        measured: Measures of the network.
        guessing: Error of guessing in per cent.
        what: What became infinite.
    """
    epochs = json.loads((path / "config.json").read_text(encoding="utf-8"))["resolved"]["epochs"]
    rows = read_metrics(path / "metrics.csv") if (path / "metrics.csv").is_file() else []
    curves: dict[str, list[float]] = {"epoch": list(range(1, epochs + 1))}
    for name, key in (("train", "accuracy"), ("test", "val_accuracy")):
        known = [round(100 * (1 - row[key]), 6) for row in rows if key in row]
        curves[f"{name}_error"] = known + [guessing] * (epochs - len(known))
    values = {"measured": dict(measured), "curves": curves, "diverged": what}
    write_json(path / FILE, values)
    return _diverged(planned, path, values)


def stored_divergence(planned: PlannedRun, path: Path) -> Result | None:
    """Return the result that `diverged` stored, or None."""
    try:
        values = json.loads((path / FILE).read_text(encoding="utf-8"))
        return _diverged(planned, path, values) if "diverged" in values else None
    except (OSError, ValueError, KeyError):
        return None


def _diverged(planned: PlannedRun, path: Path, values: Mapping[str, Any]) -> Result:
    labels, drawn = _words(planned)
    curves = values["curves"]
    last = {name: column[-1] for name, column in curves.items() if name != "epoch"}
    return Result(path.name, labels, drawn, last | values["measured"], curves, {}, values["diverged"])


def _words(planned: PlannedRun) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the labels of a run, and what its random search drew."""
    labels = {"network": planned.network, **planned.labels, "seed": planned.seed}
    if planned.trial is None:
        return labels, {}
    return labels | {"trial": planned.trial}, {**planned.settings, **planned.options}


def _stored(file: Path) -> tuple[dict[str, float] | None, dict[str, Any]]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return values["measured"], values["maps"]
    except (OSError, ValueError, KeyError):
        return None, {}


def _of_model(run: Run, held: ImageData | None, maps: bool) -> tuple[dict[str, float], dict[str, Any]]:
    from keras_deepnets import models

    model = run.model
    measured: dict[str, float] = {
        "parameters": models.trainable_parameters(model),
        "multiply_adds": models.multiply_adds(model),
    }
    if not maps:
        return measured, {}
    from keras_deepnets.studies import connections

    found = connections.reuse_maps(model)
    weights = {
        name: [[None if value != value else round(float(value), 6) for value in row] for row in block]
        for name, block in found.items()
    }
    measured["feature_reuse"] = connections.reuse(found)
    if held is not None:
        from keras_deepnets.training import evaluate

        whole = evaluate(model, held).errors
        with connections.cut(model):
            measured["cut_cost"] = 100 * (evaluate(model, held).errors - whole) / held.size
    return measured, weights


def _step_time(run: Run) -> float:
    """Return the median time of a training step in milliseconds, without the first epoch if there are more."""
    config = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    return round(1000 * config["resolved"]["batch_size"] / run.metrics["images_per_second"], 3)
