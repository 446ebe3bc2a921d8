"""Channel attention."""

from __future__ import annotations

from typing import Any

import keras

from keras_deepnets.layers.convolution import conv2d

REDUCTION = 16
_MULTIPLE = 8


def squeezed(channels: int) -> int:
    """Channels of the bottleneck: a sixteenth, rounded to a multiple of eight (timm's rule; the paper's where it divides)."""
    return max(_MULTIPLE, int(channels / REDUCTION + _MULTIPLE / 2) // _MULTIPLE * _MULTIPLE)


def squeeze_excitation(x: Any, *, name: str) -> Any:
    """Scales each channel of ``[n, h, w, c]`` by a number in (0, 1) that depends on the means of all.

    J. Hu, L. Shen, G. Sun: "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507, section 3.
    """
    channels = x.shape[-1]
    y = keras.layers.GlobalAveragePooling2D(keepdims=True, data_format="channels_last", name=f"{name}_squeeze")(x)
    y = conv2d(y, squeezed(channels), 1, use_bias=True, name=f"{name}_1_conv")
    y = keras.layers.Activation("relu", name=f"{name}_relu")(y)
    y = conv2d(y, channels, 1, use_bias=True, name=f"{name}_2_conv")
    y = keras.layers.Activation("sigmoid", name=f"{name}_sigmoid")(y)
    return keras.layers.Multiply(name=f"{name}_scale")([x, y])
