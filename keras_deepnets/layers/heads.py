"""Global pooling and the classifier."""

from __future__ import annotations

from typing import Any

import keras

from keras_deepnets.layers.building import named

POOLINGS = ("avg", "max")


def pool_features(x: Any, pooling: str, *, dtype: str | None = None) -> Any:
    """Global pooling of ``[n, h, w, c]`` to ``[n, c]``. `pooling` is ``"avg"`` or ``"max"``; `dtype` overrides the policy."""
    layer = keras.layers.GlobalAveragePooling2D if pooling == "avg" else keras.layers.GlobalMaxPooling2D
    return layer(name=named(f"{pooling}_pool"), data_format="channels_last", dtype=dtype)(x)


def classifier(
    x: Any, classes: int, activation: Any, *, kernel_constraint: Any = None, name: str = "predictions"
) -> Any:
    """A fully connected layer to ``[n, classes]``, after average pooling if `x` is a feature map.

    It computes in float32 under every policy. `kernel_constraint` is that of `keras.layers.Dense`.
    """
    if len(x.shape) == 4:
        x = pool_features(x, "avg", dtype="float32")
    # Uniform with variance 1 / (3·fan_in): the default of the papers' own code.
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    return keras.layers.Dense(
        classes,
        activation,
        kernel_initializer=initializer,
        kernel_constraint=kernel_constraint,
        dtype="float32",
        name=named(name),
    )(x)
