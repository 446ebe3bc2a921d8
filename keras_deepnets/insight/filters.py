"""The filters of a network's first layer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

MOST = 256
"""Largest number of filters in the picture."""


def first_filters(model: keras.Model) -> np.ndarray:
    """Return the weights of the first layer that reads the image: float32 ``[filters, height, width, channels]``.

    The weights of a fully connected layer have the shape of the image.

    Raises:
        InputError: The first layer with weights does not read an image with 1 or 3 channels.
    """
    import keras

    from keras_deepnets.graphs import nodes
    from keras_deepnets.insight.observing import graph_of

    model = graph_of(model)
    size = tuple(model.inputs[0].shape[1:])
    for node in nodes(model):
        layer = node.operation
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.moveaxis(np.asarray(layer.kernel), -1, 0)
        elif isinstance(layer, keras.layers.Dense) and len(size) == 3 and None not in size:
            kernel = np.asarray(layer.kernel).T.reshape(-1, *size)
        else:
            continue
        if kernel.shape[-1] not in (1, 3):
            break
        return kernel
    raise InputError(f"{model.name} has no first layer that reads images with 1 or 3 channels.")


def draw_filters(model: keras.Model, path: str | os.PathLike, title: str | None = None) -> Path:
    """Draw the filters of the first layer, at most 256 of them.

    Filters of colour images are drawn in colour: grey is 0, and the largest absolute weight of each filter is at full
    contrast. Filters of grey images are red where they are positive and blue where they are negative.

    Args:
        model: A network with images as input.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        title: Title of the picture. Default: the name of the model.

    Raises:
        InputError: As for `first_filters`, or the picture cannot be written.
    """
    figures.check_path(path)
    filters = first_filters(model)
    name = title or model.name
    return figures.write(path, lambda letters: _figure(filters, letters(name)), [name])


def _figure(filters: np.ndarray, title: str) -> Figure:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    count = min(len(filters), MOST)
    columns = int(np.ceil(np.sqrt(count * 1.6)))
    rows = -(-count // columns)
    height, width = filters.shape[1:3]
    gap = max(1, width // 12)
    canvas = np.ones((rows * (height + gap) - gap, columns * (width + gap) - gap, 3))
    for at, one in enumerate(filters[:count]):
        scaled = one / (float(np.abs(one).max()) or 1.0)
        shown = 0.5 + 0.5 * scaled if one.shape[-1] == 3 else colormaps["RdBu_r"](0.5 + 0.5 * scaled[..., 0])[..., :3]
        top, left = at // columns * (height + gap), at % columns * (width + gap)
        canvas[top : top + height, left : left + width] = shown
    side = 8.0
    figure = Figure(figsize=(side, side * canvas.shape[0] / canvas.shape[1] + 0.5), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(canvas, interpolation="nearest")
    axes.axis("off")
    text = f"{title}: {len(filters)} filters of the first layer, {height}×{width}×{filters.shape[-1]}"
    axes.set_title(text + (f" (the first {count})" if count < len(filters) else ""), loc="left", fontsize=11)
    return figure
