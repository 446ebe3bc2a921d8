"""What the transform gates of a highway network do (Srivastava et al. 2015, figure 2)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

_SINGLE = 4
"""Largest number of single images in the picture."""


@dataclass(frozen=True)
class Gates:
    """The transform gates of a highway network. In all lists, there is one array for each highway layer.

    Attributes:
        names: Names of the gate layers, from the input.
        biases: float32 ``[units]``: the biases of the gates. Of a convolution, the units are its channels.
        means: float32 ``[units]``: the mean output of each gate over the images, and over positions of a convolution. At 0, a
            unit passes its input on; at 1, it transforms it.
        single: float32 ``[images, units]``: the same for each image.
    """

    names: tuple[str, ...]
    biases: tuple[np.ndarray, ...]
    means: tuple[np.ndarray, ...]
    single: tuple[np.ndarray, ...]


def gate_activity(model: keras.Model, images: np.ndarray) -> Gates:
    """Return the biases and the activity of the transform gates of a highway network.

    Args:
        model: A network with `HighwayGate` layers.
        images: ``[n, h, w, c]`` with values 0–255, of the network's input size.

    Raises:
        InputError: The network has no gates, or the images do not fit.
    """
    from keras_deepnets.insight.observing import graph_of, tensors_of
    from keras_deepnets.layers import HighwayGate

    model = graph_of(model)
    tensors = [layer._inbound_nodes[0].input_tensors[2] for layer in model.layers if isinstance(layer, HighwayGate)]
    if not tensors:
        raise InputError(f"{model.name} has no transform gates; give a highway network.")
    layers = [tensor._keras_history.operation for tensor in tensors]
    parts: list[list[np.ndarray]] = [[] for _ in tensors]
    for values in tensors_of(model, tensors, images):
        for part, value in zip(parts, values, strict=True):
            part.append(value.mean(axis=tuple(range(1, value.ndim - 1)), dtype=np.float64))
    single = [np.concatenate(part) for part in parts]
    return Gates(
        tuple(layer.name for layer in layers),
        tuple(np.asarray(layer.bias) for layer in layers),
        tuple(one.mean(axis=0).astype(np.float32) for one in single),
        tuple(one.astype(np.float32) for one in single),
    )


def draw_gates(model: keras.Model, images: np.ndarray, path: str | os.PathLike, title: str | None = None) -> Path:
    """Draw biases and activity of the transform gates by layer, over all images and for the first four single images.

    The panels are those of Srivastava et al. 2015, figure 2, with a row for each highway layer and a column for each unit.

    Args:
        model: A highway network.
        images: ``[n, h, w, c]`` with values 0–255, of the network's input size.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        title: Title of the picture. Default: the name of the model.

    Raises:
        InputError: As for `gate_activity`, or the picture cannot be written.
    """
    figures.check_path(path)
    found = gate_activity(model, images)
    name = title or model.name
    return figures.write(path, lambda letters: _figure(found, letters(name)), [name])


def _figure(gates: Gates, title: str) -> Figure:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    count, layers = len(gates.single[0]), len(gates.names)
    shown = min(_SINGLE, count)
    figure = Figure(figsize=(11, 3.2 + min(3.0, 0.12 * layers)), layout="constrained")
    panels = figure.subplots(1, 2 + shown, sharey=True, squeeze=False)[0]
    biases = _table(gates.biases)
    tables = [biases, _table(gates.means), *(_table([one[at] for one in gates.single]) for at in range(shown))]
    names = ["bias", f"mean of {count:,} image{'s' if count > 1 else ''}", *(f"image {at + 1}" for at in range(shown))]
    pictures = []
    for place, (axes, table, text) in enumerate(zip(panels, tables, names, strict=True)):
        # Brightness grows with the value in both maps, for every kind of colour vision.
        style: dict[str, Any] = {"vmin": 0, "vmax": 1} if place else {}
        style["cmap"] = colormaps["viridis" if place else "cividis"].with_extremes(bad=figures.EMPTY)
        masked = np.ma.masked_invalid(table)
        pictures.append(axes.imshow(masked, aspect="auto", interpolation="nearest", **style))
        figures.finish(axes, text, x="unit", grid=None)
        axes.set_yticks(*_rows(gates.names))
    panels[0].set_ylabel("highway layer, from the input", color=figures.GREY, fontsize=9)
    for axes, picture, text in (
        (panels[0], pictures[0], "bias of the gate"),
        (panels[1:].tolist(), pictures[-1], "output of the gate: 0 carries the input, 1 transforms it"),
    ):
        bar = figure.colorbar(picture, ax=axes, location="bottom", aspect=40 if isinstance(axes, list) else 12)
        bar.set_label(text, color=figures.GREY, fontsize=9)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=figures.GREY, labelsize=8)
    figure.suptitle(f"{title}: transform gates", fontsize=12, x=0.012, ha="left")
    return figure


def _rows(names: tuple[str, ...]) -> tuple[list[int], list[str]]:
    step = max(1, -(-len(names) // 20))
    places = list(range(0, len(names), step))
    return places, [names[place].removesuffix("_gate") for place in places]


def _table(rows: Any) -> np.ndarray:
    """Return rows of unequal lengths as one array with NaN at their ends."""
    table = np.full((len(rows), max(map(len, rows))), np.nan)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table
