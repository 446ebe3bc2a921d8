"""Resize and pad images for a detector, as torchvision's `GeneralizedRCNNTransform` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

STRIDE = 32
"""The sides of padded images are multiples of it: the stride of the last feature map."""


def resized_size(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Height and width after resizing: the shorter side becomes `min_size`, but the longer side at most `max_size`. Rounded down."""
    scale = min(min_size / min(height, width), max_size / max(height, width))
    return max(1, int(height * scale)), max(1, int(width * scale))


def resized(image: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Bilinear interpolation with half-pixel centres, without anti-aliasing: ``[h, w, 3]`` to float32 ``[height, width, 3]``."""
    import tensorflow as tf

    return tf.image.resize(tf.cast(image, tf.float32), [height, width], method="bilinear", antialias=False)


def padded_side(side: int, stride: int = STRIDE) -> int:
    """The smallest multiple of `stride` that is not smaller than `side`."""
    return -(-side // stride) * stride


def batched(images: Sequence[np.ndarray], min_size: int, max_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Resize images of any sizes and put them into one batch.

    Args:
        images: uint8 ``[h, w, 3]`` each.
        min_size: length of the shorter side in pixels.
        max_size: largest length of the longer side.

    Returns:
        Images float32 ``[n, H, W, 3]`` with values 0–255, padded with zeros at the bottom and at the right, and sizes int32 ``[n, 2]``.
    """
    sizes = [resized_size(image.shape[0], image.shape[1], min_size, max_size) for image in images]
    height, width = (padded_side(max(size[axis] for size in sizes)) for axis in (0, 1))
    batch = np.zeros((len(images), height, width, 3), "float32")
    for place, (image, size) in enumerate(zip(images, sizes, strict=True)):
        batch[place, : size[0], : size[1]] = resized(image, *size)
    return batch, np.asarray(sizes, "int32")


def restored(boxes: np.ndarray, size: Sequence[int], original: Sequence[int]) -> np.ndarray:
    """Boxes in pixels of a resized image to pixels of the original: float32 ``[n, 4]``.

    Args:
        boxes: float32 ``[n, 4]``.
        size: height and width of the resized image.
        original: height and width of the original.
    """
    ratios = np.asarray(original[:2], "float32") / np.asarray(size[:2], "float32")
    return boxes * ratios[[1, 0, 1, 0]]
