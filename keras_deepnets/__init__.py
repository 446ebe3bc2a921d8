"""Very deep image networks for Keras.

>>> import keras_deepnets as kd
>>> model = kd.ResNet50(weights=None)
"""

from keras_deepnets import data, export, families, layers, training, weights
from keras_deepnets._registration import register_with_keras as _register_with_keras
from keras_deepnets.errors import InputError
from keras_deepnets.families.resnet import (
    PlainNet,
    PlainNet18,
    PlainNet20,
    PlainNet32,
    PlainNet34,
    PlainNet44,
    PlainNet56,
    PlainNet110,
    ResNet,
    ResNet18,
    ResNet20,
    ResNet32,
    ResNet34,
    ResNet44,
    ResNet50,
    ResNet56,
    ResNet101,
    ResNet110,
    ResNet152,
    ResNet1202,
)
from keras_deepnets.registry import ModelInfo, create_model, list_models, model_info
from keras_deepnets.scaling import Scaling
from keras_deepnets.weights import load_weights

__version__ = "0.1.0"

_register_with_keras()
