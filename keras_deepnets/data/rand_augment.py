"""RandAugment [Cubuk et al. 2019]: a few random operations of one strength, drawn anew for each image.

Keras' `RandAugment` draws one operation for a whole batch, and computes all operations to select it. The version in keras-cv takes
its random numbers from the global generator, so a resumed run would see different images. Here the operations of an image are a
function of its seed, and only these operations are computed. Operations and ranges match timm's ``rand-m…-inc1``, which *ResNet
strikes back* used for training.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_deepnets.data.channels import LUMA
from keras_deepnets.data.colour import seeds
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

LARGEST_MAGNITUDE = 10.0
_FILL = 128.0


def check(magnitude: float, operations: float, probability: float) -> None:
    """Raise InputError if a number is out of range."""
    if not 0 <= magnitude <= LARGEST_MAGNITUDE:
        raise InputError(f"rand_augment: magnitude={magnitude} must be in [0, {LARGEST_MAGNITUDE:g}].")
    if operations != int(operations) or not 1 <= operations <= 10:
        raise InputError(f"rand_augment: operations={operations} must be a whole number from 1 to 10.")
    if not 0 <= probability <= 1:
        raise InputError(f"rand_augment: probability={probability} must be in [0, 1].")


def batch(
    images: tf.Tensor,
    draws: tf.Tensor,
    magnitude: float = 9,
    operations: int = 2,
    probability: float = 1.0,
    deviation: float = 0.0,
) -> tf.Tensor:
    """Apply `operations` random operations to each image.

    Args:
        images: uint8 ``[b, h, w, 1 or 3]``.
        draws: float32 ``[b, 2]`` in [0, 1).
        magnitude: Strength, 0 to 10.
        operations: Number of operations, applied in sequence.
        probability: Probability with which each operation is applied.
        deviation: Standard deviation of the strength.
    """
    import tensorflow as tf

    # [b, operations, 4]: operation, sign, whether to apply it, quantile of the strength in a normal distribution.
    numbers = tf.map_fn(
        lambda seed: tf.random.stateless_uniform([int(operations), 4], seed, alg="philox"),
        seeds(draws),
        fn_output_signature=tf.TensorSpec([int(operations), 4], tf.float32),
    )
    strengths = magnitude + deviation * tf.math.ndtri(tf.clip_by_value(numbers[..., 3], 1e-6, 1 - 1e-6))
    strengths = tf.clip_by_value(strengths, 0.0, LARGEST_MAGNITUDE) / LARGEST_MAGNITUDE

    def single(values: tuple[Any, Any, Any]) -> Any:
        image, number, strength = values
        for turn in range(int(operations)):
            chosen = tf.cast(number[turn, 0] * len(OPERATIONS), tf.int32)
            level = tf.where(number[turn, 1] < 0.5, -strength[turn], strength[turn])
            varied = [lambda each=each, level=level, image=image: each(image, level) for each in OPERATIONS.values()]
            image = tf.cond(
                number[turn, 2] < probability,
                lambda chosen=chosen, varied=varied: tf.switch_case(chosen, varied),
                lambda image=image: image,
            )
        return image

    varied = tf.map_fn(
        single, (images, numbers, strengths), fn_output_signature=tf.TensorSpec(images.shape[1:], images.dtype)
    )
    return tf.ensure_shape(varied, images.shape)


def apply(name: str, image: tf.Tensor, level: Any) -> tf.Tensor:
    """Apply one operation of `OPERATIONS` to uint8 ``[h, w, c]``. The level is its signed strength in [-1, 1]."""
    import tensorflow as tf

    return OPERATIONS[name](image, tf.convert_to_tensor(level, tf.float32))


def _rounded(values: Any, like: Any) -> Any:
    import tensorflow as tf

    return tf.ensure_shape(tf.saturate_cast(tf.round(values), like.dtype), like.shape)


def _grey(image: Any) -> Any:
    """Grey version of the image, ``[h, w, 1]`` float32."""
    import tensorflow as tf

    values = tf.cast(image, tf.float32)
    return tf.tensordot(values, tf.constant(LUMA), 1)[..., None] if image.shape[-1] == 3 else values


def _blend(image: Any, other: Any, level: Any) -> Any:
    """Move away from `other` or towards it by up to 90 %."""
    import tensorflow as tf

    return _rounded(other + (1.0 + 0.9 * level) * (tf.cast(image, tf.float32) - other), image)


def _auto_contrast(image: Any, level: Any) -> Any:
    import tensorflow as tf

    values = tf.cast(image, tf.float32)
    low, high = (reduce(values, (0, 1), keepdims=True) for reduce in (tf.reduce_min, tf.reduce_max))
    stretched = (values - low) * 255.0 / tf.maximum(high - low, 1.0)
    return _rounded(tf.where(high > low, stretched, values), image)


def _equalize(image: Any, level: Any) -> Any:
    """Equalise each channel by its cumulative histogram, as PIL does."""
    import tensorflow as tf

    channels = []
    for channel in tf.unstack(tf.cast(image, tf.int32), axis=-1):
        counts = tf.math.bincount(tf.reshape(channel, [-1]), minlength=256, maxlength=256)
        last = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0))
        step = (tf.reduce_sum(counts) - counts[last]) // 255
        table = (tf.cumsum(counts, exclusive=True) + step // 2) // tf.maximum(step, 1)
        table = tf.where(step > 0, tf.clip_by_value(table, 0, 255), tf.range(256))
        channels.append(tf.gather(table, channel))
    return tf.ensure_shape(tf.cast(tf.stack(channels, -1), image.dtype), image.shape)


def _invert(image: Any, level: Any) -> Any:
    return 255 - image


def _posterize(image: Any, level: Any) -> Any:
    """Keep the 4 to 0 highest bits."""
    import tensorflow as tf

    step = tf.bitwise.left_shift(1, 4 + tf.cast(4 * tf.abs(level), tf.int32))
    return tf.cast(tf.cast(image, tf.int32) // step * step, image.dtype)


def _solarize(image: Any, level: Any) -> Any:
    """Invert pixels at least as bright as a threshold, which falls from 256 to 0."""
    import tensorflow as tf

    threshold = 256 - tf.cast(256 * tf.abs(level), tf.int32)
    return tf.where(tf.cast(image, tf.int32) < threshold, image, 255 - image)


def _solarize_add(image: Any, level: Any) -> Any:
    """Add up to 110 to the darker half of the values."""
    import tensorflow as tf

    values = tf.cast(image, tf.int32)
    added = tf.minimum(values + tf.cast(110 * tf.abs(level), tf.int32), 255)
    return tf.cast(tf.where(values < 128, added, values), image.dtype)


def _color(image: Any, level: Any) -> Any:
    return _blend(image, _grey(image), level)


def _contrast(image: Any, level: Any) -> Any:
    import tensorflow as tf

    return _blend(image, tf.round(tf.reduce_mean(_grey(image))), level)


def _brightness(image: Any, level: Any) -> Any:
    return _blend(image, 0.0, level)


def _sharpness(image: Any, level: Any) -> Any:
    """Move away from or towards PIL's smoothed image, whose border equals that of the image."""
    import tensorflow as tf

    values = tf.cast(image, tf.float32)
    kernel = tf.constant([[1, 1, 1], [1, 5, 1], [1, 1, 1]], tf.float32)[..., None, None] / 13.0
    kernel = tf.tile(kernel, [1, 1, image.shape[-1], 1])
    inner = tf.nn.depthwise_conv2d(values[None], kernel, [1, 1, 1, 1], "VALID")[0]
    mask = tf.pad(tf.ones_like(inner), [[1, 1], [1, 1], [0, 0]])
    smooth = tf.where(mask > 0, tf.round(tf.pad(inner, [[1, 1], [1, 1], [0, 0]])), values)
    return _blend(image, smooth, level)


def _affine(image: Any, matrix: tuple[Any, ...]) -> Any:
    """Transform the image: output pixel (x, y) shows input ``(a·x + b·y + c, d·x + e·y + f)``."""
    import tensorflow as tf

    row = tf.stack([tf.cast(value, tf.float32) for value in (*matrix, 0.0, 0.0)])
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=row[None],
        output_shape=tf.shape(image)[:2],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=_FILL,
    )
    return _rounded(moved[0], image)


def _rotate(image: Any, level: Any) -> Any:
    """Rotate by up to 30 degrees around the centre."""
    import tensorflow as tf

    angle = level * math.radians(30)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    middle = (tf.cast(tf.shape(image)[:2], tf.float32) - 1.0) / 2.0
    y, x = middle[0], middle[1]
    return _affine(image, (cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y))


def _shear_x(image: Any, level: Any) -> Any:
    return _affine(image, (1.0, 0.3 * level, 0.0, 0.0, 1.0, 0.0))


def _shear_y(image: Any, level: Any) -> Any:
    return _affine(image, (1.0, 0.0, 0.0, 0.3 * level, 1.0, 0.0))


def _translate_x(image: Any, level: Any) -> Any:
    import tensorflow as tf

    return _affine(image, (1.0, 0.0, 0.45 * level * tf.cast(tf.shape(image)[1], tf.float32), 0.0, 1.0, 0.0))


def _translate_y(image: Any, level: Any) -> Any:
    import tensorflow as tf

    return _affine(image, (1.0, 0.0, 0.0, 0.0, 1.0, 0.45 * level * tf.cast(tf.shape(image)[0], tf.float32)))


OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "auto_contrast": _auto_contrast,
    "equalize": _equalize,
    "invert": _invert,
    "rotate": _rotate,
    "posterize": _posterize,
    "solarize": _solarize,
    "solarize_add": _solarize_add,
    "color": _color,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
}
"""Functions from uint8 ``[h, w, c]`` and a signed strength in [-1, 1] to an image of the same shape."""
