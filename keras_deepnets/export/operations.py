"""What a graph may be made of, if a server that has neither Python nor anybody's own libraries is to run it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    from tensorflow.core.framework import graph_pb2

_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


def check(graph: graph_pb2.GraphDef, name: str) -> None:
    """Raises `InputError` if a graph, or a function that it calls, runs Python or an operation that TensorFlow does not come with.

    Args:
        graph: the graph with its library of functions.
        name: the model's, for the message.
    """
    import tensorflow as tf

    for node in _nodes(graph):
        if node.op in _PYTHON:
            raise InputError(
                f"{name} runs Python at {node.name!r} (tf.py_function or tf.numpy_function), which a server does not have; "
                "write that layer in operations of keras.ops or TensorFlow."
            )
        # Made when TensorFlow was built: what libraries register later is not in it.
        if not hasattr(tf.raw_ops, node.op):
            raise InputError(
                f"{name} has the operation {node.op} at {node.name!r}, which TensorFlow does not come with and a server does not know; "
                "write that layer in operations of keras.ops or TensorFlow."
            )


def _nodes(graph: graph_pb2.GraphDef) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def
