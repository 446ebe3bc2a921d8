"""Random colour changes: brightness, contrast, saturation, and shifts along the principal components of the colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_deepnets.data.channels import LUMA, means, mixed, pixels, rows, to_dtype

if TYPE_CHECKING:
    import tensorflow as tf

JITTER_DRAWS = 4
"""Uniform numbers per image: the order and three factors."""

_ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))

# For ImageNet's RGB values in [0, 1]: square roots of the eigenvalues, and eigenvectors in columns, from fb.resnet.torch.
_DEVIATIONS = (0.2175, 0.0188, 0.0045)
_COMPONENTS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def jitter(images: tf.Tensor, draws: tf.Tensor, strength: float = 0.4) -> tf.Tensor:
    """Change brightness, contrast and saturation of each image in random order, each by a factor of 1 ± `strength`.

    Each change is a blend. Brightness blends with black, contrast with the mean grey of the image, saturation with the grey of each
    pixel.

    Args:
        images: uint8 ``[b, h, w, 3]``, or ``[b, h, w, 1]``, which has no saturation.
        draws: float32 ``[b, 4]`` in [0, 1).
        strength: The factors are uniform in ``[max(0, 1 - strength), 1 + strength]``.
    """
    import tensorflow as tf

    if images.shape[-1] != 3:
        return _grey_jitter(images, draws, strength)
    orders = tf.gather(tf.constant(_ORDERS), tf.cast(draws[:, 0] * len(_ORDERS), tf.int32))
    low = max(0.0, 1.0 - strength)
    factors = low + (1.0 + strength - low) * draws[:, 1:4]
    values, luma = tf.cast(images, tf.float32), tf.constant(LUMA)[:, None]
    for turn in range(3):
        kind = orders[:, turn, None]
        factor = tf.gather(factors, kind, batch_dims=1)
        # A blend with the grey of each pixel is a matrix for the colours. A blend with the mean grey adds one number.
        matrices = factor[:, :, None] * tf.eye(3) + tf.where(kind == 2, 1.0 - factor, 0.0)[:, :, None] * luma
        grey = tf.where(kind == 1, 1.0 - factor, 0.0) * (means(values) @ luma)
        values = mixed(values, matrices) + grey[:, :, None, None]
        values = tf.clip_by_value(values, 0.0, 255.0)
    return tf.cast(tf.round(values), images.dtype)


def _grey_jitter(images: tf.Tensor, draws: tf.Tensor, strength: float) -> tf.Tensor:
    """`jitter` for grey images, which have no saturation."""
    import tensorflow as tf

    return jitter(tf.repeat(images, 3, -1), draws, strength)[..., :1]


def lighting(images: tf.Tensor, draws: tf.Tensor, deviation: float = 0.1) -> tf.Tensor:
    """Add random multiples of the principal components of ImageNet's colours to all pixels of an image.

    Args:
        images: uint8 ``[b, h, w, 3]``. Grey images are returned unchanged.
        draws: float32 ``[b, 2]`` in [0, 1), the seed of three normal numbers per image.
        deviation: Standard deviation of these numbers.
    """
    import tensorflow as tf

    if images.shape[-1] != 3:
        return images
    numbers = deviation * normal(draws, 3)
    shifts = 255.0 * tf.einsum("bi,ci->bc", numbers * tf.constant(_DEVIATIONS), tf.constant(_COMPONENTS))
    width = tf.shape(images)[2]
    shifted = rows(tf.cast(images, tf.float32)) + tf.tile(shifts, [1, width])[:, None, :]
    return pixels(to_dtype(shifted, images.dtype), images)


def seeds(draws: tf.Tensor) -> tf.Tensor:
    """Seeds for stateless operations, int32 ``[..., 2]``, from uniform numbers ``[..., 2]`` in [0, 1)."""
    import tensorflow as tf

    return tf.cast(draws[..., :2] * 2.0**24, tf.int32)


def normal(draws: tf.Tensor, count: int) -> tf.Tensor:
    """Normal numbers, float32 ``[b, count]``. The draws ``[b, 2]`` give each row a separate seed."""
    import tensorflow as tf

    return tf.map_fn(
        lambda seed: tf.random.stateless_normal([count], seed, alg="philox"),
        seeds(draws),
        fn_output_signature=tf.TensorSpec([count], tf.float32),
    )
