"""Receptive field and activation memory of a network's stages."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.insight import figures

if TYPE_CHECKING:
    import keras
    from matplotlib.figure import Figure

_WHOLE = ("Global", "Adaptive", "SpatialPyramid", "Flatten", "ZCA", "Reshape")
"""Beginnings of the names of layers whose outputs depend on the whole image."""


@dataclass(frozen=True)
class Stage:
    """The consecutive layers of a network with feature maps of one size.

    Attributes:
        size: Height and width of the feature maps.
        first: Name of the first layer.
        last: Name of the last layer.
        convolutions: Number of convolutions.
        stride: Distance of neighbouring positions, in input pixels.
        receptive_field: Side of the square of input pixels that can influence one position of the last layer. It may be larger
            than the image. Infinite: the whole image, because a layer such as channel attention pools over all positions.
        memory: Bytes of the outputs of all layers for one image, in the layers' compute dtypes.
    """

    size: tuple[int, int]
    first: str
    last: str
    convolutions: int
    stride: int
    receptive_field: float
    memory: int


@dataclass(frozen=True)
class _Field:
    """What a position of a tensor sees: side of the square and distance of neighbours, in input pixels."""

    side: float = 1
    stride: int = 1


def stages(model: keras.Model) -> list[Stage]:
    """Return the stages of a network from the image to the last feature maps.

    The receptive field is the theoretical one (Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural
    Networks"): a layer with kernel k and dilation d adds ``(k - 1)·d`` times the stride of its input. Where branches meet, the
    largest counts.

    The memory is that of all outputs of layers. Training keeps most of them, and inference only a few.

    Args:
        model: A network with a fixed input size.

    Raises:
        InputError: The input size is open, or the network has no feature maps.
    """
    from keras_deepnets.insight.observing import graph_of

    model = graph_of(model)
    if None in model.inputs[0].shape[1:] or len(model.inputs[0].shape) != 4:
        raise InputError(
            f"{model.name} has no fixed input size; build it with input_shape=(height, width, channels) to know its stages."
        )
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for layer, tensor, field, bytes_, convolves in _outputs(model):
        if len(tensor.shape) != 4 or None in tensor.shape[1:3] or tuple(tensor.shape[1:3]) == (1, 1):
            continue
        size = (int(tensor.shape[1]), int(tensor.shape[2]))
        entry = found.setdefault(size, {"first": layer.name, "convolutions": 0, "receptive_field": 1, "memory": 0})
        entry["last"], entry["stride"] = layer.name, field.stride
        entry["convolutions"] += convolves
        entry["receptive_field"] = max(entry["receptive_field"], field.side)
        entry["memory"] += bytes_
    if not any(entry["convolutions"] for entry in found.values()):
        raise InputError(f"{model.name} has no feature maps; stages are those of convolutional networks.")
    return [Stage(size=size, **entry) for size, entry in found.items()]


def _outputs(model: keras.Model) -> Iterator[tuple[Any, Any, _Field, int, int]]:
    """Yield each layer, its output, what a position of it sees, its bytes, and its number of convolutions."""
    from keras_deepnets.graphs import nodes
    from keras_deepnets.layers import Block

    fields = {id(tensor): _Field() for tensor in model.inputs}
    for node in nodes(model):
        layer = node.operation
        incoming = [fields.get(id(tensor), _Field()) for tensor in node.input_tensors] or [_Field()]
        before = _Field(max(field.side for field in incoming), max(field.stride for field in incoming))
        inner = layer.network() if isinstance(layer, Block) else None
        bytes_, convolutions = 0, 0
        if inner is not None:
            after, bytes_, convolutions = _through(inner, before)
        else:
            after = _behind(layer, before)
            convolutions = int(_kernel(layer) is not None and hasattr(_own(layer), "filters"))
            bytes_ = sum(_bytes(layer, tensor) for tensor in node.outputs)
        for tensor in node.outputs:
            fields[id(tensor)] = after
        yield layer, node.outputs[0], after, bytes_, convolutions


def _through(model: keras.Model, before: _Field) -> tuple[_Field, int, int]:
    """Return what a position behind a block sees, its bytes and its number of convolutions."""
    found = list(_outputs(model))
    after = found[-1][2] if found else _Field()
    total, convolutions = sum(each[3] for each in found), sum(each[4] for each in found)
    return _Field(before.side + (after.side - 1) * before.stride, before.stride * after.stride), total, convolutions


def _behind(layer: Any, before: _Field) -> _Field:
    """Return what a position behind a layer sees."""
    if type(layer).__name__.startswith(_WHOLE):
        return _Field(math.inf, before.stride)
    own = _own(layer)
    kernel, stride = _kernel(own) or 1, _one(getattr(own, "strides", None)) or 1
    dilation = _one(getattr(own, "dilation_rate", None)) or 1
    return _Field(before.side + (kernel - 1) * dilation * before.stride, before.stride * stride)


def _own(layer: Any) -> Any:
    from keras_deepnets.layers import RecomputedConv2D

    return layer.convolution if isinstance(layer, RecomputedConv2D) else layer


def _kernel(layer: Any) -> int | None:
    from keras_deepnets.layers import BlurPooling2D

    if isinstance(layer, BlurPooling2D):
        return 3
    own = _own(layer)
    return _one(getattr(own, "kernel_size", None)) or _one(getattr(own, "pool_size", None))


def _one(value: Any) -> int | None:
    """Return the larger of a pair of numbers."""
    return None if value is None else max(value) if isinstance(value, (tuple, list)) else value


def _bytes(layer: Any, tensor: Any) -> int:
    """Return the bytes of a layer's output for one image; 0 for an input and for sizes that are open."""
    if type(layer).__name__ == "InputLayer" or None in tensor.shape[1:]:
        return 0
    width = {"float64": 8, "float32": 4, "int32": 4, "int64": 8, "bool": 1}.get(str(tensor.dtype), 2)
    return math.prod(tensor.shape[1:]) * (1 if str(tensor.dtype) == "uint8" else width)


def draw_stages(model: keras.Model, path: str | os.PathLike, title: str | None = None) -> Path:
    """Draw receptive field and activation memory by stage.

    Args:
        model: A network with a fixed input size.
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        title: Title of the picture. Default: the name of the model.

    Raises:
        InputError: As for `stages`, or the picture cannot be written.
    """
    figures.check_path(path)
    found = stages(model)
    side = max(model.input_shape[1:3])
    name = title or model.name
    return figures.write(path, lambda letters: _figure(found, side, letters(name)), [name])


def _figure(found: list[Stage], side: int, title: str) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 1.9 + 0.45 * len(found)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = list(range(len(found)))
    names = [
        f"{height}×{width} ({stage.convolutions} conv{'s' if stage.convolutions != 1 else ''})"
        for stage in found
        for height, width in [stage.size]
    ]
    finite = [stage.receptive_field for stage in found if math.isfinite(stage.receptive_field)]
    widest = max([*finite, side])
    lengths = [min(stage.receptive_field, widest) for stage in found]
    bars = left.barh(places, lengths, color=figures.COLOURS[0], height=0.6)
    texts = [
        f"{stage.receptive_field:,.0f}" if math.isfinite(stage.receptive_field) else "whole image" for stage in found
    ]
    left.bar_label(bars, texts, padding=3, fontsize=9, color="#222222")
    for text in left.texts:
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    left.axvline(side, color=figures.COLOURS[1], linewidth=1.4, linestyle=(0, (4, 2)), zorder=2)
    megabytes = [stage.memory / 1e6 for stage in found]
    bars = right.barh(places, megabytes, color=figures.COLOURS[2], height=0.6)
    right.bar_label(bars, [f"{value:.3g}" for value in megabytes], padding=3, fontsize=9, color="#222222")
    figures.finish(left, f"receptive field (dashes: the image, {side} pixels)", x="side in input pixels", grid="x")
    figures.finish(right, f"outputs of all layers: {sum(megabytes):.3g} MB", x="MB for one image", grid="x")
    left.set_yticks(places, names)
    left.set_ylabel("feature maps", color=figures.GREY, fontsize=9)
    left.set_ylim(len(found) - 0.5, -0.5)
    left.set_xlim(0, 1.18 * widest)
    right.set_xlim(0, 1.18 * max(megabytes))
    figure.suptitle(f"{title}: receptive field and activation memory by stage", fontsize=12, x=0.012, ha="left")
    return figure
