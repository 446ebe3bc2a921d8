"""Dense connectivity on TensorFlow without storing what the layers read. Imported only where Keras runs on TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops
from tensorflow.python.eager import record

from keras_deepnets.layers import _tensorflow


def norm_relu_conv(
    joined, maps: Sequence[Any], gamma, beta, moving, kernel, *, epsilon: float, use_batch: bool
) -> tuple[Any, Any, Any]:
    """BN, ReLU and a stride-1 convolution of `joined`, which is `maps` side by side; of all these only `maps` are kept.

    The backward pass joins the maps, normalises and rectifies once more; the batch's statistics are kept, and the convolution's output
    is not needed. The gradient of the maps is given to `joined`, of which they are part.

    Args:
        joined: ``[n, h, w, c]``.
        maps: ``[n, h, w, c_i]`` each, the channels of `joined` in their order.
        gamma: ``[c]`` float32.
        beta: ``[c]`` float32.
        moving: mean and variance, ``[c]`` float32, for when the batch's are not used.
        kernel: ``[k, k, c, filters]`` in the maps' dtype.
        epsilon: added to the variance.
        use_batch: normalise with the batch's statistics.

    Returns:
        The convolution ``[n, h, w, filters]``, and mean and variance of the channels (over the count).
    """
    empty = tf.zeros([0], tf.float32)

    def normalise(images, gamma, beta, mean, variance, training):
        return tf.raw_ops.FusedBatchNormV3(
            x=images, scale=gamma, offset=beta, mean=mean, variance=variance, epsilon=epsilon, is_training=training
        )

    @tf.custom_gradient
    def run(joined, gamma, beta, kernel, mean, variance, *maps):
        # An eager tape would keep every intermediate that it sees.
        with record.stop_recording():
            statistics = (empty, empty) if use_batch else (mean, variance)
            normal = normalise(joined, gamma, beta, *statistics, use_batch)
            if use_batch:
                mean, variance = normal.batch_mean, _over_count(normal.batch_variance, joined)
            outputs = tf.nn.conv2d(tf.nn.relu(normal.y), kernel, 1, "SAME")
        # What the kernel's own gradient reads: devices keep different things here. The third is cuDNN's; oneDNN keeps a mask of the
        # whole activation in it, for a ReLU that it fuses, and does not need it for the BN.
        reserve = normal[3:5] if use_batch else (mean, variance)
        reserve = (*reserve, normal.reserve_space_3 if _tensorflow.has_gpu() else empty)

        def gradient(d_outputs, *_):
            with record.stop_recording():
                return backward(d_outputs)

        def backward(d_outputs):
            images = _joined_after(d_outputs, maps)
            normal = normalise(images, gamma, beta, mean, variance, False).y
            active = tf.nn.relu(normal)
            d_kernel = tf.raw_ops.Conv2DBackpropFilter(
                input=active,
                filter_sizes=kernel.shape,
                out_backprop=d_outputs,
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
            # One after the other, or the recomputed maps of many layers wait for their kernel gradients at a time.
            with tf.control_dependencies([d_kernel]):
                d_active = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(images),
                    filter=kernel,
                    out_backprop=d_outputs,
                    strides=[1, 1, 1, 1],
                    padding="SAME",
                )
            d_norm = tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=tf.raw_ops.ReluGrad(gradients=d_active, features=active),
                x=images,
                scale=gamma,
                reserve_space_1=reserve[0],
                reserve_space_2=reserve[1],
                reserve_space_3=reserve[2],
                epsilon=epsilon,
                is_training=use_batch,
            )
            return (d_norm[0], d_norm[1], d_norm[2], d_kernel, None, None, *(None for _ in maps))

        return (outputs, mean, variance), gradient

    # Values, not variables: the gradient function has nothing to watch then.
    weights = (tf.convert_to_tensor(weight) for weight in (gamma, beta, kernel, *moving))
    return run(joined, *weights, *maps)


def _over_count(variance, images):
    """The variance divided by the count; the kernel's is divided by count - 1."""
    count = tf.cast(tf.reduce_prod(tf.shape(images)[:-1]), tf.float32)
    return variance * ((count - 1.0) / count)


def _joined_after(gradient, maps):
    """`maps` side by side, computed not before `gradient` is there.

    They have been there since the forward pass: without this order they would be joined at once and kept.
    """
    if _tensorflow.inside_xla():
        # XLA drops control dependencies, and would find that the forward pass has computed the same.
        *maps, _ = gen_xla_ops.xla_optimization_barrier([*maps, gradient])
        return tf.concat(maps, -1)
    with tf.control_dependencies([gradient]):
        return tf.concat(maps, -1)
