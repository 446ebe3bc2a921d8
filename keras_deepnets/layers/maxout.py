"""Maxout: the maximum of several linear pieces as the activation function [Goodfellow et al. 2013, arXiv:1302.4389]."""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops

from keras_deepnets.layers.building import named
from keras_deepnets.layers.unnormalized import biased_conv2d, biased_dense

GAIN = 1.0
"""Preserves the second moment through two pieces.

The maximum and the minimum of two centred, identically distributed variables share it equally.
"""


@keras.saving.register_keras_serializable("keras_deepnets")
class Maxout(keras.layers.Layer):
    """The maximum over `pieces` blocks of consecutive channels: output ``i`` of ``c`` is the largest of channels ``i, i + c, …``.

    The weights of a piece are thus contiguous in the preceding layer. The layer needs only a split and maxima, which every backend and
    TFLite support.

    Shapes: ``[n, …, pieces·c]`` to ``[n, …, c]``.
    """

    def __init__(self, pieces: int = 2, **kwargs: Any):
        """`pieces` is the number of linear pieces."""
        super().__init__(**kwargs)
        self.pieces = pieces

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Checks that `pieces` divides the channels. Raises ValueError otherwise."""
        if input_shape[-1] % self.pieces:
            raise ValueError(f"Maxout: {input_shape[-1]} channels do not divide into pieces={self.pieces}.")

    def call(self, inputs: Any) -> Any:
        """The maximum of the pieces."""
        return functools.reduce(ops.maximum, ops.split(inputs, self.pieces, axis=-1))

    def compute_output_shape(self, input_shape: tuple[Any, ...]) -> tuple[int | None, ...]:
        """The shape of the output."""
        return (*input_shape[:-1], input_shape[-1] // self.pieces)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"pieces": self.pieces}


def maxout_conv2d(
    x: Any,
    filters: int,
    kernel_size: int,
    *,
    padding: int | None = None,
    pieces: int = 2,
    initial_range: float | None = None,
    max_norm: float | None = None,
    name: str,
) -> Any:
    """A maxout convolution from ``[n, h, w, c]`` to ``[n, h', w', filters]``. Its layers are ``{name}_conv`` and ``{name}_out``.

    `padding`, `initial_range` and `max_norm` are those of `biased_conv2d`. With `padding`, a layer ``{name}_conv_pad`` comes first.
    `max_norm` bounds the weights of every piece.
    """
    x = biased_conv2d(
        x,
        pieces * filters,
        kernel_size,
        padding=padding,
        gain=GAIN,
        initial_range=initial_range,
        max_norm=max_norm,
        name=f"{name}_conv",
    )
    return Maxout(pieces, name=named(f"{name}_out"))(x)


def maxout_dense(
    x: Any,
    units: int,
    *,
    pieces: int = 2,
    initial_range: float | None = None,
    max_norm: float | None = None,
    name: str,
) -> Any:
    """A fully connected maxout layer from ``[n, c]`` to ``[n, units]``. Its layers are ``{name}_dense`` and ``{name}_out``.

    `initial_range` and `max_norm` are those of `biased_dense`. `max_norm` bounds the weights of every piece.
    """
    x = biased_dense(x, pieces * units, gain=GAIN, initial_range=initial_range, max_norm=max_norm, name=f"{name}_dense")
    return Maxout(pieces, name=named(f"{name}_out"))(x)
