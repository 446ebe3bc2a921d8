"""Anti-aliasing: what strides is computed at every pixel and pooled, instead of at every other pixel."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_deepnets.layers.building import named
from keras_deepnets.layers.pooling import average_pool, max_pool


@keras.saving.register_keras_serializable("keras_deepnets")
class BlurPooling2D(keras.layers.Layer):
    """Every other pixel of the image blurred by the outer product of (1, 2, 1) / 4 with itself; the image is mirrored at its border.

    R. Zhang: "Making Convolutional Networks Shift-Invariant Again", ICML 2019, arXiv:1904.11486, section 3.2 ("Triangle-3"). A depthwise
    convolution with a fixed kernel: no weights.

    Shapes: ``[n, h, w, c]`` to ``[n, ceil(h / 2), ceil(w / 2), c]``, sides of 2 pixels and more.
    """

    def call(self, inputs: Any) -> Any:
        """Blurs and subsamples."""
        inputs = ops.pad(inputs, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="reflect")
        kernel = np.outer([0.25, 0.5, 0.25], [0.25, 0.5, 0.25])[:, :, None, None].repeat(inputs.shape[-1], 2)
        kernel = ops.convert_to_tensor(kernel, inputs.dtype)
        return ops.depthwise_conv(inputs, kernel, 2, "valid", "channels_last")

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output."""
        sides = [None if side is None else -(-side // 2) for side in input_shape[1:3]]
        return (input_shape[0], *sides, input_shape[-1])


def antialiased(x: Any, kind: str, *, name: str) -> Any:
    """Pooling by two of what a convolution computed at every pixel: ``"average"`` of 2×2 pixels or ``"blur"``.

    Odd sides are rounded up, as a strided convolution does; averages at the border are of the pixels that there are.
    """
    if kind == "blur":
        return BlurPooling2D(name=named(name))(x)
    return keras.layers.AveragePooling2D(2, 2, "same", data_format="channels_last", name=named(name))(x)


def antialiased_max_pool(x: Any, kind: str, *, name: str) -> Any:
    """What takes the place of an ImageNet stem's max pooling, as timm has it.

    ``"blur"``: max pooling at every pixel, ``{name}_max``, then the blur. ``"average"``: averages of 2×2 pixels alone; an odd last row or
    column is left out.
    """
    if kind == "blur":
        return BlurPooling2D(name=named(name))(max_pool(x, strides=1, name=f"{name}_max"))
    return average_pool(x, name=name)
