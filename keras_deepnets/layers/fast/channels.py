"""Channels of zeros that bring a number of channels to one that the kernels are fast with."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from keras_deepnets.layers import fast
from keras_deepnets.layers.fast import notes
from keras_deepnets.layers.fast.internals import has_gpu, inside_xla

CHANNEL_MULTIPLE = 16
"""oneDNN's BN and convolutions take two to four times as long, in bfloat16 above all, where the channels are no multiple of this."""


def missing_channels(channels: int) -> int:
    """How many channels of zeros bring the kernels up to speed; none where another compiler or device runs them."""
    if not fast.on("channel_padding") or has_gpu() or inside_xla():
        return 0
    return -channels % CHANNEL_MULTIPLE


def narrow(wide: tf.Tensor, channels: int) -> tf.Tensor:
    """The first `channels` of `wide`, whose others are zeros; who can takes these too and spares the cut (`widened`)."""
    if wide.shape[-1] == channels:
        return wide
    images = wide[..., :channels]
    notes.attach(images, notes.Wide(wide))
    return images


def widened(images: tf.Tensor) -> tf.Tensor:
    """What `images` were cut from where they were in this graph, with more channels, which are zeros; or themselves."""
    note = notes.read(images, notes.Wide)
    return note.tensor if note else images


def widened_pair(images: tf.Tensor, kernel: Any) -> tuple[tf.Tensor, Any]:
    """`widened` images, and a convolution's kernel with zeros for the channels that it does not know."""
    wide = widened(images)
    if wide is images:
        return images, kernel
    missing = wide.shape[-1] - images.shape[-1]
    return wide, tf.pad(tf.cast(tf.convert_to_tensor(kernel), wide.dtype), [[0, 0], [0, 0], [0, missing], [0, 0]])
