"""How strongly the layers of a network respond (He et al. 2015, figure 7)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

_SHORTCUT = ("_0_conv", "_0_bn")


@dataclass(frozen=True)
class Responses:
    """The standard deviations of layer responses.

    Attributes:
        names: Names of the layers, from the input: convolutions, and batch normalisations where one follows directly.
        deviations: float64 ``[layers]``: the standard deviation of each layer's outputs over images, positions and channels.
    """

    names: tuple[str, ...]
    deviations: np.ndarray


def layer_responses(model: keras.Model, images: np.ndarray) -> Responses:
    """Return the standard deviation of each convolution's responses.

    As in He et al. 2015, section 4.2, a response is the output of a convolution after batch normalisation and before the
    nonlinearity and the addition. Projection shortcuts are left out. If a convolution applies its activation itself, its
    response is measured after the activation.

    Args:
        model: A network with convolutions.
        images: ``[n, h, w, c]`` with values 0–255, of the network's input size.

    Raises:
        InputError: The network lacks convolutions, its blocks are `layers.Block`, or the images do not fit.
    """
    from keras_deepnets.insight.observing import graph_of, tensors_of

    model = graph_of(model)
    tensors = _tensors(model)
    counts = 0
    first = np.zeros(len(tensors))
    second = np.zeros(len(tensors))
    centres: np.ndarray | None = None
    for values in tensors_of(model, list(tensors.values()), images):
        exact = [value.astype(np.float64) for value in values]
        if centres is None:  # differences to a mean of about the right size lose no digits
            centres = np.array([value.mean() for value in exact])
        share = len(exact[0])
        for place, value in enumerate(exact):
            off = value - centres[place]
            first[place] += share * off.mean()
            second[place] += share * np.square(off).mean()
        counts += share
    deviations = np.sqrt(np.maximum(second / counts - np.square(first / counts), 0))
    return Responses(tuple(tensors), deviations)


def _tensors(model: keras.Model) -> dict[str, Any]:
    """Return the symbolic response of each convolution by the name of its layer."""
    import keras

    from keras_deepnets.graphs import nodes
    from keras_deepnets.layers import Block, RecomputedConv2D

    if any(isinstance(layer, Block) for layer in model.layers):
        raise InputError(
            f"{model.name} has its blocks as single layers; responses need the network built with block_layers=False."
        )
    order = nodes(model)
    readers: dict[int, list[Any]] = {}
    for node in order:
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node)
    found = {}
    for node in order:
        layer = node.operation
        if not isinstance(layer, (keras.layers.Conv2D, RecomputedConv2D)) or layer.name.endswith(_SHORTCUT):
            continue
        tensor, name = node.outputs[0], layer.name
        after = [
            each for each in readers.get(id(tensor), []) if isinstance(each.operation, keras.layers.BatchNormalization)
        ]
        # A BN after the addition belongs to the next unit, not to this convolution.
        if after and after[0].operation.name.removesuffix("_bn") == name.removesuffix("_conv"):
            tensor, name = after[0].outputs[0], after[0].operation.name
        found[name] = tensor
    if not found:
        raise InputError(f"{model.name} has no convolutions; give a convolutional network.")
    return found


def draw_responses(
    responses: Responses | Mapping[str, Responses], path: str | os.PathLike, title: str | None = None
) -> Path:
    """Draw the standard deviations of layer responses, in the order of the layers and sorted by size.

    The style is that of He et al. 2015, figure 7.

    Args:
        responses: Result of `layer_responses`, or several by the name of their network.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        title: Title of the picture.

    Raises:
        InputError: There is nothing to draw, or the picture cannot be written.
    """
    named = responses if isinstance(responses, Mapping) else {"": responses}
    if not named:
        raise InputError("There are no responses to draw; give the result of layer_responses.")
    texts = [*named, title or ""]
    return figures.write(path, lambda letters: _figure(named, title, letters), texts)


def _figure(named: Mapping[str, Responses], title: str | None, letters: figures.Letters = str) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9.6, 6.0), layout="constrained")
    above, below = figure.subplots(2, 1)
    for (name, one), colour in zip(named.items(), figures.COLOURS * len(named), strict=False):
        numbers = np.arange(1, len(one.deviations) + 1)
        text = f"{letters(figures.shortened(name, 40))} (mean {one.deviations.mean():.2f})".lstrip()
        marker = "o" if len(numbers) < 60 else ""
        style: dict[str, Any] = {"color": colour, "linewidth": 1.6, "marker": marker, "markersize": 3}
        above.plot(numbers, one.deviations, label=text, **style)
        below.plot(numbers, np.sort(one.deviations)[::-1], label=text, **style)
    figures.finish(above, "standard deviation of the responses", x="layer, from the input")
    figures.finish(below, "the same, sorted by size", x="rank of the layer")
    for axes in (above, below):
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(named) > 1:
        figures.legend_below(below)
    if title:
        figure.suptitle(letters(title), fontsize=12, x=0.012, ha="left")
    return figure
