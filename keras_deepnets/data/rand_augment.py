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

from keras_deepnets.data.channels import LUMA, means, mixed, pixels, ranges, rows, to_dtype
from keras_deepnets.data.colour import seeds
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

LARGEST_MAGNITUDE = 10.0
_FILL = 128


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
    """Rows of numbers as an image like `like`, rounded and clipped."""
    return pixels(to_dtype(values, like.dtype), like)


def _floats(image: Any) -> Any:
    """The image as float32 rows, ``[h, w · c]``."""
    import tensorflow as tf

    return tf.cast(rows(image), tf.float32)


def _blend(image: Any, other: Any, level: Any) -> Any:
    """Move away from `other`, a number or rows, or towards it by up to 90 %."""
    return _rounded(other + (1.0 + 0.9 * level) * (_floats(image) - other), image)


def _auto_contrast(image: Any, level: Any) -> Any:
    import tensorflow as tf

    low, high = (tf.cast(end, tf.float32) for end in ranges(image))
    scale = tf.where(high > low, 255.0 / tf.maximum(high - low, 1.0), 1.0)
    low, width = tf.where(high > low, low, 0.0), tf.shape(image)[1]
    return _rounded((_floats(image) - tf.tile(low, [width])) * tf.tile(scale, [width]), image)


def _equalize(image: Any, level: Any) -> Any:
    """Equalise each channel by its cumulative histogram, as PIL does."""
    import tensorflow as tf

    channels = image.shape[-1]
    # One table for all channels: value v of channel k is at 256 · k + v.
    places = tf.cast(rows(image), tf.int32) + tf.tile(256 * tf.range(channels), [tf.shape(image)[1]])
    counts = tf.math.bincount(tf.reshape(places, [-1]), minlength=256 * channels, maxlength=256 * channels)
    counts = tf.reshape(counts, [channels, 256])
    last = tf.reduce_max(tf.where(counts > 0, tf.range(256), 0), axis=1)
    step = (tf.reduce_sum(counts, axis=1) - tf.gather(counts, last, batch_dims=1))[:, None] // 255
    table = (tf.cumsum(counts, axis=1, exclusive=True) + step // 2) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.clip_by_value(table, 0, 255), tf.range(256))
    return pixels(tf.gather(tf.reshape(tf.cast(table, image.dtype), [-1]), places), image)


def _invert(image: Any, level: Any) -> Any:
    return 255 - image


def _posterize(image: Any, level: Any) -> Any:
    """Keep the 4 to 0 highest bits."""
    import tensorflow as tf

    step = tf.bitwise.left_shift(1, 4 + tf.cast(4 * tf.abs(level), tf.int32))
    return tf.bitwise.bitwise_and(image, tf.cast(256 - step, image.dtype))


def _solarize(image: Any, level: Any) -> Any:
    """Invert pixels at least as bright as a threshold, which falls from 256 to 0."""
    import tensorflow as tf

    threshold = 256 - tf.cast(256 * tf.abs(level), tf.int32)
    bright = tf.cast(image >= tf.cast(tf.minimum(threshold, 255), image.dtype), image.dtype)
    # All bits of a value are changed, or none. tf.where takes four times as long.
    return tf.bitwise.bitwise_xor(image, bright * tf.where(threshold < 256, tf.constant(255, image.dtype), 0))


def _solarize_add(image: Any, level: Any) -> Any:
    """Add up to 110 to the darker half of the values."""
    import tensorflow as tf

    added = tf.cast(110 * tf.abs(level), image.dtype)
    return image + added * tf.cast(image < 128, image.dtype)


def _color(image: Any, level: Any) -> Any:
    import tensorflow as tf

    if image.shape[-1] != 3:  # grey
        return image
    factor = 1.0 + 0.9 * level
    matrix = factor * tf.eye(3) + (1.0 - factor) * tf.constant(LUMA)[:, None]
    return _rounded(rows(mixed(tf.cast(image, tf.float32)[None], matrix[None])[0]), image)


def _contrast(image: Any, level: Any) -> Any:
    import tensorflow as tf

    mean = means(tf.cast(image, tf.float32)[None])[0]
    grey = tf.tensordot(mean, tf.constant(LUMA), 1) if image.shape[-1] == 3 else mean[0]
    return _blend(image, tf.round(grey), level)


def _brightness(image: Any, level: Any) -> Any:
    return _blend(image, 0.0, level)


def _sharpness(image: Any, level: Any) -> Any:
    """Move away from or towards PIL's smoothed image, whose border equals that of the image."""
    import tensorflow as tf

    values, step = _floats(image), image.shape[-1]
    inner = values[1:-1, step:-step]
    three = values[:-2] + values[1:-1] + values[2:]
    nine = three[:, : -2 * step] + three[:, step:-step] + three[:, 2 * step :]
    smooth = tf.round((nine + 4.0 * inner) / 13.0)
    smooth = tf.concat([values[1:-1, :step], smooth, values[1:-1, -step:]], axis=1)
    return _blend(image, tf.concat([values[:1], smooth, values[-1:]], axis=0), level)


def _rotate(image: Any, level: Any) -> Any:
    """Rotate by up to 30 degrees around the centre."""
    import tensorflow as tf

    angle = level * math.radians(30)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    middle = (tf.cast(tf.shape(image)[:2], tf.float32) - 1.0) / 2.0
    y, x = middle[0], middle[1]
    # Output pixel (x, y) shows input (a·x + b·y + c, d·x + e·y + f).
    matrix = (cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y, 0.0, 0.0)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(image, tf.float32)[None],
        transforms=tf.stack(matrix)[None],
        output_shape=tf.shape(image)[:2],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=float(_FILL),
    )
    return _rounded(rows(moved[0]), image)


def _moved(image: Any, pixels_by_row: Any) -> Any:
    """Move each row to the left by a number of pixels, float32 ``[h]``, with bilinear interpolation.

    The result is that of the op that rotates, in a third of the time.
    """
    import tensorflow as tf

    height, width, channels = tf.shape(image)[0], tf.shape(image)[1], image.shape[-1]
    whole = tf.floor(pixels_by_row)
    share, whole = (pixels_by_row - whole)[:, None], tf.cast(whole, tf.int32)[:, None]
    # Outside there are only the fill's pixels: one column of them on each side is enough.
    padded = tf.pad(image, [[0, 0], [1, 1], [0, 0]], constant_values=tf.constant(_FILL, image.dtype))
    columns = tf.clip_by_value(whole + 1 + tf.range(width + 1), 0, width + 1)
    columns = tf.reshape(columns + (width + 2) * tf.range(height)[:, None], [-1])
    near = tf.gather(tf.reshape(padded, [-1, channels]), columns)
    near = tf.cast(tf.reshape(near, [height, (width + 1) * channels]), tf.float32)
    left, right = near[:, :-channels], near[:, channels:]
    return pixels(tf.cast(tf.round(left + share * (right - left)), image.dtype), image)


def _transposed(image: Any) -> Any:
    import tensorflow as tf

    return tf.transpose(image, [1, 0, 2])


def _shear_x(image: Any, level: Any) -> Any:
    import tensorflow as tf

    return _moved(image, 0.3 * level * tf.range(tf.cast(tf.shape(image)[0], tf.float32)))


def _shear_y(image: Any, level: Any) -> Any:
    return _transposed(_shear_x(_transposed(image), level))


def _translate_x(image: Any, level: Any) -> Any:
    import tensorflow as tf

    height, width = tf.shape(image)[0], tf.cast(tf.shape(image)[1], tf.float32)
    return _moved(image, tf.repeat(0.45 * level * width, height))


def _translate_y(image: Any, level: Any) -> Any:
    return _transposed(_translate_x(_transposed(image), level))


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
