"""Highway layers, and the biased layers that they and the other networks without BN are made of."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets.layers import gates, unnormalized
from keras_deepnets.layers.gates import HighwayGate


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def convolve(x, kernel, bias):
    """A stride-1 convolution with symmetric padding, position by position."""
    pad = kernel.shape[0] // 2
    padded = np.pad(x, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    y = np.zeros((*x.shape[:3], kernel.shape[-1]))
    for i, j in np.ndindex(kernel.shape[:2]):
        y += padded[:, i : i + x.shape[1], j : j + x.shape[2]] @ kernel[i, j]
    return y + bias


def weights(model, name):
    return [weight.numpy() for weight in model.get_layer(name).weights]


def test_gate_is_equation_3(rng):
    x, h, t = rng.normal(size=(3, 4, 5, 6)).astype("float32")
    t = sigmoid(t)
    y = HighwayGate()([x, h, t])
    np.testing.assert_allclose(y, h * t + x * (1 - t), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(HighwayGate()([x, h, np.zeros_like(t)]), x)


def test_gate_gradients(rng):
    x, h, t = (tf.constant(value) for value in rng.normal(size=(3, 2, 3)))
    layer = HighwayGate(dtype="float64")
    exact, numeric = tf.test.compute_gradient(lambda *inputs: layer(list(inputs)), [x, h, t])
    for ours, theirs, analytic in zip(exact, numeric, (1 - t, t, h - x), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        np.testing.assert_allclose(np.diag(ours), np.ravel(analytic), atol=1e-12)


def test_gate_refuses_a_change_of_dimensions():
    with pytest.raises(ValueError, match=r"must have one shape.*plain layer"):
        HighwayGate()([np.zeros((1, 2)), np.zeros((1, 3)), np.zeros((1, 3))])


def test_gate_config_and_shape():
    layer = HighwayGate(name="gate")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config()
    assert layer.compute_output_shape([(None, 4)] * 3) == (None, 4)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_convolutional_highway_layer(rng, kernel_size):
    inputs = keras.Input((5, 4, 3))
    model = keras.Model(inputs, gates.highway_conv2d(inputs, kernel_size, gate_bias=-1.5, name="layer"))
    x = rng.normal(size=(2, 5, 4, 3)).astype("float32")
    h = np.maximum(convolve(x, *weights(model, "layer_transform")), 0)
    t = sigmoid(convolve(x, *weights(model, "layer_gate")))
    np.testing.assert_allclose(model(x), h * t + x * (1 - t), rtol=1e-4, atol=1e-5)
    assert model.get_layer("layer_transform").kernel_size == model.get_layer("layer_gate").kernel_size


@pytest.mark.parametrize("activation, function", [("relu", lambda x: np.maximum(x, 0)), ("tanh", np.tanh)])
def test_fully_connected_highway_layer(rng, activation, function):
    inputs = keras.Input((6,))
    model = keras.Model(inputs, gates.highway_dense(inputs, gate_bias=-1.0, activation=activation, name="layer"))
    x = rng.normal(size=(3, 6)).astype("float32")
    (w_h, b_h), (w_t, b_t) = weights(model, "layer_transform"), weights(model, "layer_gate")
    h, t = function(x @ w_h + b_h), sigmoid(x @ w_t + b_t)
    np.testing.assert_allclose(model(x), h * t + x * (1 - t), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(b_t, np.full(6, -1.0))
    np.testing.assert_array_equal(b_h, np.zeros(6))


def test_a_shut_gate_carries_its_input(rng):
    inputs = keras.Input((8, 8, 4))
    x = inputs
    for number in range(5):
        x = gates.highway_conv2d(x, 3, gate_bias=-40.0, name=f"layer{number}")
    images = rng.normal(size=(2, 8, 8, 4)).astype("float32")
    np.testing.assert_allclose(keras.Model(inputs, x)(images), images, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(rng, policy):
    keras.config.set_dtype_policy(policy)
    inputs = keras.Input((16,))
    model = keras.Model(inputs, gates.highway_dense(inputs, gate_bias=-2.0, name="layer"))
    assert model.output.dtype == policy.removeprefix("mixed_")
    x = rng.normal(size=(4, 16)).astype("float32")
    (w_h, b_h), (w_t, b_t) = weights(model, "layer_transform"), weights(model, "layer_gate")
    h, t = np.maximum(x @ w_h + b_h, 0), sigmoid(x @ w_t + b_t)
    np.testing.assert_allclose(np.asarray(tf.cast(model(x), "float32")), h * t + x * (1 - t), atol=0.05)


def test_weights_keep_the_second_moment_through_relu(rng):
    inputs = x = keras.Input((8, 8, 3))
    x = unnormalized.biased_conv2d(x, 256, 3, activation="relu", name="conv")
    x = unnormalized.flatten(x)
    for number in range(4):
        x = unnormalized.biased_dense(x, 400, activation="relu", name=f"dense{number}")
    model = keras.Model(inputs, x)
    kernel = weights(model, "conv")[0]
    assert np.var(kernel) * 27 == pytest.approx(2, rel=0.1)
    y = model(rng.normal(size=(16, 8, 8, 3)).astype("float32"))
    assert 0.5 < np.mean(np.square(y)) < 2
