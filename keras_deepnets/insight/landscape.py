"""The loss around the weights of a trained network (Li et al. 2018, "Visualizing the Loss Landscape of Neural Nets")."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

_BATCH = 64


@dataclass(frozen=True)
class LossSurface:
    """The loss on a square of weights.

    Attributes:
        steps: float64 ``[points]``: the positions along both directions, in lengths of the filters.
        losses: float64 ``[points, points]``: mean cross entropy in nats. Element (i, j) is that of the weights plus
            ``steps[i]`` times the second direction plus ``steps[j]`` times the first.
        images: Number of images.
    """

    steps: np.ndarray
    losses: np.ndarray
    images: int


def loss_surface(
    model: keras.Model,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    points: int = 11,
    extent: float = 1.0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LossSurface:
    """Compute the loss along two random directions that are normalised filter by filter.

    Each filter of a direction has the length of the network's filter (Li et al. 2018, section 4). Biases and the weights and
    statistics of normalisations do not change. The network is in inference mode, and its weights are restored.

    Args:
        model: A classifier that ends in a softmax or in logits.
        images: ``[n, h, w, c]`` with values 0–255, of the network's input size.
        labels: int ``[n]``: the true classes.
        points: Positions along each direction, odd, so that the trained weights are one of them.
        extent: Largest distance from the trained weights.
        seed: Seed of the directions.
        progress: Called with the number of computed points and the number of all.

    Raises:
        InputError: An argument is wrong, or the model is not such a classifier.
    """
    import keras

    from keras_deepnets.insight.observing import graph_of, inputs_of, logits_tensor
    from keras_deepnets.models import deep_graphs

    if points < 3 or points % 2 == 0:
        raise InputError(
            f"points={points!r} must be an odd number of at least 3, so that one point is the trained network."
        )
    if not extent > 0:
        raise InputError(f"extent={extent!r} must be above 0; 1 is the length of the filters.")
    model = graph_of(model)
    inputs, labels = inputs_of(model, images), np.asarray(labels)
    if labels.shape != (len(inputs),) or labels.dtype.kind not in "iu":
        raise InputError(
            f"labels are {labels.dtype} {list(labels.shape)}; give {len(inputs)} whole numbers, one for each image."
        )
    with deep_graphs():
        network = keras.Model(model.inputs[0], logits_tensor(model))
    moved = [weight for weight in network.trainable_weights if _moves(weight)]
    own = [np.asarray(weight) for weight in moved]
    random = np.random.default_rng(seed)
    first, second = ([_direction(values, random) for values in own] for _ in range(2))
    steps = np.linspace(-extent, extent, points)
    losses = np.empty((points, points))
    try:
        for i, down in enumerate(steps):
            for j, across in enumerate(steps):
                for weight, values, a, b in zip(moved, own, first, second, strict=True):
                    weight.assign((values + across * a + down * b).astype(values.dtype))
                losses[i, j] = _loss(network, inputs, labels)
                if progress is not None:
                    progress(i * points + j + 1, points * points)
    finally:
        for weight, values in zip(moved, own, strict=True):
            weight.assign(values)
    return LossSurface(steps, losses, len(inputs))


def _moves(weight: Any) -> bool:
    """Whether a weight is a kernel: biases and the scales of normalisations are vectors."""
    return len(weight.shape) > 1


def _direction(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a random direction whose filters have the lengths of those in `values`, ``[…, filters]``."""
    found = random.standard_normal(values.shape)
    axes = tuple(range(values.ndim - 1))
    lengths = np.sqrt(np.square(values.astype(np.float64)).sum(axes))
    return found * lengths / (np.sqrt(np.square(found).sum(axes)) + 1e-12)


def _loss(network: keras.Model, inputs: np.ndarray, labels: np.ndarray) -> float:
    total = 0.0
    for at in range(0, len(inputs), _BATCH):
        logits = np.asarray(network.predict_on_batch(inputs[at : at + _BATCH]), np.float64)
        own = np.take_along_axis(logits, labels[at : at + _BATCH, None], 1)[:, 0]
        top = logits.max(1)
        total += float((np.log(np.exp(logits - top[:, None]).sum(1)) + top - own).sum())
    return total / len(inputs)


def draw_loss_surface(surface: LossSurface, path: str | os.PathLike, title: str | None = None) -> Path:
    """Draw a loss surface as a contour map with a logarithmic scale, so that high walls do not flatten the valley.

    Args:
        surface: Result of `loss_surface`.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        title: Title of the picture.

    Raises:
        InputError: The picture cannot be written, or no loss is a number.
    """
    if not np.isfinite(surface.losses).any():
        raise InputError("No loss of the surface is a number; draw that of a network that has not diverged.")
    return figures.write(path, lambda letters: _figure(surface, letters(title) if title else None), [title or ""])


def _figure(surface: LossSurface, title: str | None) -> Figure:
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator

    losses = np.ma.masked_invalid(np.maximum(surface.losses, 1e-6))
    low, high = float(losses.min()), float(losses.max())
    norm = LogNorm(low, max(high, low * 1.01))
    levels = np.geomspace(norm.vmin or low, norm.vmax or high, 14)
    figure = Figure(figsize=(7.2, 5.6), layout="constrained")
    axes = figure.add_subplot()
    filled = axes.contourf(surface.steps, surface.steps, losses, levels=levels, norm=norm, cmap=colormaps["viridis"])
    lines = axes.contour(surface.steps, surface.steps, losses, levels=levels[1::2], colors="white", linewidths=0.7)
    axes.clabel(lines, fmt=lambda value: f"{value:.3g}", fontsize=8)
    axes.plot(0, 0, marker="+", markersize=14, markeredgewidth=2.5, color=figures.COLOURS[1], clip_on=False)
    middle = len(surface.steps) // 2
    text = f"loss {surface.losses[middle, middle]:.3g} of {surface.images:,} images at the trained weights (+)"
    figures.finish(axes, text, x="first direction (lengths of the filters)", y="second direction", grid=None)
    axes.set_aspect("equal")
    bar = figure.colorbar(filled, ax=axes, shrink=0.85)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    bar.ax.minorticks_off()
    bar.set_label("cross entropy (nats), logarithmic", color=figures.GREY, fontsize=9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=figures.GREY, labelsize=8)
    if title:
        figure.suptitle(title, fontsize=12, x=0.012, ha="left")
    return figure
