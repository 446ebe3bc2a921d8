"""Shortcut connections [He et al. 2015, 3.3 and 4.1]: A (zero-padded identity), B (projection where shapes differ), C (always).

Option D is B with average pooling where B would skip pixels. It comes from ResNet-D: T. He et al. 2019, "Bag of Tricks for Image
Classification with Convolutional Neural Networks", CVPR, arXiv:1812.01187, Figure 2c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_deepnets.layers.building import named
from keras_deepnets.layers.convolution import conv2d
from keras_deepnets.layers.normalization import norm_activation
from keras_deepnets.layers.pooling import max_pool


@keras.saving.register_keras_serializable("keras_deepnets")
class ZeroPadShortcut(keras.layers.Layer):
    """Option A: every `strides`-th pixel, with zeros for the missing channels. It has no parameters.

    The zeros are split evenly before and after the channels, as in the published CIFAR checkpoints. The paper does not specify their place.
    A different place only permutes the channels.

    Shapes: ``[n, h, w, c]`` to ``[n, ceil(h / strides), ceil(w / strides), filters]``.
    """

    def __init__(self, filters: int, strides: int = 1, **kwargs: Any):
        """`filters` is the number of output channels, at least the number of input channels. `strides` is the step in pixels."""
        super().__init__(**kwargs)
        self.filters = filters
        self.strides = strides

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Checks that no channels need to be removed. Raises ValueError otherwise."""
        if input_shape[-1] > self.filters:
            raise ValueError(
                f"ZeroPadShortcut: filters={self.filters} is less than the input's {input_shape[-1]} channels; "
                "option A can only add channels. Use shortcut 'B'."
            )

    def call(self, inputs: Any) -> Any:
        """Subsamples and pads."""
        if self.strides > 1:
            inputs = self._subsample(inputs)
        missing = self.filters - inputs.shape[-1]
        return ops.pad(inputs, [(0, 0), (0, 0), (0, 0), (missing // 2, missing - missing // 2)])

    def _subsample(self, inputs: Any) -> Any:
        if keras.backend.backend() == "tensorflow":
            # This selects the same pixels. TensorFlow's strided slice and its gradient are several times slower.
            return ops.average_pool(inputs, 1, self.strides, "valid", "channels_last")
        return inputs[:, :: self.strides, :: self.strides, :]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output."""
        sides = [None if side is None else -(-side // self.strides) for side in input_shape[1:3]]
        return (input_shape[0], *sides, self.filters)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"filters": self.filters, "strides": self.strides}


def zero_padded(x: Any, filters: int, strides: int, name: str, sequence: tuple[str, ...]) -> Any:
    """Option A."""
    if _fits(x, filters, strides):
        return x
    return ZeroPadShortcut(filters, strides, name=named(f"{name}_0_pad"))(x)


def projected_where_needed(x: Any, filters: int, strides: int, name: str, sequence: tuple[str, ...]) -> Any:
    """Option B."""
    return x if _fits(x, filters, strides) else projected(x, filters, strides, name, sequence)


def projected(
    x: Any, filters: int, strides: int, name: str, sequence: tuple[str, ...], *, use_bias: bool = False
) -> Any:
    """Option C: a 1×1 convolution, ``{name}_0_conv``, and the layers of `sequence`."""
    x = conv2d(x, filters, 1, strides=strides, use_bias=use_bias, name=f"{name}_0_conv")
    return norm_activation(x, sequence, name=f"{name}_0")


def subsampled(x: Any, strides: int, *, name: str) -> Any:
    """Every `strides`-th pixel, by max pooling of single pixels, ``{name}_0_pool``."""
    return x if strides == 1 else max_pool(x, 1, strides, name=f"{name}_0_pool")


def pooled(x: Any, filters: int, strides: int, name: str, sequence: tuple[str, ...]) -> Any:
    """Option D: 2×2 average pooling, ``{name}_0_pool``, then a projection with stride 1."""
    if _fits(x, filters, strides):
        return x
    if strides > 1:
        # At odd sizes, the last windows average only the existing pixels.
        pool = keras.layers.AveragePooling2D(
            2, strides, "same", data_format="channels_last", name=named(f"{name}_0_pool")
        )
        x = pool(x)
    return projected(x, filters, 1, name, sequence)


def _fits(x: Any, filters: int, strides: int) -> bool:
    return strides == 1 and x.shape[-1] == filters


SHORTCUTS: dict[str, Callable[..., Any]] = {"A": zero_padded, "B": projected_where_needed, "C": projected, "D": pooled}
"""Maps the kind of shortcut to a function ``(x, filters, strides, name, sequence) -> tensor``."""


def shortcut(x: Any, filters: int, strides: int, *, kind: str, name: str, sequence: tuple[str, ...] = ("bn",)) -> Any:
    """The shortcut of `kind` A, B, C or D, from ``[n, h, w, c]`` to `filters` channels with stride `strides`.

    `sequence` follows the convolution of a projection: BN, or nothing in pre-activation units.
    """
    return SHORTCUTS[kind](x, filters, strides, name, sequence)


def add(shortcut: Any, residual: Any, *, name: str) -> Any:
    """The sum of shortcut and residual branch.

    The shortcut comes first: Keras' graph walk recurses into first inputs, and the graph is shallow along the shortcuts.
    """
    return keras.layers.Add(name=named(name))([shortcut, residual])
