"""Change the channels of images, convert images between grey and RGB, and between float and integer pixels.

TensorFlow repeats two or three numbers along a short last axis slowly, and multiplies by tiny matrices slowly. The functions here work
on whole rows of pixels, or on several pixels at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as in PIL's "L" mode


def convert_channels(images: tf.Tensor, channels: int) -> tf.Tensor:
    """Convert grey or RGB images, with or without transparency, to ``channels`` channels of the same dtype.

    Args:
        images: ``[..., 1]``, ``[..., 3]``, or one more with an alpha channel, which is dropped.
        channels: 1 or 3.
    """
    import tensorflow as tf

    images = tf.convert_to_tensor(images)
    if images.shape[-1] == channels:
        return images
    present = images.shape[-1] if images.shape[-1] is not None else tf.shape(images)[-1]
    colours = present - (1 - present % 2)  # 2 and 4 channels include alpha
    images = images[..., :colours]
    if channels == 3:
        # Repeat one channel three times, or three channels once. This needs no branch on a count known only at run time.
        images = tf.repeat(images, 3 // colours, axis=-1)
    elif not isinstance(colours, int) or colours == 3:
        luma = tf.constant(LUMA)
        weights = luma if isinstance(colours, int) else tf.cond(colours == 3, lambda: luma, lambda: tf.ones([1]))
        images = to_dtype(tf.tensordot(tf.cast(images, tf.float32), tf.reshape(weights, [-1, 1]), 1), images.dtype)
    images.set_shape([*images.shape[:-1], channels])
    return images


def normalised(images: tf.Tensor, mean: Sequence[float], std: Sequence[float]) -> tf.Tensor:
    """Subtract `mean` from each channel and divide by `std`.

    Args:
        images: ``[..., w, c]`` of any dtype.
        mean: Mean of each channel.
        std: Standard deviation of each channel.

    Returns:
        float32 of the same shape.
    """
    import tensorflow as tf

    values, width = rows(tf.cast(images, tf.float32)), _size(images, -2)
    values = (values - tf.tile(tf.constant(mean, tf.float32), [width])) / tf.tile(tf.constant(std, tf.float32), [width])
    return pixels(values, images)


def rows(images: tf.Tensor) -> tf.Tensor:
    """``[..., w, c]`` as rows of numbers, ``[..., w · c]``."""
    import tensorflow as tf

    sizes = [_size(images, axis) for axis in range(images.shape.rank)]
    return tf.reshape(images, [*sizes[:-2], sizes[-2] * sizes[-1]])


def pixels(values: tf.Tensor, like: tf.Tensor) -> tf.Tensor:
    """Rows of numbers as images of the shape of `like`. The inverse of `rows`."""
    import tensorflow as tf

    return tf.ensure_shape(tf.reshape(values, tf.shape(like)), like.shape)


def mixed(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Multiply each pixel of an image by the image's matrix.

    Args:
        images: float32 ``[b, h, w, c]``.
        matrices: float32 ``[b, c, c]``. Column j holds the weights of the new channel j.

    Returns:
        float32 ``[b, h, w, c]``.
    """
    import tensorflow as tf

    count, channels = _together(images), images.shape[-1]
    several = tf.eye(count)[None, :, None, :, None] * matrices[:, None, :, None, :]
    several = tf.reshape(several, [-1, count * channels, count * channels])
    return pixels(tf.reshape(images, [tf.shape(images)[0], -1, count * channels]) @ several, images)


def means(images: tf.Tensor) -> tf.Tensor:
    """The mean of each channel, float32 ``[b, c]``, of images float32 ``[b, h, w, c]``."""
    import tensorflow as tf

    count, batch, channels = _together(images), tf.shape(images)[0], images.shape[-1]
    several = tf.reduce_mean(tf.reshape(images, [batch, -1, count * channels]), axis=1)
    return tf.reduce_mean(tf.reshape(several, [batch, count, channels]), axis=1)


def ranges(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The smallest and the largest number of each channel of an image ``[h, w, c]``, as ``[c]``."""
    import tensorflow as tf

    count, channels = _together(image), image.shape[-1]
    several = tf.reshape(image, [-1, count * channels])
    reductions = (tf.reduce_min, tf.reduce_max)
    low, high = (reduce(tf.reshape(reduce(several, axis=0), [count, channels]), axis=0) for reduce in reductions)
    return low, high


def _together(images: tf.Tensor) -> int:
    """How many pixels are processed at once. It divides the number of pixels of ``[..., h, w, c]``."""
    height, width = images.shape[-3:-1]
    return 1 if height is None or width is None else math.gcd(height * width, 8)


def _size(images: tf.Tensor, axis: int) -> Any:
    """Length of an axis: a number if it is known, else a scalar."""
    import tensorflow as tf

    return tf.shape(images)[axis] if images.shape[axis] is None else images.shape[axis]


def to_dtype(images: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Round and clip float images if ``dtype`` is an integer type."""
    import tensorflow as tf

    return tf.saturate_cast(tf.round(images), dtype) if dtype.is_integer else tf.cast(images, dtype)
