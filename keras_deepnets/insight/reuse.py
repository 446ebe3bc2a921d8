"""Which features the layers of a DenseNet reuse (Huang et al. 2016, figure 5)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Reuse:
    """The weights with which the layers of a dense block read the outputs of earlier layers.

    Attributes:
        block: Name of the block, e.g. ``"conv2"``.
        strengths: float64 ``[sources, readers]``. Source 0 is the input of the block, and source i is its layer i. The
            readers are the layers of the block. The last reader is what follows the block: a transition or the classifier.
            Element (s, r) is the mean over the maps of source s of the L1 norm of the weights of reader r on this map. It
            is NaN for sources that come after the reader.
        follows: ``"transition"`` or ``"classifier"``.
    """

    block: str
    strengths: np.ndarray
    follows: str


def feature_reuse(model: keras.Model) -> list[Reuse]:
    """Return how strongly the layers of each dense block read the outputs of each earlier layer.

    The source is Huang et al. 2016, section 5 ("Feature Reuse"): the L1 norm of the weights, normalised by the number of
    input maps.

    Args:
        model: A DenseNet with at least one dense block.

    Raises:
        InputError: The model is not a DenseNet of this library.
    """
    from keras_deepnets.insight.observing import graph_of
    from keras_deepnets.models import layer_prefix

    model = graph_of(model)
    prefix = layer_prefix(model)
    kernels = dict(_kernels(model, prefix))
    blocks: dict[str, dict[int, dict[int, np.ndarray]]] = {}
    for name, kernel in kernels.items():
        if match := re.fullmatch(r"(conv\d+)_block(\d+)_([12])_conv", name):
            block, layer, part = match.groups()
            blocks.setdefault(block, {}).setdefault(int(layer), {})[int(part)] = kernel
    if not blocks or "Concatenate" not in {type(layer).__name__ for layer in model.layers}:
        raise InputError(f"{model.name} has no dense blocks; feature reuse is for DenseNets of this library.")
    found = []
    for block, layers in blocks.items():
        count = len(layers)
        added = [layers[at][max(layers[at])].shape[-1] for at in range(1, count + 1)]
        widths = [layers[1][1].shape[-2], *added]
        transition = kernels.get(f"{block.replace('conv', 'pool')}_conv")
        last = transition if transition is not None else kernels.get("predictions")
        readers = [layers[at][1] for at in range(1, count + 1)] + ([] if last is None else [last])
        strengths = np.full((count + 1, len(readers)), np.nan)
        for reader, kernel in enumerate(readers):
            norms = np.abs(kernel.astype(np.float64)).sum(
                axis=tuple(place for place in range(kernel.ndim) if place != kernel.ndim - 2)
            )
            edges = np.cumsum([0, *widths])
            for source in range(min(reader, count) + 1):
                strengths[source, reader] = norms[edges[source] : edges[source + 1]].mean()
        found.append(Reuse(block, strengths, "classifier" if transition is None else "transition"))
    return found


def _kernels(model: keras.Model, prefix: str) -> Any:
    """Yield name and kernel of the convolutions and of the classifier."""
    from keras_deepnets.layers import RecomputedConv2D

    for layer in model.layers:
        own = layer.convolution if isinstance(layer, RecomputedConv2D) else layer
        if hasattr(own, "kernel") and own.kernel is not None:
            yield own.name.removeprefix(prefix), np.asarray(own.kernel)


def draw_feature_reuse(model: keras.Model, path: str | os.PathLike, title: str | None = None) -> Path:
    """Draw the heat map of `feature_reuse`, one panel for each dense block, as in Huang et al. 2016, figure 5.

    Each column is divided by its largest value, so that dark cells are the sources that a layer reads most. The scale begins at the
    lowest value.

    Args:
        model: A DenseNet of this library.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        title: Title of the picture. Default: the name of the model.

    Raises:
        InputError: The model is not a DenseNet, or the picture cannot be written.
    """
    found = feature_reuse(model)
    title = title or model.name
    return figures.write(path, lambda letters: _figure(found, letters(title)), [title])


def _figure(found: list[Reuse], title: str) -> Figure:
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    columns = min(len(found), 2) if len(found) == 4 else len(found)
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(4.1 * columns + 1.0, 4.2 * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    colours = colormaps["viridis_r"].with_extremes(bad="white")
    tables = []
    for reuse in found:
        strongest = np.nanmax(reuse.strengths, axis=0, keepdims=True)
        tables.append(np.ma.masked_invalid(reuse.strengths / np.where(strongest > 0, strongest, 1)))
    # Of a network that reads all sources, the scale does not begin at 0, so that differences remain visible.
    lowest = np.floor(10 * min(float(table.min()) for table in tables)) / 10
    for axes, reuse, shares in zip(panels, found, tables, strict=True):
        picture = axes.imshow(
            shares, cmap=colours, vmin=min(lowest, 0.9), vmax=1, interpolation="nearest", aspect="auto"
        )
        sources, readers = shares.shape
        figures.finish(axes, f"{reuse.block}: {sources - 1} layers, then the {reuse.follows}", grid=None)
        axes.set_xlabel("reading layer", color=figures.GREY, fontsize=9)
        axes.set_ylabel("source layer (0: input of the block)", color=figures.GREY, fontsize=9)
        axes.set_xticks(*_ticks(readers, 1, reuse.follows if readers == sources else ""))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    bar = figure.colorbar(picture, ax=panels.tolist(), shrink=0.7, aspect=30)
    bar.set_label("L1 norm of the weights, relative to the column's largest", color=figures.GREY, fontsize=9)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=figures.GREY, labelsize=8)
    figure.suptitle(f"{title}: feature reuse", fontsize=12, x=0.012, ha="left")
    return figure


def _ticks(count: int, first: int, last: str) -> tuple[list[int], list[str]]:
    """Return places and names of at most eight readers. The last one is what follows the block."""
    numbered = count - 1 if last else count
    step = max(1, -(-numbered // 6))
    places = [place for place in range(0, numbered, step) if not last or place < count - 1 - step / 2]
    names = [str(place + first) for place in places]
    return ([*places, count - 1], [*names, "next"]) if last else (places, names)
