"""Channel attention."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_deepnets.layers.building import named
from keras_deepnets.layers.convolution import conv2d

RATIO = 1 / 16
_MULTIPLE = 8


def squeezed(channels: int, ratio: float = RATIO) -> int:
    """Channels of the bottleneck: a sixteenth, rounded to a multiple of eight.

    This is timm's rule. It agrees with the paper's rule if the division has no remainder.
    """
    return max(_MULTIPLE, int(channels * ratio + _MULTIPLE / 2) // _MULTIPLE * _MULTIPLE)


def squeeze_excitation(x: Any, *, ratio: float = RATIO, name: str) -> Any:
    """Scales each channel of ``[n, h, w, c]`` by a number in (0, 1) that depends on the means of all channels.

    The bottleneck between means and scales has `ratio` times as many channels.

    J. Hu, L. Shen, G. Sun: "Squeeze-and-Excitation Networks", CVPR 2018, arXiv:1709.01507, section 3.
    """
    channels = x.shape[-1]
    y = keras.layers.GlobalAveragePooling2D(keepdims=True, data_format="channels_last", name=named(f"{name}_squeeze"))(
        x
    )
    y = conv2d(y, squeezed(channels, ratio), 1, use_bias=True, name=f"{name}_1_conv")
    y = keras.layers.Activation("relu", name=named(f"{name}_relu"))(y)
    y = conv2d(y, channels, 1, use_bias=True, name=f"{name}_2_conv")
    y = keras.layers.Activation("sigmoid", name=named(f"{name}_sigmoid"))(y)
    return keras.layers.Multiply(name=named(f"{name}_scale"))([x, y])


def neighbours(channels: int) -> int:
    """Number of channels that a channel's gate depends on: ``(log2(channels) + 1) / 2``, made odd, and at least 3.

    Section 3.2 of the paper, with γ = 2 and b = 1.
    """
    size = int((math.log2(channels) + 1) / 2)
    return max(size + 1 - size % 2, 3)


def efficient_channel_attention(x: Any, *, name: str) -> Any:
    """Scales each channel of ``[n, h, w, c]`` by a number in (0, 1) that depends on the means of the neighbouring channels.

    Q. Wang, B. Wu, P. Zhu, P. Li, W. Zuo, Q. Hu: "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks", CVPR 2020,
    arXiv:1910.03151, section 3.2. It is one convolution along the channels, ``{name}_conv``, without a bias.
    """
    channels = x.shape[-1]
    y = keras.layers.GlobalAveragePooling2D(data_format="channels_last", name=named(f"{name}_squeeze"))(x)
    y = keras.layers.Reshape((channels, 1), name=named(f"{name}_sequence"))(y)
    # Uniform with variance 1 / (3·fan_in): the default of the paper's own code.
    y = keras.layers.Conv1D(
        1,
        neighbours(channels),
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform"),
        data_format="channels_last",
        name=named(f"{name}_conv"),
    )(y)
    y = keras.layers.Activation("sigmoid", name=named(f"{name}_sigmoid"))(y)
    y = keras.layers.Reshape((1, 1, channels), name=named(f"{name}_gate"))(y)
    return keras.layers.Multiply(name=named(f"{name}_scale"))([x, y])
