"""Layers that stand in for others in an artifact: the same weights and results, in operators that every runtime takes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.layers import Conv2D, MaxPooling2D
from keras_deepnets.layers.convolution import symmetric_padding


class MirrorPaddedMaxPooling2D(MaxPooling2D):
    """`MaxPooling2D` with ``padding="symmetric"`` whose border mirrors the image in place of minus infinity.

    A mirrored pixel never wins over the pixel that it copies, which lies in the same window: the results are the same. Minus
    infinity would stretch the range of an int8 tensor until nothing else can be told apart.
    """

    def call(self, inputs: Any) -> Any:
        """``[n, h, w, c]`` to ``[n, h', w', c]``."""
        pads = [(symmetric_padding(size),) * 2 for size in self.pool_size]
        inputs = ops.pad(inputs, [(0, 0), *pads, (0, 0)], mode="symmetric")
        return ops.max_pool(inputs, self.pool_size, self.strides, "valid", "channels_last")


def substitute(layer: Any, for_device: bool) -> type | None:
    """The class that takes a layer's place in an export, or None: it stays.

    Args:
        layer: a layer of the model.
        for_device: whether the export may be quantised.
    """
    # Keras compiles its own grouped convolution with XLA, which serving builds without XLA refuse; ours is the native op.
    if type(layer) is keras.layers.Conv2D and layer.groups > 1 and layer.data_format == "channels_last":
        return Conv2D
    if for_device and type(layer) is MaxPooling2D and layer.padding == "symmetric":
        return MirrorPaddedMaxPooling2D
    return None
