"""Anti-aliasing: strided layers compute at stride 1, and a pooling layer subsamples their output."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_deepnets.layers.building import named
from keras_deepnets.layers.pooling import average_pool, max_pool


@keras.saving.register_keras_serializable("keras_deepnets")
class BlurPooling2D(keras.layers.Layer):
    """Blurs an image and keeps every other pixel. The image is mirrored at its border.

    The kernel is the outer product of (1, 2, 1) / 4 with itself. The layer is a depthwise convolution with this kernel and has no weights.
    R. Zhang: "Making Convolutional Networks Shift-Invariant Again", ICML 2019, arXiv:1904.11486, section 3.2 ("Triangle-3").

    Shapes: ``[n, h, w, c]`` to ``[n, ceil(h / 2), ceil(w / 2), c]``. Each side needs at least 2 pixels.
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
    """Pooling by two after a convolution with stride 1: ``"average"`` (2×2 pixels) or ``"blur"``.

    Odd sides are rounded up, as in a strided convolution. Averages at the border cover only existing pixels.
    """
    if kind == "blur":
        return BlurPooling2D(name=named(name))(x)
    return keras.layers.AveragePooling2D(2, 2, "same", data_format="channels_last", name=named(name))(x)


def antialiased_max_pool(x: Any, kind: str, *, name: str) -> Any:
    """The replacement of an ImageNet stem's max pooling, as in timm.

    ``"blur"``: max pooling with stride 1, ``{name}_max``, then the blur. ``"average"``: 2×2 average pooling only, which drops an odd last
    row or column.
    """
    if kind == "blur":
        return BlurPooling2D(name=named(name))(max_pool(x, strides=1, name=f"{name}_max"))
    return average_pool(x, name=name)
