"""Training curves as in the papers: thin dashed lines for training images, bold lines for the other images."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from keras_deepnets.errors import InputError
from keras_deepnets.insight.metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

# Colour-blind safe (Wong, Nature Methods 8, 441, 2011), strongest first.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_GREY = "#555555"

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

    The style is that of He et al. 2015, figure 6. The legend shows the values of the last epoch.

    Args:
        runs: Run folder or `metrics.csv`, several of them, or a mapping from legend names to them.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        title: Title of the picture.

    Returns:
        `path`.

    Raises:
        InputError: A run has no metrics yet.
    """
    figure = _figure(_named(runs), title)
    figure.savefig(path, dpi=150, facecolor="white")
    return Path(path)


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


def _figure(runs: Mapping[str, _Curves], title: str | None) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    panels = figure.subplot_mosaic([["error", "loss"], ["rate", "rate"]], height_ratios=[4, 1])
    detectors = all(_LOSSES[0] in curves.rows[-1] for curves in runs.values())
    measure = "average precision on the other images (%)" if detectors else "error (%)"
    for (name, curves), colour in zip(runs.items(), _cycle(len(runs)), strict=True):
        rows, held = curves.rows, curves.held
        prefix = f"{name} " if len(runs) > 1 else ""
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
            for part, other in zip(_LOSSES, _COLOURS[1:], strict=False):
                _line(panels["loss"], rows, part, f"{part.replace('_', ' ')} {{:.3f}}", other, linewidth=1.0)
        panels["rate"].plot(
            [row["epoch"] for row in rows], [row["learning_rate"] for row in rows], color=colour, linewidth=1.5
        )
    last = max(curves.rows[-1]["epoch"] for curves in runs.values())
    for panel, label in (("error", measure), ("loss", "loss"), ("rate", "learning rate")):
        _finish(panels[panel], label, last)
    for panel in ("error", "loss"):
        _focus(panels[panel])
        rising = detectors and panel == "error"
        if panels[panel].lines:
            panels[panel].legend(frameon=False, fontsize=9, loc="lower right" if rising else "upper right")
        panels[panel].tick_params(labelbottom=True)
    panels["rate"].set_xlabel("epoch", color=_GREY)
    panels["rate"].set_ylim(bottom=0)
    if title:
        figure.suptitle(title, fontsize=12, x=0.012, ha="left")
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
    """Cut off the high values of the first epochs, which would flatten the rest of the curves."""
    lines = [cast("Sequence[float]", line.get_ydata()) for line in axes.lines]
    later = [value for values in lines for value in values[len(values) // 4 :]]
    finite = [value for value in later if value == value and value != float("inf")]
    low, high = min(finite, default=0), max(finite, default=1)
    axes.set_ylim(min(0, low), high * 1.08 if high > 0 else 1)


def _finish(axes: Axes, label: str, last: float) -> None:
    axes.set_title(label, loc="left", fontsize=10, color=_GREY)
    axes.set_xlim(min(1, last - 1), last)
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors=_GREY, labelsize=9)
    cast("MaxNLocator", axes.xaxis.get_major_locator()).set_params(integer=True)


def _cycle(count: int) -> list[str]:
    return [_COLOURS[at % len(_COLOURS)] for at in range(count)]
