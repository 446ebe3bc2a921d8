"""A picture of a confusion matrix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures
from keras_deepnets.insight.figures import DPI, EMPTY, GREY, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One hue that only gets darker: readable with any colour vision, and in print.
_COLOURS = "Blues"

# Largest number of classes with numbers in the cells, and with class names on the axes.
_NUMBERED, _NAMED = 25, 120
_LONGEST = 24  # letters in a name


def draw_confusion(
    confusion: np.ndarray, labels: Sequence[str], path: str | os.PathLike, title: str | None = None
) -> Path:
    """Draw a confusion matrix. Each row is coloured by its shares.

    The colour grows with a root of the share, so that rare errors stay visible next to the diagonal. With few classes,
    the cells contain the numbers of images. With many classes, the axes show indices instead of names.

    Args:
        confusion: int ``[classes, classes]``. Element (i, j) is the number of images of class i that were predicted as
            class j, as in `Evaluation.confusion`.
        labels: Class names.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        title: Title of the picture, in front of the top-1 accuracy.

    Returns:
        `path`.

    Raises:
        InputError: The matrix has the wrong shape, negative numbers or no images. The suffix is wrong, or the picture
            cannot be written.
    """
    path = figures.check_path(path)
    confusion = _checked(confusion, labels)
    texts = [*labels, title or ""]
    return figures.write(
        path,
        lambda letters: _figure(confusion, [letters(label) for label in labels], letters(title or "")),
        texts,
        tight=True,
    )


def _checked(confusion: Any, labels: Sequence[str]) -> np.ndarray:
    confusion = np.asarray(confusion)
    if confusion.shape != (len(labels), len(labels)) or confusion.dtype.kind not in "iu":
        raise InputError(
            f"confusion is {confusion.dtype} {list(confusion.shape)}; give whole numbers, a row and a column for each of the "
            f"{len(labels)} labels."
        )
    if confusion.size == 0 or confusion.min() < 0 or not confusion.any():
        raise InputError("confusion must hold numbers of images: none below 0, and not all 0.")
    return confusion


def _figure(confusion: np.ndarray, labels: Sequence[str], title: str | None) -> Figure:
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    classes = len(labels)
    counts = confusion.sum(axis=1, keepdims=True)
    shares = np.ma.masked_array(confusion / np.maximum(counts, 1), np.broadcast_to(counts == 0, confusion.shape))
    side = float(np.clip(2.2 + 0.5 * classes, 4.2, 11.0 if classes <= _NAMED else 14.0))
    figure = Figure(figsize=(side + 1.4, side + 0.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set_anchor("W")
    colours = colormaps[_COLOURS].with_extremes(bad=EMPTY)
    # Cells smaller than a dot are averaged. Larger ones are not, or single errors would fade.
    smoothing = "nearest" if classes <= side * DPI * 0.75 else "antialiased"
    norm = PowerNorm(0.5 if classes <= _NAMED else 0.3, 0, 1)
    picture = axes.imshow(shares, cmap=colours, norm=norm, interpolation=smoothing)
    bar = figure.colorbar(
        picture, ax=axes, shrink=0.7, aspect=30, pad=0.02, format=PercentFormatter(1, decimals=0, symbol=" %")
    )
    bar.set_ticks([0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1])
    bar.set_label("share of the true class", color=GREY, fontsize=9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=GREY, labelsize=8, length=2)
    if classes <= _NUMBERED:
        _write_numbers(axes, confusion, shares, norm, size=_cell_size(side, classes))
    _name_axes(axes, labels, side)
    total = int(confusion.sum())
    top1 = 100 * int(confusion.trace()) / total
    text = f"top-1 {top1:.2f} % of {total:,} image{'s' if total > 1 else ''}"
    axes.set_title(f"{title}: {text}" if title else text, loc="left", fontsize=11)
    return figure


def _cell_size(side: float, classes: int) -> float:
    """Return the size of a cell in points."""
    return 72 * 0.8 * side / classes


def _write_numbers(axes: Axes, confusion: np.ndarray, shares: Any, norm: Any, size: float) -> None:
    """Write the numbers of images into the cells; cells with 0 stay empty."""
    letters = len(f"{confusion.max():,}")
    size = min(10.0, size / (0.65 * max(letters, 3)))
    for row, column in np.argwhere(confusion):
        colour = "white" if norm(shares[row, column]) > 0.55 else "black"
        axes.text(column, row, f"{confusion[row, column]:,}", ha="center", va="center", color=colour, fontsize=size)


def _name_axes(axes: Axes, labels: Sequence[str], side: float) -> None:
    classes = len(labels)
    axes.set_xlabel("predicted class", color=GREY)
    axes.set_ylabel("true class", color=GREY)
    axes.spines[:].set_color("#999999")
    if classes > _NAMED:
        axes.tick_params(colors=GREY, labelsize=8)
        return
    names = [shortened(name, _LONGEST) for name in labels]
    size = min(10.0, 0.85 * _cell_size(side, classes))
    longest = max(map(len, names))
    upright = longest * 0.62 * size > _cell_size(side, classes)
    axes.set_xticks(range(classes), names, rotation=90 if upright else 0)
    axes.set_yticks(range(classes), names)
    axes.tick_params(colors=GREY, labelsize=size, length=2 if size > 6 else 0)
