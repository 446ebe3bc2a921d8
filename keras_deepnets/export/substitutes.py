"""Layers that stand in for others in an artifact: the same weights and results, in operators that every runtime takes."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.layers import Conv2D, MaxPooling2D
from keras_deepnets.layers.convolution import same_padding_is_symmetric, symmetric_padding


class EdgePaddedMaxPooling2D(MaxPooling2D):
    """`MaxPooling2D` with ``padding="symmetric"`` whose border repeats the image's edge in place of minus infinity.

    A pixel of the edge lies in every window that reaches beyond it, so that its copies never win over it: the results are the same.
    Minus infinity would stretch the range of an int8 tensor until nothing else can be told apart. The border is made of slices and
    concatenations, which XNNPACK runs; TFLite's own mirroring operator takes a third of an int8 ResNet50 on a CPU.
    """

    def call(self, inputs: Any) -> Any:
        """``[n, h, w, c]`` to ``[n, h', w', c]``."""
        geometry = list(zip(inputs.shape[1:3], self.pool_size, self.strides, strict=True))
        if all(same_padding_is_symmetric(*axis) for axis in geometry):
            return super().call(inputs)
        rows, columns = (symmetric_padding(size) for size in self.pool_size)
        height, width = inputs.shape[1:3]
        inputs = ops.concatenate([inputs[:, :1]] * rows + [inputs] + [inputs[:, height - 1 :]] * rows, axis=1)
        left, right = inputs[:, :, :1], inputs[:, :, width - 1 :]
        inputs = ops.concatenate([left] * columns + [inputs] + [right] * columns, axis=2)
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
        return EdgePaddedMaxPooling2D
    return None
