"""Mixup, CutMix and random erasing as pure functions of a batch and its random numbers.

Keras' layers use a `SeedGenerator`, whose state counts their calls. What an image gets would therefore depend on earlier calls. They
also repeat masks along three channels, which TensorFlow does slowly. Here the numbers of a batch decide everything, and masks cover
whole rows of bytes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from keras_deepnets.data.channels import pixels, rows
from keras_deepnets.data.colour import seeds
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

ERASING_DRAWS = 7
"""Uniform numbers per image: whether to erase, area, aspect ratio, two for the place, two for the seed of the noise."""

_AREA = (0.02, 0.33)
_RATIO = math.log(1 / 0.3)


def mixup(images: tf.Tensor, targets: tf.Tensor, draws: tf.Tensor, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Blend each image and its target with another one of the batch: λ·x + (1 - λ)·x', λ from Beta(α, α) for each image.

    Args:
        images: uint8 ``[b, h, w, c]``.
        targets: float32 ``[b, classes]``.
        draws: float32 ``[b, 2]`` in [0, 1). The first row is the seed of the batch.
        alpha: Parameter of the Beta distribution. 0 leaves images and targets unchanged.
    """
    import tensorflow as tf

    if not alpha:
        return images, targets
    partners, share, _ = _partners(draws, alpha)
    values = rows(tf.cast(images, tf.float32))
    blended = values + (1.0 - share)[:, None, None] * (tf.gather(values, partners) - values)
    return pixels(tf.cast(tf.round(blended), images.dtype), images), _blended(targets, partners, share)


def cutmix(images: tf.Tensor, targets: tf.Tensor, draws: tf.Tensor, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Paste a box of another image of the batch into each image, and mix the targets by the area of the box.

    The area is a share 1 - λ of the image, λ from Beta(α, α). The centre of the box is anywhere in the image, and what lies outside is
    cut off. The arguments are those of `mixup`.
    """
    import tensorflow as tf

    if not alpha:
        return images, targets
    partners, share, centre = _partners(draws, alpha)
    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    sides = tf.floor(size * tf.sqrt(1.0 - share)[:, None])
    first = tf.floor(centre * size) - tf.floor(sides / 2)
    last = tf.minimum(first + sides, size)
    first = tf.maximum(first, 0.0)
    pasted = _within(images, first, last, tf.gather(images, partners))
    return pasted, _blended(targets, partners, 1.0 - tf.reduce_prod(last - first, 1) / tf.reduce_prod(size))


def erase(images: tf.Tensor, draws: tf.Tensor, probability: float) -> tf.Tensor:
    """Fill a box of an image with noise, uniform from 0 to 255 [Zhong et al. 2017, section 3].

    The box covers 2 to 33 % of the area, with an aspect ratio from 3:10 to 10:3 (log-uniform). It is cut to the size of the image.

    Args:
        images: uint8 ``[b, h, w, c]``.
        draws: float32 ``[b, ERASING_DRAWS]`` in [0, 1).
        probability: Share of the images that get a box.
    """
    import tensorflow as tf

    if not 0 <= probability <= 1:
        raise InputError(f"random_erasing: probability={probability} must be in [0, 1].")
    chosen = tf.where(draws[:, 0] < probability)
    some, numbers = tf.gather_nd(images, chosen), tf.gather_nd(draws, chosen)
    size = tf.cast(tf.shape(images)[1:3], tf.float32)
    area = (_AREA[0] + (_AREA[1] - _AREA[0]) * numbers[:, 1]) * tf.reduce_prod(size)
    ratio = tf.exp(_RATIO * (2.0 * numbers[:, 2] - 1.0))
    sides = tf.sqrt(tf.stack([area * ratio, area / ratio], axis=1))
    sides = tf.clip_by_value(tf.round(sides), 1.0, size)
    first = tf.floor(numbers[:, 3:5] * (size - sides + 1.0))
    erased = _within(some, first, first + sides, _noise(tf.shape(some), seeds(draws[0, 5:])))
    return pixels(tf.tensor_scatter_nd_update(images, chosen, erased), images)


def _partners(draws: Any, alpha: float) -> tuple[Any, Any, Any]:
    """Another image for each one, int32 ``[b]``; λ, float32 ``[b]``; two uniform numbers for each image, float32 ``[b, 2]``."""
    import tensorflow as tf

    count, seed = tf.shape(draws)[0], seeds(draws[0])
    one, two, three = tf.unstack(tf.random.split(seed, 3, alg="philox"))
    partners = tf.random.experimental.stateless_shuffle(tf.range(count), one, alg="philox")
    # Float64, because numbers of a gamma distribution with a small α are often tiny.
    powers = tf.random.stateless_gamma([2, count], two, tf.constant(alpha, tf.float64), dtype=tf.float64)
    share = tf.math.divide_no_nan(powers[0], powers[0] + powers[1])
    return partners, tf.cast(share, tf.float32), tf.random.stateless_uniform([count, 2], three, alg="philox")


def _blended(targets: Any, partners: Any, share: Any) -> Any:
    import tensorflow as tf

    return share[:, None] * targets + (1.0 - share)[:, None] * tf.gather(targets, partners)


def _noise(shape: Any, seed: Any) -> Any:
    """Uniform bytes, uint8 of a shape."""
    import tensorflow as tf

    count = tf.reduce_prod(shape)
    words = tf.random.stateless_uniform([(count + 3) // 4], seed, None, None, tf.int32, alg="philox")
    return tf.reshape(tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:count], shape)


def _within(images: Any, first: Any, last: Any, others: Any) -> Any:
    """`others` from row and column `first` to before `last`, both float32 ``[b, 2]``, and `images` elsewhere. All images are uint8."""
    import tensorflow as tf

    shape = tf.shape(images)
    inside = []
    for axis in range(2):
        places = tf.range(tf.cast(shape[1 + axis], tf.float32))
        inside.append((places >= first[:, axis, None]) & (places < last[:, axis, None]))
    masks = [tf.cast(mask, tf.uint8) * 255 for mask in inside]
    mask = tf.bitwise.bitwise_and(masks[0][:, :, None], tf.repeat(masks[1], shape[3], axis=1)[:, None, :])
    # Selecting bits takes a quarter of the time of tf.where.
    kept, differing = rows(images), tf.bitwise.bitwise_xor(rows(images), rows(others))
    return pixels(tf.bitwise.bitwise_xor(kept, tf.bitwise.bitwise_and(differing, mask)), images)
