"""Queries and scopes for which TensorFlow and Keras have no public API."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from keras_deepnets import processor


@functools.cache
def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_logical_devices("GPU"))


@functools.cache
def fuses_slowly() -> bool:
    """Whether a batch normalisation makes a convolution before it slow: with oneDNN, on x86 processors without AVX-512.

    TensorFlow fuses the two. For single images, oneDNN then runs a convolution that scales its outputs one by one, in one thread.
    """
    from tensorflow.python.util import _pywrap_util_port as port

    onednn = getattr(port, "IsMklEnabled", lambda: False)()
    instructions = processor.instructions()
    return onednn and "avx2" in instructions and "avx512f" not in instructions and not has_gpu()


def inside_xla() -> bool:
    """Whether the function being traced will be compiled by XLA (``jit_compile=True``)."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph
    return not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(graph())


def variable_accessed(variable: Any) -> None:
    """Tells gradient tapes that a variable is read."""
    from tensorflow.python.ops import resource_variable_ops

    resource_variable_ops.variable_accessed(variable)


def stop_recording() -> contextlib.AbstractContextManager[None]:
    """A scope in which no gradient tape records."""
    from tensorflow.python.eager import record

    return record.stop_recording()


def record(output: Any, inputs: list[Any], gradient: Callable[[Any], Any]) -> None:
    """Tells gradient tapes how to compute the gradients of `inputs` from that of `output`."""
    from tensorflow.python.eager import record

    record.record_operation("KerasDeepnets", [output], inputs, gradient)


def optimization_barrier(tensors: list[Any]) -> list[Any]:
    """The same tensors. XLA computes all of them before any of them is used."""
    from tensorflow.compiler.tf2xla.ops import gen_xla_ops

    return gen_xla_ops.xla_optimization_barrier(tensors)


def is_deterministic() -> bool:
    """Whether `tf.config.experimental.enable_op_determinism` was called."""
    from tensorflow.python.framework.config import is_op_determinism_enabled

    return bool(is_op_determinism_enabled())


def in_stateless_scope() -> bool:
    """Whether Keras traces without side effects (`keras.StatelessScope`)."""
    from keras.src.backend.common.stateless_scope import in_stateless_scope as in_scope

    return in_scope()


def without_autocast() -> contextlib.AbstractContextManager[Any]:
    """A scope in which Keras gives layers their variables without a cast, whatever the precision of the model."""
    from keras.src.backend.common.variables import AutocastScope

    return AutocastScope(None)


def bound_silence(workers: int, connect: float, heartbeat: float) -> None:
    """Set the times after which TensorFlow reports a silent worker of a `tf.distribute.MultiWorkerMirroredStrategy`.

    Args:
        workers: Number of workers.
        connect: Seconds to wait for workers that connect.
        heartbeat: Seconds without a sign of life.
    """
    from tensorflow.python.eager import context

    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=int(1000 * connect),
        heartbeat_timeout_in_ms=int(1000 * heartbeat),
        coordinated_jobs=[context.coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=workers)],
    )


def running_averages(optimizer: Any) -> dict[int, Any]:
    """The variables with which an optimizer (``use_ema=True``) averages weights, by the identity of the weight."""
    pairs = zip(optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True)
    return {id(weight): average for weight, average in pairs if average is not None}


def create_variables(model: Any, batch: Any) -> None:
    """Create the variables of a compiled model's metrics and optimizer, as its first training step does.

    Args:
        model: Compiled model under JAX.
        batch: A batch of training data.
    """
    import keras
    import numpy as np

    model._symbolic_build(data_batch=keras.tree.map_structure(np.asarray, batch))


def set_layout(variable: Any, layout: Any) -> None:
    """Set how a variable of JAX is placed on several devices. None: it is on one device. The next `assign` places it so."""
    variable._layout = layout
