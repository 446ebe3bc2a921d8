"""Padding with channels of zeros, up to a number of channels with fast kernels."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_deepnets.layers import fast
from keras_deepnets.layers.fast import notes
from keras_deepnets.layers.fast.internals import has_gpu, inside_xla

CHANNEL_MULTIPLE = 16
"""oneDNN's BN and convolutions take two to four times as long if the number of channels is not a multiple of this.

The difference is largest in bfloat16.
"""


def missing_channels(channels: int) -> int:
    """Number of zero channels to add for fast kernels. It is 0 if a different compiler or device runs the kernels."""
    if not fast.on("channel_padding") or has_gpu() or inside_xla():
        return 0
    return -channels % CHANNEL_MULTIPLE


def narrow(wide: tf.Tensor, channels: int) -> tf.Tensor:
    """The first `channels` channels of `wide`; its other channels are zeros.

    Operations that can use the zero channels avoid the cut with `widened`.
    """
    if wide.shape[-1] == channels:
        return wide
    images = wide[..., :channels]
    notes.attach(images, notes.Wide(wide))
    return images


def widened(images: tf.Tensor) -> tf.Tensor:
    """The wider tensor, with additional zero channels, that `images` were cut from in this graph, or `images`."""
    note = notes.read(images, notes.Wide)
    return note.tensor if note else images


def widened_pair(images: tf.Tensor, kernel: Any) -> tuple[tf.Tensor, Any]:
    """`widened` images, and the kernel of a convolution with zeros for the additional channels."""
    wide = widened(images)
    if wide is images:
        return images, kernel
    missing = wide.shape[-1] - images.shape[-1]
    return wide, tf.pad(tf.cast(tf.convert_to_tensor(kernel), wide.dtype), [[0, 0], [0, 0], [0, missing], [0, 0]])
