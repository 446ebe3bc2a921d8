"""Dense connectivity on TensorFlow without storing the inputs of the layers. Imported only if Keras runs on TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from keras_deepnets.layers.fast.channels import missing_channels
from keras_deepnets.layers.fast.convolution import pointwise_gradient_pays, pointwise_kernel_gradient
from keras_deepnets.layers.fast.internals import inside_xla, optimization_barrier, stop_recording
from keras_deepnets.layers.fast.normalization import Norm, statistics_of_parts


def norm_relu_conv(
    joined, maps: Sequence[Any], gamma, beta, moving, kernel, *, epsilon: float, use_batch: bool
) -> tuple[Any, Any, Any]:
    """BN, ReLU and a stride-1 convolution of `joined`, the concatenation of `maps`. For the backward pass, only `maps` are kept.

    The backward pass repeats concatenation, normalisation and ReLU. It reuses the batch's statistics and does not need the convolution's
    output. The gradient of the maps is passed to `joined`, which contains them.

    Args:
        joined: ``[n, h, w, c]``.
        maps: ``[n, h, w, c_i]`` each, the channels of `joined` in order.
        gamma: ``[c]`` float32.
        beta: ``[c]`` float32.
        moving: moving mean and variance, ``[c]`` float32, used if `use_batch` is False.
        kernel: ``[k, k, c, filters]`` in the dtype of the maps.
        epsilon: number added to the variance.
        use_batch: whether to normalise with the batch's statistics.

    Returns:
        The output of the convolution, ``[n, h, w, filters]``, and mean and variance of the channels (divided by the count).
    """
    channels = joined.shape[-1]
    missing = missing_channels(channels)
    known = statistics_of_parts(joined) if use_batch else None
    statistics = known or moving
    # With values instead of variables, the gradient function does not need to watch anything.
    vectors = [tf.convert_to_tensor(vector) for vector in (gamma, beta, *statistics)]
    kernel = tf.convert_to_tensor(kernel)
    if missing:
        # The added channels stay zero in training.
        vectors = [tf.pad(vector, [[0, missing]]) for vector in vectors]
        kernel = tf.pad(kernel, [[0, 0], [0, 0], [0, missing], [0, 0]])
        joined = tf.pad(joined, [[0, 0], [0, 0], [0, 0], [0, missing]])

    @tf.custom_gradient
    def run(joined, gamma, beta, mean, variance, kernel, *maps):
        # An eager tape would keep every intermediate that it sees.
        with stop_recording():
            if known:
                norm = Norm.with_statistics(gamma, beta, mean, variance, epsilon=epsilon)
                normal = norm.again(joined)
            else:
                norm, normal = Norm.of(joined, gamma, beta, mean, variance, epsilon, use_batch)
            outputs = tf.nn.conv2d(tf.nn.relu(normal), kernel, 1, "SAME")

        def gradient(d_outputs, *_):
            with stop_recording():
                images = _joined_after(d_outputs, maps, missing)
                active = tf.nn.relu(norm.again(images))
                d_active, d_kernel = _convolution_gradients(images, active, kernel, d_outputs)
                d_normal = tf.raw_ops.ReluGrad(gradients=d_active, features=active)
                d_joined, d_gamma, d_beta = norm.gradients(images, d_normal)
            return d_joined, d_gamma, d_beta, None, None, d_kernel, *(None for _ in maps)

        return (outputs, norm.mean, norm.variance), gradient

    outputs, mean, variance = run(joined, *vectors, kernel, *maps)
    return outputs, mean[:channels], variance[:channels]


def _convolution_gradients(images, active, kernel, d_outputs) -> tuple[Any, Any]:
    """The gradients of the activation, which has the shape of `images`, and of the kernel."""
    geometry = {"strides": [1, 1, 1, 1], "padding": "SAME"}
    if kernel.shape[0] == 1 and pointwise_gradient_pays(active):
        d_kernel = pointwise_kernel_gradient(active, d_outputs)
    else:
        d_kernel = tf.raw_ops.Conv2DBackpropFilter(
            input=active, filter_sizes=kernel.shape, out_backprop=d_outputs, **geometry
        )
    # Order the two gradients. Otherwise, the recomputed activations of many layers stay in memory, waiting for their kernel gradients.
    with tf.control_dependencies([d_kernel]):
        d_active = tf.raw_ops.Conv2DBackpropInput(
            input_sizes=tf.shape(images), filter=kernel, out_backprop=d_outputs, **geometry
        )
    return d_active, d_kernel


def _joined_after(gradient, maps, missing: int):
    """The concatenation of `maps` and `missing` channels of zeros, computed only after `gradient`.

    The maps exist since the forward pass. Without this order, they would be concatenated at once and kept.
    """
    if inside_xla():
        # XLA drops control dependencies and merges this with the same computation in the forward pass. On the CPU, it first drops barriers
        # as well. A zero that depends on the gradient prevents the merge. (It is one if the gradient is NaN, and so lost anyway.)
        *maps, gradient = optimization_barrier([*maps, gradient])
        zero = tf.cast(tf.math.is_nan(tf.reshape(gradient, [-1])[0]), gradient.dtype)
        return tf.concat([*maps[:-1], maps[-1] + zero], -1)
    with tf.control_dependencies([gradient]):
        if missing:
            shape = tf.concat([tf.shape(maps[0])[:-1], [missing]], 0)
            maps = [*maps, tf.zeros(shape, maps[0].dtype)]
        return tf.concat(maps, -1)
