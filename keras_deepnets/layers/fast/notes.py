"""Notes on symbolic tensors: what a layer knows about its output, for the layers that read this output.

A note is an instance of one of the classes below, attached to a tensor of the graph that is being traced. It exists as long as the
tensor and is valid only in that graph. Branches and loops inside it have separate graphs. Every operation on the tensor, including casts
and identities, returns a new tensor without notes. A layer that finds no note uses the plain computation. A lost note therefore costs
time but never changes results. Eager tensors have no notes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import tensorflow as tf

_ATTRIBUTE = "_keras_deepnets_notes"


class Wide(NamedTuple):
    """The tensor is the first channels of `tensor`, whose other channels are zeros."""

    tensor: tf.Tensor


class Parts(NamedTuple):
    """The tensor is the concatenation of `maps` along the channels."""

    maps: tuple[tf.Tensor, ...]


class Statistics(NamedTuple):
    """Mean and variance (divided by the count) of the tensor's channels, float32 ``[c]``."""

    mean: tf.Tensor
    variance: tf.Tensor


class Pointwise(NamedTuple):
    """The tensor is `compute` of `inputs`, a linear function of each pixel."""

    compute: Callable[[tf.Tensor], tf.Tensor]
    inputs: tf.Tensor


Note = TypeVar("Note", Wide, Parts, Statistics, Pointwise)


def _is_of_this_graph(tensor: Any) -> bool:
    # Eager tensors, which a function may have captured, have no graph.
    return not tf.executing_eagerly() and getattr(tensor, "graph", None) is tf.compat.v1.get_default_graph()


def attach(tensor: tf.Tensor, note: Note) -> None:
    """Attaches a note to a tensor of the graph that is being traced. Does nothing for other tensors."""
    if _is_of_this_graph(tensor):
        vars(tensor).setdefault(_ATTRIBUTE, {})[type(note)] = note


def read(tensor: tf.Tensor, kind: type[Note]) -> Note | None:
    """The note of class `kind` on a tensor of the graph that is being traced, or None."""
    note = getattr(tensor, _ATTRIBUTE, {}).get(kind)
    return note if note is not None and _is_of_this_graph(tensor) else None
