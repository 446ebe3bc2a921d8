"""Constants that a graph has once."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_ATTRIBUTE = "_keras_deepnets_constants"


def constant(value: Any, dtype: Any) -> tf.Tensor:
    """The scalar `value`, or the vector for a tuple. Layers that are traced into the same graph share it.

    To trace a constant takes a third of a millisecond. A network of 200 layers would have thousands of equal ones.
    """
    dtype = tf.as_dtype(dtype)
    if tf.executing_eagerly() or tf.distribute.has_strategy():  # each replica has its own device
        return tf.constant(value, dtype)
    graph = tf.compat.v1.get_default_graph()
    found = getattr(graph, _ATTRIBUTE, None)
    if found is None:
        found = {}
        setattr(graph, _ATTRIBUTE, found)
    if (value, dtype) not in found:
        with tf.control_dependencies(None):
            found[value, dtype] = tf.constant(value, dtype)
    return found[value, dtype]


def zeros(count: int) -> tf.Tensor:
    """float32 zeros ``[count]``, which are shared like a `constant`."""
    return constant((0.0,) * count, tf.float32)
