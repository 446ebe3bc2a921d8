"""Fused batch normalisation on TensorFlow, and statistics shared by several layers. Imported only if Keras runs on TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_deepnets.layers import fast
from keras_deepnets.layers.fast import notes
from keras_deepnets.layers.fast.channels import missing_channels, narrow
from keras_deepnets.layers.fast.constants import constant, zeros
from keras_deepnets.layers.fast.internals import has_gpu, inside_xla, record, stop_recording

FUSED_DTYPES = frozenset({tf.float32, tf.bfloat16, tf.float16})


def fused_batch_norm(images, gamma, beta, mean, variance, epsilon: float, training: bool) -> tuple[Any, Any, Any]:
    """Batch normalisation over the last axis of ``[n, h, w, c]``.

    The activation keeps its dtype. Statistics and parameters are float32. In training, `mean` and `variance` are ignored, and the batch's
    are returned. The variance is divided by the count, as in Keras.
    """
    if not training:
        norm, outputs = Norm.of(images, gamma, beta, mean, variance, epsilon, False)
        return outputs, norm.mean, norm.variance
    known = statistics_of_parts(images)
    gamma, beta = tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta)
    if not known:
        with stop_recording():
            norm, outputs = Norm.of(images, gamma, beta, None, None, epsilon, True)
        notes.attach(images, notes.Statistics(norm.mean, norm.variance))
        return _recorded(norm, images, outputs), norm.mean, norm.variance

    channels = images.shape[-1]
    missing = missing_channels(channels)
    images = tf.pad(images, [[0, 0], [0, 0], [0, 0], [0, missing]]) if missing else images
    vectors = [tf.pad(vector, [[0, missing]]) if missing else vector for vector in (gamma, beta, *known)]
    norm = Norm.with_statistics(*vectors, epsilon=epsilon)
    with stop_recording(), _graph().gradient_override_map({"FusedBatchNormV3": _KNOWN}):
        outputs = norm.again(images)
    return narrow(_recorded(norm, images, outputs), channels), *known


def _graph() -> tf.Graph:
    return tf.compat.v1.get_default_graph()


def _recorded(norm: Norm, images, outputs) -> Any:
    """`outputs`, with a gradient for tapes. That of the kernel would first trace zeros as the gradients of its other outputs."""
    record(outputs, [images, norm.gamma, norm.beta], lambda d_outputs: norm.gradients(images, d_outputs))
    return outputs


_KNOWN = "KerasDeepnetsKnownStatistics"


@tf.RegisterGradient(_KNOWN)
def _gradient_of_again(op: tf.Operation, d_outputs, *_) -> Any:
    """The gradient of `Norm.again` in a graph that is differentiated as a whole, such as that of a function under a tape."""
    images, *vectors = op.inputs
    norm = Norm.with_statistics(*vectors, epsilon=op.get_attr("epsilon"))
    return *norm.gradients(images, d_outputs), None, None


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
        empty = zeros(0)
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
            # The kernel divides the variance by count - 1.
            mean, variance = done.batch_mean, tf.raw_ops.Mul(x=done.batch_variance, y=_biased(images))
        # Devices reserve different values. The third one is cuDNN's. oneDNN stores a mask of the whole activation there, for a fused ReLU.
        # The gradient of the BN does not read the mask.
        reserve = (done.reserve_space_1, done.reserve_space_2) if use_batch else (mean, variance)
        third = done.reserve_space_3 if has_gpu() else empty
        return cls(gamma, beta, mean, variance, (*reserve, third), epsilon, use_batch), done.y

    @classmethod
    def with_statistics(cls, gamma, beta, mean, variance, *, epsilon: float) -> Norm:
        """The normalisation with known statistics of the batch. On CPUs only: they reserve exactly these values for the gradient."""
        return cls(gamma, beta, mean, variance, (mean, variance, zeros(0)), epsilon, use_batch=True)

    def again(self, images) -> Any:
        """Normalises the same images without computing statistics. Its gradient takes them for numbers that do not depend on the images."""
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


def _biased(images) -> Any:
    """The factor from the variance divided by ``count - 1`` to the one divided by the count of pixels of all `images`."""
    if images.shape.is_fully_defined() and (elements := images.shape.num_elements()):
        count = np.float32(elements // images.shape[-1])
        return constant(float((count - np.float32(1)) / count), tf.float32)
    pixels = tf.raw_ops.FloorDiv(x=tf.size(images, tf.int64), y=constant(images.shape[-1], tf.int64))
    count = tf.cast(pixels, tf.float32)
    return tf.raw_ops.RealDiv(x=tf.raw_ops.Sub(x=count, y=constant(1.0, tf.float32)), y=count)


def moving_average(moving, batch, momentum: float) -> Any:
    """``moving · momentum + batch · (1 - momentum)``."""
    old, new = (constant(factor, moving.dtype) for factor in (momentum, 1.0 - momentum))
    batch = tf.cast(batch, moving.dtype)
    return tf.raw_ops.AddV2(x=tf.raw_ops.Mul(x=moving, y=old), y=tf.raw_ops.Mul(x=batch, y=new))


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
        axis = constant(0, tf.int32)
        known = notes.Statistics(*(tf.raw_ops.ConcatV2(values=parts, axis=axis) for parts in (means, variances)))
    else:
        known = notes.Statistics(*_own_statistics(images))
    notes.attach(images, known)
    return known


def _own_statistics(images) -> tuple[Any, Any]:
    channels = images.shape[-1]
    missing = missing_channels(channels)
    images = tf.pad(images, [[0, 0], [0, 0], [0, 0], [0, missing]]) if missing else images
    vector = zeros(channels + missing)
    norm, _ = Norm.of(images, vector, vector, None, None, 1.0, use_batch=True)
    return (norm.mean[:channels], norm.variance[:channels]) if missing else (norm.mean, norm.variance)
