"""Fused batch normalisation on TensorFlow, and statistics shared by several layers. Imported only if Keras runs on TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from keras_deepnets.layers import fast
from keras_deepnets.layers.fast import notes
from keras_deepnets.layers.fast.channels import missing_channels, narrow
from keras_deepnets.layers.fast.internals import has_gpu, inside_xla

FUSED_DTYPES = frozenset({tf.float32, tf.bfloat16, tf.float16})


def fused_batch_norm(images, gamma, beta, mean, variance, epsilon: float, training: bool) -> tuple[Any, Any, Any]:
    """Batch normalisation over the last axis of ``[n, h, w, c]``.

    The activation keeps its dtype. Statistics and parameters are float32. In training, `mean` and `variance` are ignored, and the batch's
    are returned. The variance is divided by the count, as in Keras.
    """
    known = statistics_of_parts(images) if training else None
    if not known:
        norm, outputs = Norm.of(images, gamma, beta, mean, variance, epsilon, training)
        if training:
            notes.attach(images, notes.Statistics(norm.mean, norm.variance))
        return outputs, norm.mean, norm.variance

    channels = images.shape[-1]
    missing = missing_channels(channels)
    images = tf.pad(images, [[0, 0], [0, 0], [0, 0], [0, missing]]) if missing else images
    vectors = [tf.pad(vector, [[0, missing]]) if missing else vector for vector in (gamma, beta, *known)]

    @tf.custom_gradient
    def run(images, gamma, beta, mean, variance):
        norm = Norm.with_statistics(gamma, beta, mean, variance, epsilon)
        return norm.again(images), lambda d_outputs: (*norm.gradients(images, d_outputs), None, None)

    return narrow(run(images, *vectors), channels), *known


class Norm(NamedTuple):
    """A batch normalisation and the values that its gradient needs."""

    gamma: Any
    beta: Any
    mean: Any
    variance: Any
    reserve: tuple[Any, Any, Any]
    epsilon: float
    use_batch: bool

    @classmethod
    def of(cls, images, gamma, beta, mean, variance, epsilon: float, use_batch: bool) -> tuple[Norm, Any]:
        """The normalisation of `images`, with their own statistics or with `mean` and `variance`, and its outputs."""
        empty = tf.zeros([0], tf.float32)
        done = tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=gamma,
            offset=beta,
            mean=empty if use_batch else mean,
            variance=empty if use_batch else variance,
            epsilon=epsilon,
            is_training=use_batch,
        )
        if use_batch:
            count = tf.cast(tf.reduce_prod(tf.shape(images)[:-1]), tf.float32)
            # The kernel divides the variance by count - 1.
            mean, variance = done.batch_mean, done.batch_variance * ((count - 1.0) / count)
        # Devices reserve different values. The third one is cuDNN's. oneDNN stores a mask of the whole activation there, for a fused ReLU.
        # The gradient of the BN does not read the mask.
        reserve = (done.reserve_space_1, done.reserve_space_2) if use_batch else (mean, variance)
        third = done.reserve_space_3 if has_gpu() else empty
        return cls(gamma, beta, mean, variance, (*reserve, third), epsilon, use_batch), done.y

    @classmethod
    def with_statistics(cls, gamma, beta, mean, variance, epsilon: float) -> Norm:
        """The normalisation with known statistics of the batch. On CPUs only: they reserve exactly these values for the gradient."""
        return cls(gamma, beta, mean, variance, (mean, variance, tf.zeros([0], tf.float32)), epsilon, use_batch=True)

    def again(self, images) -> Any:
        """Normalises the same images without computing statistics."""
        return tf.raw_ops.FusedBatchNormV3(
            x=images,
            scale=self.gamma,
            offset=self.beta,
            mean=self.mean,
            variance=self.variance,
            epsilon=self.epsilon,
            is_training=False,
        ).y

    def gradients(self, images, d_outputs) -> tuple[Any, Any, Any]:
        """The gradients of the images, gamma and beta."""
        done = tf.raw_ops.FusedBatchNormGradV3(
            y_backprop=d_outputs,
            x=images,
            scale=self.gamma,
            reserve_space_1=self.reserve[0],
            reserve_space_2=self.reserve[1],
            reserve_space_3=self.reserve[2],
            epsilon=self.epsilon,
            is_training=self.use_batch,
        )
        return done.x_backprop, done.scale_backprop, done.offset_backprop


def made_of(total: Any, maps: Sequence[Any]) -> None:
    """Notes that `total` is the concatenation of `maps`. Batch statistics are per channel, so those of the maps apply to `total`."""
    notes.attach(total, notes.Parts(tuple(maps)))


def statistics_of_parts(images) -> tuple[Any, Any] | None:
    """Mean and variance (divided by the count) of the channels of concatenated maps. None for other images.

    In a dense block, each layer normalises all preceding maps with statistics of the same batch. Here, the statistics are computed once per
    map. The normalisation then reads its input once instead of three times.
    """
    if not fast.on("shared_statistics") or not notes.read(images, notes.Parts) or has_gpu() or inside_xla():
        return None
    return _statistics(images)


def _statistics(images) -> notes.Statistics:
    if known := notes.read(images, notes.Statistics):
        return known
    if parts := notes.read(images, notes.Parts):
        means, variances = zip(*(_statistics(part) for part in parts.maps), strict=True)
        known = notes.Statistics(tf.concat(means, 0), tf.concat(variances, 0))
    else:
        known = notes.Statistics(*_own_statistics(images))
    notes.attach(images, known)
    return known


def _own_statistics(images) -> tuple[Any, Any]:
    channels = images.shape[-1]
    images = tf.pad(images, [[0, 0], [0, 0], [0, 0], [0, missing_channels(channels)]])
    vector = tf.zeros(images.shape[-1:], tf.float32)
    norm, _ = Norm.of(images, vector, vector, None, None, 1.0, use_batch=True)
    return norm.mean[:channels], norm.variance[:channels]
