"""Convolution and fully connected layers for networks without batch normalisation.

They have a bias, and the variance of their initial weights is ``gain / fan_in``. No later layer rescales the signal. The fan-out rule of
`layers.conv2d` would shrink it in the first layer, which has only three input channels.
"""

from __future__ import annotations

from typing import Any

import keras

from keras_deepnets.layers.building import named
from keras_deepnets.layers.convolution import conv2d

RELU_GAIN = 2.0
"""Preserves the second moment through a ReLU (He et al. 2015, "Delving Deep into Rectifiers", eq. 10)."""


def biased_conv2d(
    x: Any,
    filters: int,
    kernel_size: int,
    *,
    strides: int = 1,
    activation: str | None = None,
    gain: float = RELU_GAIN,
    bias: float = 0.0,
    stddev: float | None = None,
    name: str | None = None,
    **kwargs: Any,
) -> Any:
    """A convolution with symmetric padding, bias and activation: ``[n, h, w, c]`` to ``[n, h', w', filters]``.

    Args:
        x: the input.
        filters: number of output channels.
        kernel_size: side of the square kernel, odd.
        strides: 1 or 2.
        activation: activation function, or None.
        gain: initial variance of the weights times fan-in.
        bias: initial value of all biases.
        stddev: initial standard deviation of the weights, in the place of `gain`.
        name: layer name.
        **kwargs: further arguments of `keras.layers.Conv2D`.
    """
    return conv2d(
        x,
        filters,
        kernel_size,
        strides=strides,
        use_bias=True,
        activation=activation,
        name=name,
        **(_initial(gain, bias, stddev) | kwargs),
    )


def biased_dense(
    x: Any,
    units: int,
    *,
    activation: str | None = None,
    gain: float = RELU_GAIN,
    bias: float = 0.0,
    name: str | None = None,
) -> Any:
    """A fully connected layer: ``[n, c]`` to ``[n, units]``. The arguments are those of `biased_conv2d`."""
    return keras.layers.Dense(units, activation, name=named(name), **_initial(gain, bias))(x)


def flatten(x: Any, *, name: str | None = None) -> Any:
    """``[n, h, w, c]`` to ``[n, h·w·c]``."""
    return keras.layers.Flatten(data_format="channels_last", name=named(name))(x)


def _initial(gain: float, bias: float, stddev: float | None = None) -> dict[str, Any]:
    kernel: Any = keras.initializers.VarianceScaling(gain, "fan_in", "untruncated_normal")
    return {
        "kernel_initializer": kernel if stddev is None else keras.initializers.RandomNormal(stddev=stddev),
        "bias_initializer": keras.initializers.Constant(bias),
    }
