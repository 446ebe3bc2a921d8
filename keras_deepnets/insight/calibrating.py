"""How far a classifier's probabilities can be believed (Guo et al. 2017, "On Calibration of Modern Neural Networks")."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 15
"""Number of bins of Guo et al. 2017."""


@dataclass(frozen=True)
class Calibration:
    """Accuracy against confidence. The confidence is the probability of the predicted class.

    Attributes:
        edges: float64 ``[bins + 1]``: the edges of the bins of confidence, from 0 to 1. A bin includes its upper edge.
        counts: int64 ``[bins]``: the images of each bin.
        confidence: float64 ``[bins]``: their mean confidence; NaN without images.
        accuracy: float64 ``[bins]``: the share of them that is classified correctly; NaN without images.
        error: The expected calibration error: the mean over all images of the bins' absolute differences between accuracy and
            confidence (equation 3).
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = BINS) -> Calibration:
    """Compare the confidence of predictions with their accuracy.

    Args:
        probabilities: ``[n, classes]``.
        labels: int ``[n]``: the true classes.
        bins: Number of bins of equal width.

    Raises:
        InputError: The shapes do not fit, the arrays are empty, or a value is not a probability.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise InputError(
            f"probabilities of shape {list(probabilities.shape)} and labels of shape {list(labels.shape)}: give [n, classes] and [n]."
        )
    if not (probabilities.min() >= 0 and probabilities.max() <= 1 + 1e-3):
        raise InputError("probabilities must be from 0 to 1; apply a softmax to logits.")
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise InputError(f"bins={bins!r} must be a whole number of at least 1.")
    sure = np.minimum(probabilities.max(1), 1.0)
    right = probabilities.argmax(1) == labels
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, sure, "left") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    with np.errstate(invalid="ignore"):
        confidence = np.bincount(places, sure, bins) / counts
        accuracy = np.bincount(places, right, bins) / counts
    gaps = np.where(counts > 0, np.abs(accuracy - confidence), 0.0)
    return Calibration(edges, counts, confidence, accuracy, float((gaps * counts).sum() / len(labels)))


def draw_calibration(found: Calibration, path: str | os.PathLike, title: str | None = None) -> Path:
    """Draw a reliability diagram, and below it the numbers of images.

    Args:
        found: Result of `calibration`.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        title: Title of the picture.

    Raises:
        InputError: The picture cannot be written.
    """
    return figures.write(path, lambda letters: _figure(found, letters(title) if title else None), [title or ""])


def _figure(found: Calibration, title: str | None) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6, 6.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    width = 100 * float(found.edges[1])
    centres = 100 * (found.edges[:-1] + found.edges[1:]) / 2
    filled = found.counts > 0
    above.bar(centres[filled], 100 * found.accuracy[filled], 0.94 * width, color=figures.COLOURS[5])
    above.plot([0, 100], [0, 100], color=figures.GREY, linewidth=1, linestyle=(0, (4, 2)))
    above.plot(
        100 * found.confidence[filled],
        100 * found.accuracy[filled],
        color=figures.COLOURS[0],
        marker="o",
        markersize=4,
        linewidth=1.4,
    )
    below.bar(centres, found.counts, 0.94 * width, color="#bbbbbb")
    text = f"expected calibration error {100 * found.error:.1f} % (dashes: perfect)"
    figures.finish(above, text, y="accuracy (%)")
    figures.finish(below, x="probability of the predicted class (%)", y="images")
    above.set_xlim(0, 100)
    above.set_ylim(0, 100)
    if title:
        figure.suptitle(title, fontsize=12, x=0.012, ha="left")
    return figure
