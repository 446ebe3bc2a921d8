"""Maxout layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets.layers import maxout
from keras_deepnets.layers.maxout import Maxout


@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize("sides", [(), (3, 2)])
def test_the_largest_piece_of_each_channel(rng, pieces, sides):
    x = rng.normal(size=(4, *sides, pieces * 3)).astype("float32")
    layer = Maxout(pieces)
    y = layer(x)
    np.testing.assert_array_equal(y, x.reshape(4, *sides, pieces, 3).max(-2))
    assert tuple(y.shape) == layer.compute_output_shape(x.shape)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config() and again.pieces == pieces


def test_gradient_goes_to_the_largest_piece(rng):
    x = tf.constant(rng.normal(size=(2, 6)))
    layer = Maxout(3, dtype="float64")
    (exact,), (numeric,) = tf.test.compute_gradient(layer, [x])
    np.testing.assert_allclose(exact, numeric, atol=1e-6)
    assert (exact.sum(-1) == 1).all() and set(np.unique(exact)) == {0.0, 1.0}


def test_channels_must_be_whole_pieces():
    with pytest.raises(ValueError, match="7 channels do not divide into pieces=2"):
        Maxout(2)(np.zeros((1, 7)))


def test_convolution_and_dense_are_the_larger_of_two_linear_maps(rng):
    inputs = keras.Input((4, 4, 3))
    x = maxout.maxout_conv2d(inputs, 5, 3, name="conv")
    model = keras.Model(inputs, maxout.maxout_dense(keras.layers.Flatten()(x), 7, pieces=3, name="fc"))
    images = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    kernel, bias = model.get_layer("conv_conv").weights
    pieces = [
        tf.nn.conv2d(images, part, 1, "SAME") + offset
        for part, offset in zip(tf.split(kernel, 2, axis=-1), tf.split(bias, 2), strict=True)
    ]
    hidden = np.maximum(*pieces).reshape(2, -1)
    kernel, bias = (weight.numpy() for weight in model.get_layer("fc_dense").weights)
    wanted = (hidden @ kernel + bias).reshape(2, 3, 7).max(1)
    np.testing.assert_allclose(model(images), wanted, rtol=1e-4, atol=1e-5)


def test_signal_keeps_its_second_moment_through_two_pieces(rng):
    inputs = x = keras.Input((50,))
    for number in range(10):
        x = maxout.maxout_dense(x, 400, name=f"fc{number}")
    y = keras.Model(inputs, x)(rng.normal(size=(64, 50)).astype("float32"))
    assert 0.5 < np.mean(np.square(y)) < 2
