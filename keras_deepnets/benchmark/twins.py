"""Build the same network from stock Keras layers, as a baseline for speed."""

from __future__ import annotations

import keras

from keras_deepnets import layers

_COUNTERPARTS = ("Activation", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "MaxPooling2D")


def stock_twin(model: keras.Model) -> keras.Model:
    """Copy `model` and replace every layer that has a stock Keras counterpart by that counterpart.

    Convolutions and poolings with paddings of this library get Keras' ``"same"`` padding. The weights are copied.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        for name in _COUNTERPARTS:
            if isinstance(layer, getattr(layers, name)):
                if config.get("padding") in ("symmetric", "ceil"):
                    config["padding"] = "same"
                return getattr(keras.layers, name).from_config(config)
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin
