"""The picture of the precision-recall curves of a detector."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.detection.metrics.precision import RECALLS, envelope
from keras_deepnets.detection.metrics.results import Curve, DetectionEvaluation, percent
from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour-blind safe (Wong, Nature Methods 8, 441, 2011). Black is the mean.
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_NAMED = 2 * len(_LINES)  # solid, then dashed
_AXES, _OTHERS = "#555555", "#d4d4d4"


def precision_recall(evaluation: DetectionEvaluation, path: str | os.PathLike, title: str | None = None) -> Path:
    """Draw the precision-recall curve of each class at IoU 0.5, and their mean in black.

    A curve is the highest precision at this or a higher recall, as in AP. Of more than 12 classes, those with the most objects are
    named, and the others are grey.

    Args:
        evaluation: Result of `evaluate_detections`.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        title: Title of the picture, in front of the mean AP50.

    Returns:
        `path`.

    Raises:
        InputError: No class has objects. The suffix is wrong, or the picture cannot be written.
    """
    path = figures.check_path(path)
    if not evaluation.curves:
        raise InputError("No class has objects, so there are no curves; give truths with boxes.")
    texts = [*(curve.name for curve in evaluation.curves), title or ""]
    return figures.write(path, lambda letters: _figure(evaluation, title, letters), texts)


def _figure(evaluation: DetectionEvaluation, title: str | None, letters: figures.Letters = str) -> Figure:
    from matplotlib.figure import Figure

    curves = sorted(evaluation.curves, key=lambda curve: -float(np.mean(curve.interpolated)))
    most = sorted(curves, key=lambda curve: -evaluation.per_class[curve.label - 1].objects)[:_NAMED]
    named = [curve for curve in curves if curve in most]
    others = [curve for curve in curves if curve not in most]
    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    for curve in others:
        axes.plot(*_steps(curve), color=_OTHERS, linewidth=0.8)
    for at, curve in enumerate(named):
        style = "-" if at < len(_LINES) else (0, (4, 2))
        label = f"{letters(_short(curve.name))} {percent(float(np.mean(curve.interpolated)))}"
        axes.plot(*_steps(curve), color=_LINES[at % len(_LINES)], linestyle=style, linewidth=1.5, label=label)
    mean = np.mean([curve.interpolated for curve in curves], axis=0)
    average = percent(float(np.mean(mean)))
    if len(curves) > 1:
        axes.plot(RECALLS, mean, color="black", linewidth=2.4, drawstyle="steps-pre", label=f"mean {average}")
    if others:
        label = f"{len(others)} other class{'es' if len(others) > 1 else ''}"
        axes.plot([], [], color=_OTHERS, linewidth=0.8, label=label)
    text = f"AP50 {average} % of {_number(evaluation.objects, 'object')} in {_number(evaluation.images, 'image')}"
    _finish(axes, f"{title}: {text}" if title else text)
    figure.legend(
        frameon=False, fontsize=9, loc="outside right upper", title="AP50 (%)", title_fontsize=9, alignment="left"
    )
    return figure


def _steps(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Recall and highest precision as corners of a line, which falls to 0 at the highest recall."""
    best = envelope(curve.precision)
    return np.append(0.0, np.repeat(curve.recall, 2)), np.append(np.repeat(best, 2), 0.0)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _short(name: str) -> str:
    return name if len(name) <= 20 else f"{name[:19]}…"


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_xlabel("recall", color=_AXES)
    axes.set_ylabel("precision", color=_AXES)
    axes.set_xlim(0, 1.005)
    axes.set_ylim(0, 1.02)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors=_AXES, labelsize=9)
