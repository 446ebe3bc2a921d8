"""Batch normalisation over the images of all replicas that train one network (`layers.replicas`)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_deepnets.layers import replicas


def synchronized_batch_norm(images, gamma, beta, pivot, epsilon: float) -> tuple[Any, Any, Any]:
    """Batch normalisation over the last axis of ``[n, h, w, c]``, with the statistics of all replicas' images.

    Each replica has the same number of images. One sum over the replicas carries both statistics, and its gradient carries theirs.

    Args:
        images: the activation. Its dtype is kept.
        gamma: float32 or float64 ``[c]``.
        beta: ``[c]`` of the same dtype.
        pivot: ``[c]`` of the same dtype, equal on all replicas and near the mean. It keeps the sum of squares exact.
        epsilon: number added to the variance.

    Returns:
        The output, the mean and the variance (divided by the count).
    """
    pivot = tf.stop_gradient(pivot)
    shifted = tf.cast(images, pivot.dtype) - pivot
    own = [tf.reduce_mean(shifted, [0, 1, 2]), tf.reduce_mean(tf.square(shifted), [0, 1, 2])]
    offset, square = tf.unstack(replicas.mean([tf.stack(own)])[0])
    variance = tf.maximum(square - tf.square(offset), 0.0)
    scale = gamma * tf.math.rsqrt(variance + epsilon)
    outputs = (shifted - offset) * scale + beta
    return tf.cast(outputs, images.dtype), tf.stop_gradient(pivot + offset), tf.stop_gradient(variance)
