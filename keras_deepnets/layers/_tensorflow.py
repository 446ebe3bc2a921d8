"""What the fast paths need to know of TensorFlow. Imported only where Keras runs on TensorFlow."""

from __future__ import annotations

import functools

import tensorflow as tf
from tensorflow.python.framework import ops as tf_ops
from tensorflow.python.ops import control_flow_util


def inside_xla() -> bool:
    """Whether the function being traced will be compiled by XLA (``jit_compile=True``)."""
    return not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(tf_ops.get_default_graph())


@functools.cache
def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


@functools.cache
def grouped_convolution_trains() -> bool:
    """Whether the native grouped convolution has a gradient here: tried, once a process, on a tiny tensor.

    TensorFlow's own CPU kernels have none; oneDNN's and cuDNN's have.
    """
    # The gradient op itself: tapes do not record inside `init_scope`.
    with tf.init_scope():
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=[1, 3, 3, 4],
                filter=tf.ones([3, 3, 2, 4]),
                out_backprop=tf.ones([1, 3, 3, 4]),
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True


def grouped_conv2d(images, kernel, strides, padding: str, dilations, groups: int):
    """A grouped convolution that trains everywhere, channels last.

    One native op where it has a gradient; a convolution a group where not, and inside an XLA program on the CPU,
    where the native form compiles to a loop five hundred times slower.
    """
    if grouped_convolution_trains() and (has_gpu() or not inside_xla()):
        return tf.nn.conv2d(images, kernel, strides, padding, dilations=dilations)
    parts = zip(tf.split(images, groups, axis=-1), tf.split(kernel, groups, axis=-1), strict=True)
    return tf.concat(
        [tf.nn.conv2d(part, weights, strides, padding, dilations=dilations) for part, weights in parts], axis=-1
    )


FUSED_DTYPES = frozenset({tf.float32, tf.bfloat16, tf.float16})


def fused_batch_norm(images, gamma, beta, mean, variance, epsilon: float, training: bool):
    """TensorFlow's fused batch normalisation over the last axis of ``[n, h, w, c]``.

    The activation keeps its dtype; statistics and parameters are float32. In training `mean` and `variance` are ignored and the
    returned ones are the batch's, the variance divided by the count (Keras' convention; the kernel's own divides by count - 1).
    """
    empty = tf.zeros([0], tf.float32)
    outputs, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=images,
        scale=gamma,
        offset=beta,
        mean=empty if training else mean,
        variance=empty if training else variance,
        epsilon=epsilon,
        is_training=training,
    )
    if training:
        count = tf.cast(tf.reduce_prod(tf.shape(images)[:-1]), tf.float32)
        batch_variance *= (count - 1.0) / count
    return outputs, batch_mean, batch_variance
