"""How training images are varied: policies by name, each a row of one small registry.

A policy is a pure function of the image and of a few uniform random numbers that the pipeline draws for it from
(seed, epoch). The same numbers give the same image, on any machine, in any order of execution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class Policy:
    """One way to vary training images.

    Attributes:
        name: what `get` knows it by.
        draws: how many uniform random numbers in [0, 1) it takes for each image.
        window: from height, width (int32 scalars) and draws (float32 ``[draws]``) to the part of the original image that is
            resized to the network's size: top, left, height, width. None: the evaluation view of the whole image.
        batch: from images uint8 ``[b, h, w, c]`` and draws float32 ``[b, draws]`` to images of the same shape and dtype,
            after they were brought to the network's size. None: nothing.
        source: where it comes from.
    """

    name: str
    draws: int = 0
    window: Callable[[Any, Any, Any], tuple[Any, Any, Any, Any]] | None = None
    batch: Callable[[Any, Any], Any] | None = None
    source: str = ""


def crop_and_flip(images: tf.Tensor, draws: tf.Tensor, padding: int = 4, flip: bool = True) -> tf.Tensor:
    """Pads with zeros, crops at random back to the same size, mirrors half of the images.

    Args:
        images: ``[b, h, w, c]``.
        draws: float32 ``[b, 3]`` in [0, 1): vertical and horizontal offset, mirroring.
        padding: pixels on each side.
        flip: whether to mirror.
    """
    import tensorflow as tf

    height, width = tf.shape(images)[1], tf.shape(images)[2]
    offsets = tf.cast(draws[:, :2] * (2 * padding + 1), tf.int32)
    rows = offsets[:, :1] + tf.range(height)
    columns = tf.range(width)
    if flip:
        columns = tf.where(draws[:, 2:3] < 0.5, columns, width - 1 - columns)
    columns = offsets[:, 1:2] + columns
    padded = tf.pad(images, [[0, 0], [padding, padding], [padding, padding], [0, 0]])
    cropped = tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
    return tf.ensure_shape(cropped, images.shape)


def flip(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Mirrors the images ``[b, h, w, c]`` whose last draw is at least one half."""
    import tensorflow as tf

    return tf.where(draws[:, -1, None, None, None] < 0.5, images, images[:, :, ::-1])


def shift_and_rotate(images: tf.Tensor, draws: tf.Tensor, pixels: float = 2, degrees: float = 10) -> tf.Tensor:
    """Moves by up to ``pixels`` and turns by up to ``degrees`` around the centre; what comes in is black.

    Args:
        images: ``[b, h, w, c]``.
        draws: float32 ``[b, 3]`` in [0, 1): vertical and horizontal shift, angle.
        pixels: largest shift.
        degrees: largest angle.
    """
    import tensorflow as tf

    from keras_deepnets.data.transforms import to_dtype

    height, width = tf.shape(images)[1], tf.shape(images)[2]
    spread = 2 * draws - 1
    down, right, angle = pixels * spread[:, 0], pixels * spread[:, 1], math.radians(degrees) * spread[:, 2]
    cosine, sine = tf.cos(angle), tf.sin(angle)
    middle_y, middle_x = tf.cast(height - 1, tf.float32) / 2, tf.cast(width - 1, tf.float32) / 2
    # The op maps output to input coordinates: rotate about the middle, then add the shift.
    shift_x = middle_x - cosine * middle_x + sine * middle_y + right
    shift_y = middle_y - sine * middle_x - cosine * middle_y + down
    zeros = tf.zeros_like(angle)
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=tf.cast(images, tf.float32),
        transforms=tf.stack([cosine, -sine, shift_x, sine, cosine, shift_y, zeros, zeros], axis=1),
        output_shape=tf.stack([height, width]),
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )
    return tf.ensure_shape(to_dtype(moved, images.dtype), images.shape)


def random_resized_window(height: Any, width: Any, draws: Any, tries: int = 10) -> tuple[Any, Any, Any, Any]:
    """A window of 8–100 % of the area and of proportions 3:4 to 4:3, log-uniform.

    As in Inception's training and torchvision's RandomResizedCrop: of ten windows the first that fits; else the central one
    whose proportions are the nearest allowed.

    Args:
        height: of the image, int32 scalar.
        width: of the image, int32 scalar.
        draws: float32 ``[2]`` or more in [0, 1).
        tries: how many windows are tried.

    Returns:
        top, left, height, width as int32 scalars.
    """
    import tensorflow as tf

    seed = tf.cast(draws[:2] * 2.0**24, tf.int32)
    numbers = tf.random.stateless_uniform([tries, 4], seed, alg="philox")
    size = tf.cast(tf.stack([height, width]), tf.float32)
    area = size[0] * size[1] * (0.08 + 0.92 * numbers[:, 0])
    ratio = tf.exp(math.log(4 / 3) * (2 * numbers[:, 1] - 1))
    windows = tf.round(tf.sqrt(tf.stack([area / ratio, area * ratio], axis=1)))
    fits = tf.reduce_all((windows >= 1) & (windows <= size), axis=1)
    first = tf.argmax(fits, output_type=tf.int32)
    fallback = tf.stack(
        [tf.minimum(size[0], tf.round(size[1] * 4 / 3)), tf.minimum(size[1], tf.round(size[0] * 4 / 3))]
    )
    any_fits = fits[first]
    window = tf.where(any_fits, windows[first], fallback)
    places = tf.where(any_fits, numbers[first, 2:], 0.5)
    corner = tf.cast(tf.floor(places * (size - window + tf.cast(any_fits, tf.float32))), tf.int32)
    window = tf.cast(window, tf.int32)
    return corner[0], corner[1], window[0], window[1]


_POLICIES = {
    policy.name: policy
    for policy in (
        Policy("pad_crop_flip", 3, batch=crop_and_flip, source="CIFAR: He et al. 2015, section 4.2"),
        Policy("shift", 3, batch=shift_and_rotate, source="digits: no mirroring, small moves and turns"),
        Policy(
            "random_resized_crop_flip",
            3,
            window=random_resized_window,
            batch=flip,
            source="ImageNet: Szegedy et al. 2014, section 6; the scheme of fb.resnet.torch and torchvision",
        ),
    )
}
_NONE = Policy("none")


def policies() -> list[str]:
    """The names of the augmentation policies."""
    return list(_POLICIES)


def register(policy: Policy) -> Policy:
    """Adds a policy under its name; raises `InputError` when the name is taken."""
    if policy.name in _POLICIES or policy.name == _NONE.name:
        raise InputError(f"augmentation policy {policy.name!r} is registered already; give it another name.")
    _POLICIES[policy.name] = policy
    return policy


def get(policy: str | Policy | None) -> Policy:
    """The policy of a name; a policy is returned as it is, None and "none" mean no augmentation.

    Raises:
        InputError: an unknown name.
    """
    if isinstance(policy, Policy):
        return policy
    if policy is None or policy == _NONE.name:
        return _NONE
    if policy not in _POLICIES:
        raise InputError(f"augment={policy!r} is unknown; choose None or one of {', '.join(_POLICIES)}.")
    return _POLICIES[policy]
