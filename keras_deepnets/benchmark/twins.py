"""The same network made of stock Keras layers: what the library's speed is measured against."""

from __future__ import annotations

import keras

from keras_deepnets import layers

_COUNTERPARTS = ("Activation", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "MaxPooling2D")


def stock_twin(model: keras.Model) -> keras.Model:
    """A copy of `model` in which every layer that has a stock Keras counterpart is that counterpart.

    Convolutions and poolings get Keras' ``"same"`` padding where ours is symmetric. The weights are copied.
    """

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        for name in _COUNTERPARTS:
            if isinstance(layer, getattr(layers, name)):
                if config.get("padding") == "symmetric":
                    config["padding"] = "same"
                return getattr(keras.layers, name).from_config(config)
        return type(layer).from_config(config)

    twin = keras.models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin
