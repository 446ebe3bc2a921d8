"""Notes on symbolic tensors: what a layer knows of its output, for the layers that read that output.

A note is a record of one of the classes below, attached to a tensor of the graph that is being traced. It lives as long as the
tensor and counts only in that graph: a branch or a loop inside it has a graph of its own. Any operation on the tensor, a cast or an
identity too, gives a new tensor without notes. Whoever finds no note computes the plain way, so that a lost note costs time and
never a wrong result. Eager tensors carry none.
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
    """The tensor is `maps` side by side along the channels."""

    maps: tuple[tf.Tensor, ...]


class Statistics(NamedTuple):
    """Mean and variance (over the count) of the tensor's channels, float32 ``[c]``."""

    mean: tf.Tensor
    variance: tf.Tensor


class Pointwise(NamedTuple):
    """The tensor is `compute` of `inputs`: linear, and one pixel at a time."""

    compute: Callable[[tf.Tensor], tf.Tensor]
    inputs: tf.Tensor


Note = TypeVar("Note", Wide, Parts, Statistics, Pointwise)


def _is_of_this_graph(tensor: Any) -> bool:
    return not tf.executing_eagerly() and tensor.graph is tf.compat.v1.get_default_graph()


def attach(tensor: tf.Tensor, note: Note) -> None:
    """Attaches a note to a tensor of the graph that is being traced; to other tensors, nothing."""
    if _is_of_this_graph(tensor):
        vars(tensor).setdefault(_ATTRIBUTE, {})[type(note)] = note


def read(tensor: tf.Tensor, kind: type[Note]) -> Note | None:
    """The note of a kind on a tensor of the graph that is being traced, or None."""
    note = getattr(tensor, _ATTRIBUTE, {}).get(kind)
    return note if note is not None and _is_of_this_graph(tensor) else None
