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
    padding: int | None = None,
    activation: str | None = None,
    gain: float = RELU_GAIN,
    initial_range: float | None = None,
    bias: float = 0.0,
    stddev: float | None = None,
    max_norm: float | None = None,
    name: str | None = None,
    **kwargs: Any,
) -> Any:
    """A convolution with bias and activation: ``[n, h, w, c]`` to ``[n, h', w', filters]``.

    Args:
        x: the input.
        filters: number of output channels.
        kernel_size: side of the square kernel. It must be odd unless `padding` is given.
        strides: 1 or 2.
        padding: zeros on every side, which a layer ``{name}_pad`` adds. Default: symmetric padding, without a layer.
        activation: activation function, or None.
        gain: initial variance of the weights times fan-in.
        initial_range: bound of uniformly distributed initial weights. None: normally distributed weights, by `gain`.
        bias: initial value of all biases.
        stddev: initial standard deviation of the weights, in the place of `gain`.
        max_norm: upper bound of the Euclidean norm of each filter (height × width × channels) after every step. None: no bound.
        name: layer name.
        **kwargs: further arguments of `keras.layers.Conv2D`.
    """
    if padding:
        x = keras.layers.ZeroPadding2D(padding, data_format="channels_last", name=named(f"{name}_pad"))(x)
    return conv2d(
        x,
        filters,
        kernel_size,
        strides=strides,
        padding="symmetric" if padding is None else "valid",
        use_bias=True,
        activation=activation,
        kernel_constraint=norm_constraint(max_norm, 4),
        name=name,
        **(_initial(gain, initial_range, bias, stddev) | kwargs),
    )


def biased_dense(
    x: Any,
    units: int,
    *,
    activation: str | None = None,
    gain: float = RELU_GAIN,
    initial_range: float | None = None,
    bias: float = 0.0,
    stddev: float | None = None,
    max_norm: float | None = None,
    name: str | None = None,
    dtype: Any = None,
) -> Any:
    """A fully connected layer: ``[n, c]`` to ``[n, units]``. The arguments are those of `biased_conv2d`, and `dtype` is the layer's."""
    return keras.layers.Dense(
        units,
        activation,
        kernel_constraint=norm_constraint(max_norm, 2),
        name=named(name),
        dtype=dtype,
        **_initial(gain, initial_range, bias, stddev),
    )(x)


def norm_constraint(max_norm: float | None, dimensions: int) -> keras.constraints.Constraint | None:
    """The constraint that the weights of each output channel have at most the Euclidean norm `max_norm`. None: no constraint.

    Optimizers apply it after every step. It scales the weights that exceed the norm, and it does not touch biases.

    Args:
        max_norm: upper bound of the norm.
        dimensions: number of dimensions of the kernel. The last one is the output channels.
    """
    return None if max_norm is None else keras.constraints.MaxNorm(max_norm, list(range(dimensions - 1)))


def flatten(x: Any, *, name: str | None = None) -> Any:
    """``[n, h, w, c]`` to ``[n, h·w·c]``."""
    return keras.layers.Flatten(data_format="channels_last", name=named(name))(x)


def _initial(gain: float, initial_range: float | None, bias: float, stddev: float | None = None) -> dict[str, Any]:
    kernel: Any = keras.initializers.VarianceScaling(gain, "fan_in", "untruncated_normal")
    if stddev is not None:
        kernel = keras.initializers.RandomNormal(stddev=stddev)
    elif initial_range is not None:
        kernel = keras.initializers.RandomUniform(-initial_range, initial_range)
    return {
        "kernel_initializer": kernel,
        "bias_initializer": keras.initializers.Constant(bias),
    }
