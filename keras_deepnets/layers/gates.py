"""Highway layers: a transform gate controls how much of the input a layer carries on [Srivastava et al. 2015, section 2]."""

from __future__ import annotations

from typing import Any

import keras

from keras_deepnets.layers.building import named
from keras_deepnets.layers.unnormalized import biased_conv2d, biased_dense


@keras.saving.register_keras_serializable("keras_deepnets")
class HighwayGate(keras.layers.Layer):
    """The output of a highway layer, ``y = H(x)·T(x) + x·(1 - T(x))`` (equation 3), from ``[x, H(x), T(x)]``.

    The carry gate is coupled to the transform gate. The sum is computed as ``x + T·(H - x)``. This saves one product and returns exactly
    `x` if the gate is closed. Preceding ordinary layers, with their own weights and names, compute H and T.

    Shapes: three inputs of the same shape, any ``[n, …]``, to that shape.
    """

    def build(self, input_shape: list[tuple[int | None, ...]]) -> None:
        """Checks that all three inputs have the same shape. Raises ValueError otherwise."""
        if len(input_shape) != 3 or any(tuple(shape) != tuple(input_shape[0]) for shape in input_shape):
            raise ValueError(
                f"HighwayGate: input, transform and gate must have one shape; they have {[tuple(s) for s in input_shape]}. "
                "Change dimensions with a plain layer."
            )

    def call(self, inputs: list[Any]) -> Any:
        """The gated sum."""
        x, transformed, gate = inputs
        return x + gate * (transformed - x)

    def compute_output_shape(self, input_shape: list[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """The shape of the output: the input's."""
        return tuple(input_shape[0])


def highway_conv2d(x: Any, kernel_size: int, *, gate_bias: float, activation: str = "relu", name: str) -> Any:
    """A convolutional highway layer on ``[n, h, w, c]``. H and T have the same receptive field (section 2.1).

    Args:
        x: the input.
        kernel_size: side of both kernels, odd.
        gate_bias: initial bias of the transform gate. If it is negative, the layer initially carries its input (section 2.2).
        activation: activation of the transform H.
        name: prefix of the layers ``{name}_transform``, ``{name}_gate`` and ``{name}_out``.
    """
    channels = x.shape[-1]
    transformed = biased_conv2d(x, channels, kernel_size, activation=activation, name=f"{name}_transform")
    gate = biased_conv2d(x, channels, kernel_size, activation="sigmoid", bias=gate_bias, name=f"{name}_gate")
    # The input comes first: Keras' graph walk recurses into first inputs, and the graph is shallow along the carried input.
    return HighwayGate(name=named(f"{name}_out"))([x, transformed, gate])


def highway_dense(x: Any, *, gate_bias: float, activation: str = "relu", name: str) -> Any:
    """A fully connected highway layer on ``[n, c]``. Arguments and names are those of `highway_conv2d`."""
    units = x.shape[-1]
    transformed = biased_dense(x, units, activation=activation, name=f"{name}_transform")
    gate = biased_dense(x, units, activation="sigmoid", bias=gate_bias, name=f"{name}_gate")
    return HighwayGate(name=named(f"{name}_out"))([x, transformed, gate])
