"""Training curves as in the papers: thin dashed lines for training images, bold lines for the other images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures
from keras_deepnets.insight.figures import COLOURS, legend_below, shortened
from keras_deepnets.insight.metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

_LONGEST = 28  # letters of a run's name
_LONG = 12  # epochs: in shorter runs, the first ones set the scale too
_OUTLIER = 4  # times the upper quartile: higher values do not set the scale

Rows = list[dict[str, float]]


@dataclass(frozen=True)
class _Curves:
    """The metrics of a run, and the name of the split that it was not trained on."""

    rows: Rows
    held: str


def draw_curves(
    runs: str | os.PathLike | Iterable[str | os.PathLike] | Mapping[str, str | os.PathLike],
    path: str | os.PathLike,
    title: str | None = None,
) -> Path:
    """Draw error, loss and learning rate over the epochs of one or more runs.

    The style is that of He et al. 2015, figure 6. The legend shows the values of the last epoch. The first epochs and outliers
    may lie above the axes. The highest of them is then written above them.

    Args:
        runs: Run folder or `metrics.csv`, several of them, or a mapping from legend names to them.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        title: Title of the picture.

    Returns:
        `path`.

    Raises:
        InputError: A run has no metrics yet, or the picture cannot be written.
    """
    named = _named(runs)
    return figures.write(path, lambda letters: _figure(named, title, letters), [*named, title or ""])


def _named(runs: Any) -> dict[str, _Curves]:
    """Return the curves of each run by its name in the legend."""
    if isinstance(runs, (str, os.PathLike)):
        runs = [runs]
    if not isinstance(runs, Mapping):
        runs = {_name(Path(run)): run for run in runs}
    if not runs:
        raise InputError("There are no runs to draw; give the folder of a run.")
    found = {}
    for name, run in runs.items():
        file = Path(run) / "metrics.csv" if Path(run).is_dir() else Path(run)
        rows = read_metrics(file)
        if not rows:
            raise InputError(f"{file} has no epoch yet.")
        found[str(name)] = _Curves(rows, _held_name(file.with_name("config.json")))
    return found


def _held_name(config: Path) -> str:
    try:
        split = json.loads(config.read_text(encoding="utf-8"))["validation"]["split"]
    except (OSError, ValueError, KeyError, TypeError):  # a bare metrics.csv
        split = "test"
    return "validation" if split == "validation" else "test"


def _name(path: Path) -> str:
    return (path if path.is_dir() else path.parent).resolve().name


def _figure(runs: Mapping[str, _Curves], title: str | None, letters: figures.Letters = str) -> Figure:
    from matplotlib.figure import Figure

    # Below the panels, the legend has a row for each run.
    figure = Figure(figsize=(9.6, 5.2 + 0.2 * max(0, len(runs) - 1)), layout="constrained")
    panels = figure.subplot_mosaic([["error", "loss"], ["rate", "rate"]], height_ratios=[4, 1])
    detectors = all(_LOSSES[0] in curves.rows[-1] for curves in runs.values())
    measure = "average precision on the other images (%)" if detectors else "error (%)"
    for (name, curves), colour in zip(runs.items(), _cycle(len(runs)), strict=True):
        rows, held = curves.rows, curves.held
        prefix = f"{letters(shortened(name, _LONGEST))} " if len(runs) > 1 else ""
        if detectors:
            _precision(panels["error"], rows, prefix, colour)
        else:
            errors = [
                {key: 100 * (1 - row[key]) for key in _ACCURACIES if key in row} | {"epoch": row["epoch"]}
                for row in rows
            ]
            _pair(panels["error"], errors, "accuracy", held, prefix, colour, "{:.2f} %")
        _pair(panels["loss"], rows, "loss", held, prefix, colour, "{:.3f}")
        if detectors and len(runs) == 1:
            for part, other in zip(_LOSSES, COLOURS[1:], strict=False):
                _line(panels["loss"], rows, part, f"{part.replace('_', ' ')} {{:.3f}}", other, linewidth=1.0)
        panels["rate"].plot(
            [row["epoch"] for row in rows], [row["learning_rate"] for row in rows], color=colour, linewidth=1.5
        )
    last = max(curves.rows[-1]["epoch"] for curves in runs.values())
    for panel, label in (("error", measure), ("loss", "loss"), ("rate", "learning rate")):
        figures.finish(panels[panel], label)
        panels[panel].set_xlim(min(1, last - 1), last)
        cast("MaxNLocator", panels[panel].xaxis.get_major_locator()).set_params(integer=True)
    for panel in ("error", "loss"):
        _focus(panels[panel])
        legend_below(panels[panel])
        panels[panel].tick_params(labelbottom=True)
    panels["rate"].set_xlabel("epoch", color=figures.GREY)
    panels["rate"].set_ylim(bottom=0)
    if title:
        figure.suptitle(letters(title), fontsize=12, x=0.012, ha="left")
    return figure


_ACCURACIES = ("accuracy", "val_accuracy")


_LOSSES = ("rpn_box", "objectness", "classifier", "box")
"""Columns that only detectors have: the parts of their loss."""


def _precision(axes: Axes, rows: Rows, prefix: str, colour: str) -> None:
    """Plot COCO AP and AP50 of a detector."""
    percent = [{key: 100 * value for key, value in row.items() if key.startswith("val_")} for row in rows]
    percent = [values | {"epoch": row["epoch"]} for values, row in zip(percent, rows, strict=True)]
    _line(axes, percent, "val_ap50", f"{prefix}AP50 {{:.1f}} %", colour, linewidth=2.4)
    _line(axes, percent, "val_ap", f"{prefix}AP {{:.1f}} %", colour, linewidth=1.0, linestyle=(0, (4, 2)))


def _line(axes: Axes, rows: Rows, key: str, label: str, colour: str, **style: Any) -> None:
    """Plot one column of the rows that have it."""
    points = [(row["epoch"], row[key]) for row in rows if key in row]
    if points:
        marker = "o" if len(points) == 1 else ""
        axes.plot(*zip(*points, strict=True), color=colour, label=label.format(points[-1][1]), marker=marker, **style)


def _pair(axes: Axes, rows: Rows, name: str, held: str, prefix: str, colour: str, form: str) -> None:
    """Plot one metric for the training images and, if it exists, for the other images."""
    dashed: dict[str, Any] = {"linestyle": (0, (4, 2)), "linewidth": 1.0}
    thick: dict[str, Any] = {"linewidth": 2.4}
    for key, part, style in ((name, "train", dashed), (f"val_{name}", held, thick)):
        points = [(row["epoch"], row[key]) for row in rows if key in row]
        if points:
            label = f"{prefix}{part} {form.format(points[-1][1])}"
            # A single point needs a marker, because its line is invisible.
            axes.plot(
                *zip(*points, strict=True), color=colour, label=label, marker="o" if len(points) == 1 else "", **style
            )


def _focus(axes: Axes) -> None:
    """Choose the scale so that neither the first epochs nor an outlier flattens the curves. Say how high the rest goes."""
    lines = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    later = (
        np.concatenate([values[len(values) // 4 if len(values) >= _LONG else 0 :] for values in lines])
        if lines
        else np.zeros(0)
    )
    later = later[np.isfinite(later)]
    if not later.size:
        axes.set_ylim(0, 1)
        return
    usual = later[later <= _OUTLIER * max(float(np.quantile(later, 0.75)), 0.0)]
    high = float(max(usual, default=later.max())) * 1.08
    axes.set_ylim(min(0.0, float(later.min())), high if high > 0 else 1)
    above = [(value, x) for line in axes.lines for value, x in _points(line) if value > axes.get_ylim()[1]]
    if above:
        value, epoch = max(above)
        text = f"highest: {value:.3g} in epoch {epoch:g}"
        axes.set_title(text, loc="right", fontsize=8, color=figures.GREY)


def _points(line: Any) -> list[tuple[float, float]]:
    pairs = zip(np.asarray(line.get_ydata(), float), np.asarray(line.get_xdata(), float), strict=True)
    return [(value, x) for value, x in pairs if np.isfinite(value)]


def _cycle(count: int) -> list[str]:
    return [COLOURS[at % len(COLOURS)] for at in range(count)]
