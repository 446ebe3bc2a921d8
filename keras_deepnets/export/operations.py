"""Check that a graph can run on a server without Python and without extra libraries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    from tensorflow.core.framework import graph_pb2

_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


def check(graph: graph_pb2.GraphDef, name: str) -> None:
    """Raise `InputError` if a graph or a function in it runs Python or an operation that is not part of TensorFlow.

    Args:
        graph: The graph with its library of functions.
        name: Name of the model, for the message.
    """
    import tensorflow as tf

    for node in _nodes(graph):
        if node.op in _PYTHON:
            raise InputError(
                f"{name} runs Python at {node.name!r} (tf.py_function or tf.numpy_function), which a server lacks; "
                "write that layer with keras.ops or TensorFlow operations."
            )
        # The list was made when TensorFlow was built, so it does not include operations that libraries register later.
        if not hasattr(tf.raw_ops, node.op):
            raise InputError(
                f"{name} has the operation {node.op} at {node.name!r}, which is not part of TensorFlow and unknown to a server; "
                "write that layer with keras.ops or TensorFlow operations."
            )


def _nodes(graph: graph_pb2.GraphDef) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def
