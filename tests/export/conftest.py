"""Networks and pictures for the export tests. Models are made once: building and converting is what takes time."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import layers
from keras_deepnets.export.litert import open_interpreter
from keras_deepnets.models import flat_layers


def unsettle(model, seed=1):
    """Gives every batch normalisation parameters and statistics as training would, far from the initial identity."""
    rng = np.random.default_rng(seed)
    draw = {
        "moving_mean": lambda shape: rng.normal(0, 0.3, shape),
        "moving_variance": lambda shape: rng.uniform(0.5, 2, shape),
        "gamma": lambda shape: rng.uniform(0.5, 1.5, shape),
        "beta": lambda shape: rng.normal(0, 0.3, shape),
    }
    for weight in model.weights:
        if weight.name in draw:
            weight.assign(draw[weight.name](weight.shape))
    return model


def spread_logits(model, images, seed=2):
    """Sets the classifier so that its logits have mean 0 and deviation 1.5 over `images`: neither uniform nor saturated."""
    top = model.layers[-1]
    features = keras.Model(model.input, model.layers[-2].output).predict(images, verbose=0)
    kernel = np.random.default_rng(seed).normal(size=top.kernel.shape)
    logits = features @ kernel
    kernel *= 1.5 / logits.std(0)
    top.kernel.assign(kernel)
    top.bias.assign(-(features @ kernel).mean(0))


def photographs(count, height, width, seed=0):
    """Smooth colour pictures, uint8: what resizing and JPEG do to noise says little about them."""
    coarse = np.random.default_rng(seed).uniform(0, 255, (count, 5, 5, 3))
    return np.asarray(tf.cast(tf.image.resize(coarse, [height, width]), tf.uint8))


def norms(model):
    return [layer.name for layer in flat_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]


def keras_probabilities(model, images):
    return np.asarray(model.predict(images, verbose=0), "float32")


def operators(path):
    """Names of the operators in a file, by parsing it, not by what a runtime made of it; all of them built in."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    assert [code.customCode for code in model.operatorCodes] == [None] * len(model.operatorCodes)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [names[codes[operator.opcodeIndex]] for operator in model.subgraphs[0].operators]


def tensor_types(path):
    return {detail["dtype"] for detail in open_interpreter(model_path=str(path)).get_tensor_details()}


@pytest.fixture(scope="session")
def pictures():
    return photographs(6, 32, 32)


@pytest.fixture(scope="session")
def resnet20(pictures):
    """A real network whose probabilities are neither uniform nor saturated, scaling inside, with labels."""
    keras.utils.set_random_seed(5)
    model = unsettle(kd.ResNet20(include_preprocessing=True))
    spread_logits(model, pictures)
    model.labels = [f"class {number}" for number in range(10)]
    probabilities = keras_probabilities(model, pictures)
    assert probabilities.max(-1).min() > 0.2 and probabilities.max() < 0.95 and probabilities.std(0).min() > 0.01
    return model


@pytest.fixture(scope="session")
def small():
    """Two layers, for what does not depend on depth; expects scaled pixels."""
    keras.utils.set_random_seed(6)
    inputs = keras.Input((16, 16, 3))
    x = layers.conv_bn_relu(inputs, 8, 3, strides=2, name="one")
    x = layers.pool_features(x, "avg")
    model = keras.Model(inputs, layers.classifier(x, 4, "softmax"), name="small")
    unsettle(model)
    scaling = kd.Scaling((120, 110, 100), (60, 60, 70), crop_fraction=1.0)
    spread_logits(model, scaling.apply(photographs(8, 16, 16).astype("float32")))
    model.scaling = scaling
    return model
