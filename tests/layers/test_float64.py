"""Layers with the policy float64 compute in float64 throughout."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import layers
from keras_deepnets.layers.fast import sums
from keras_deepnets.layers.precision import at_least_float32
from keras_deepnets.layers.rectifiers import PReLU
from keras_deepnets.scaling import IMAGENET
from keras_deepnets.training import precision


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("bfloat16", "float32"), (tf.float16, "float32"), (tf.float32, "float32"), (np.float64, "float64")],
)
def test_the_dtype_of_sums(dtype, expected):
    assert at_least_float32(dtype) == expected


def fitted(layer):
    layer.build((None, 6, 6, 4))
    layer.fit([np.random.default_rng(1).normal(size=(200, 6, 6, 4))])
    return layer


LAYERS = {
    "BatchNormalization": lambda: layers.BatchNormalization(dtype="float64"),
    "LocalResponseNormalization": lambda: layers.LocalResponseNormalization(dtype="float64"),
    "GlobalContrastNormalization": lambda: layers.GlobalContrastNormalization(dtype="float64"),
    "ZCAWhitening": lambda: fitted(layers.ZCAWhitening(dtype="float64")),
    "InputScaling": lambda: keras.Sequential(
        [keras.layers.Conv2D(3, 1, dtype="float64"), layers.InputScaling(IMAGENET, dtype="float64")]
    ),
    "AdaptiveAveragePooling2D": lambda: layers.AdaptiveAveragePooling2D(4, dtype="float64"),
    "PReLU": lambda: PReLU(dtype="float64"),
}


def is_float32(values):
    """The share of the values that are numbers of float32."""
    values = np.asarray(values)
    assert values.dtype == np.float64
    return (values == values.astype("float32")).mean()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients(name, training, rng, monkeypatch):
    monkeypatch.setattr(sums, "FUSED_ELEMENTS", 1)  # compiled functions of large maps, too
    layer, x = LAYERS[name](), tf.constant(rng.normal(size=(2, 6, 6, 4)))

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
            # A sum alone would have gradients that are whole numbers in some layers.
            total = tf.reduce_sum(y * tf.cos(tf.reshape(tf.range(tf.size(y, tf.int64)), tf.shape(y)) / 7))
        return y, *tape.gradient(total, [x, *layer.trainable_variables])

    for value in run():
        assert is_float32(value) < 0.05


def test_the_factor_of_stochastic_depth():
    factor = layers.StochasticDepth(0.9, "sample", "training", seed=1).factor(tf.zeros((99, 1), tf.float64), True)
    assert set(np.asarray(factor).ravel()) == {0.0, 1 / 0.9}


def test_the_shares_of_a_fractal_join():
    shares = np.asarray(layers.FractalJoin((1, 2, 3), 0.0, dtype="float64").shares(2))
    np.testing.assert_array_equal(shares, np.full((2, 3), 1 / 3))


def test_the_cells_of_adaptive_average_pooling():
    means = np.asarray(layers.AdaptiveAveragePooling2D(3, dtype="float64")(np.ones((1, 9, 9, 1))))
    np.testing.assert_allclose(means, np.ones((1, 3, 3, 1)), rtol=1e-15)


@pytest.mark.parametrize("name", ["googlenet", "densenet40_12", "ResNet"])
def test_networks(name, rng):
    options = {"ResNet": {"depth": 8, "stem": "cifar", "block_layers": True}}.get(name, {})
    with precision.policy("float64"):
        model = kd.create_model(name, input_shape=(32, 32, 3), classifier_activation=None, **options)
    x = rng.normal(size=(2, 32, 32, 3))
    for training in (False, True):
        assert is_float32(model(x, training=training)) < 0.05
