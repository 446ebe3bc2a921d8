"""The parts of a detector around its backbone: padding mask, feature pyramid, region proposal network, heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_deepnets import layers
from keras_deepnets.layers.building import named

PYRAMID_INITIALIZER = {"scale": 1.0, "mode": "fan_in", "distribution": "uniform"}


@keras.saving.register_keras_serializable("keras_deepnets")
class PaddingMask(keras.layers.Layer):
    """Zeros in the padding of images: ``[n, h, w, c]`` and sizes, int ``[n, 2]``, to ``[n, h, w, c]``."""

    def call(self, inputs: Any) -> Any:
        """Images and sizes to images."""
        images, sizes = inputs
        sizes = ops.cast(sizes, "int32")
        shape = ops.shape(images)
        rows = ops.arange(shape[1])[None, :] < sizes[:, :1]
        columns = ops.arange(shape[2])[None, :] < sizes[:, 1:]
        inside = ops.logical_and(rows[:, :, None, None], columns[:, None, :, None])
        return ops.where(inside, images, ops.zeros_like(images))

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """The symbolic output."""
        return keras.KerasTensor(inputs[0].shape, inputs[0].dtype)


@keras.saving.register_keras_serializable("keras_deepnets")
class UpsampleTo(keras.layers.Layer):
    """Nearest upsampling of a map to the size of another: ``[n, h, w, c]`` and ``[n, h', w', d]`` to ``[n, h', w', c]``.

    The size at least doubles less one pixel, and at most doubles, if it is unknown when the graph is built.
    """

    def call(self, inputs: Any) -> Any:
        """The map in the size of the second input."""
        x, target = inputs
        for axis in (1, 2):
            x = self._along(x, target, axis)
        return x

    def _along(self, x: Any, target: Any, axis: int) -> Any:
        own, wanted = x.shape[axis], target.shape[axis]
        if own is not None and wanted is not None and not 2 * own - 1 <= wanted <= 2 * own:
            return ops.take(x, ops.arange(wanted) * own // wanted, axis=axis)
        # A repetition has a much faster gradient than a gather.
        x = ops.repeat(x, 2, axis=axis)
        if wanted is not None and wanted == x.shape[axis]:
            return x
        length = ops.shape(target)[axis]
        return x[:, :length] if axis == 1 else x[:, :, :length]

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """The symbolic output."""
        x, target = inputs
        return keras.KerasTensor((x.shape[0], *target.shape[1:3], x.shape[-1]), x.dtype)


def feature_pyramid_network(maps: Mapping[int, Any], channels: int, *, norm: bool) -> dict[int, Any]:
    """Feature maps with the same number of channels at all levels, and one level more (Lin et al. 2017, section 3).

    Args:
        maps: feature map ``[n, h, w, c]`` of each level, ascending.
        channels: number of output channels.
        norm: batch normalisation after each convolution, in the place of biases.

    Returns:
        The map of each level. The last is every second pixel of the one before.
    """

    def convolved(x: Any, kernel_size: int, name: str) -> Any:
        kernel = keras.initializers.VarianceScaling(**PYRAMID_INITIALIZER)
        x = layers.conv2d(x, channels, kernel_size, use_bias=not norm, kernel_initializer=kernel, name=f"{name}_conv")
        return layers.batch_norm(x, name=f"{name}_bn") if norm else x

    found: dict[int, Any] = {}
    above = None
    for level in sorted(maps, reverse=True):
        x = convolved(maps[level], 1, f"fpn_inner{level}")
        if above is not None:
            x = layers.add(x, UpsampleTo(name=named(f"fpn_upsample{level}"))([above, x]), name=f"fpn_add{level}")
        above = x
        found[level] = convolved(x, 3, f"fpn_layer{level}")
    top = max(maps)
    pool = keras.layers.MaxPooling2D(1, strides=2, padding="valid", data_format="channels_last", name=named("fpn_pool"))
    found[top + 1] = pool(found[top])
    return dict(sorted(found.items()))


def region_proposal_network(channels: int, filters: int, anchors: int, depth: int) -> keras.Model:
    """The network that scores and refines anchors (Ren et al. 2015, section 3.1), shared by all feature maps.

    Args:
        channels: channels of the feature maps.
        filters: channels of its 3×3 convolutions.
        anchors: number of anchors per position.
        depth: number of 3×3 convolutions.

    Returns:
        A model: ``[n, h, w, channels]`` to logits ``[n, h, w, anchors]`` and deltas ``[n, h, w, 4·anchors]``.
    """
    x = inputs = keras.Input((None, None, channels))
    for number in range(1, depth + 1):
        x = layers.biased_conv2d(x, filters, 3, stddev=0.01, activation="relu", name=f"rpn_conv{number}")
    logits = layers.biased_conv2d(x, anchors, 1, stddev=0.01, dtype="float32", name="rpn_objectness")
    deltas = layers.biased_conv2d(x, 4 * anchors, 1, stddev=0.01, dtype="float32", name="rpn_deltas")
    return keras.Model(inputs, [logits, deltas], name="rpn")


def two_layer_head(x: Any, units: int = 1024) -> Any:
    """Two fully connected layers (Lin et al. 2017, section 4.2): ``[r, 7, 7, c]`` to ``[r, units]``."""
    x = layers.flatten(x, name="head_flatten")
    for number in (6, 7):
        x = layers.biased_dense(x, units, activation="relu", name=f"head_fc{number}")
    return x


def convolutional_head(x: Any, filters: int = 256, units: int = 1024) -> Any:
    """Four normalised 3×3 convolutions and a fully connected layer (Wu & He 2018, section 5.2): ``[r, 7, 7, c]`` to ``[r, units]``."""
    for number in range(1, 5):
        x = layers.conv_bn_relu(x, filters, 3, name=f"head_conv{number}")
    return layers.biased_dense(layers.flatten(x, name="head_flatten"), units, activation="relu", name="head_fc6")


def predictors(x: Any, classes: int) -> tuple[Any, Any]:
    """Class logits ``[r, classes]`` and deltas ``[r, 4·classes]`` of region features ``[r, c]`` (Girshick 2015, section 2.1)."""
    dense = layers.biased_dense
    logits = dense(x, classes, stddev=0.01, dtype="float32", name="predictions")
    return logits, dense(x, 4 * classes, stddev=0.001, dtype="float32", name="predictions_boxes")
