"""Shortcuts, stochastic depth, input scaling, heads."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets import layers
from keras_deepnets.layers import InputScaling, StochasticDepth, ZeroPadShortcut
from keras_deepnets.scaling import CIFAR, IMAGENET, Scaling


def roundtrip(layer):
    return keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))


@pytest.mark.parametrize("size", [7, 8])
def test_zero_padded_shortcut_subsamples_and_pads_both_ends(rng, size):
    x = rng.normal(size=(2, size, size, 4)).astype("float32")
    layer = ZeroPadShortcut(9, 2)
    y = layer(x).numpy()
    assert y.shape == layer.compute_output_shape(x.shape) == (2, (size + 1) // 2, (size + 1) // 2, 9)
    np.testing.assert_array_equal(y[..., 2:6], x[:, ::2, ::2])
    assert not y[..., :2].any() and not y[..., 6:].any()
    assert roundtrip(layer).get_config() == layer.get_config()


def test_zero_padded_shortcut_cannot_drop_channels():
    with pytest.raises(ValueError, match="filters=4 is less than the input's 8"):
        ZeroPadShortcut(4)(np.zeros((1, 2, 2, 8)))


@pytest.mark.parametrize(
    "kind, filters, strides, parameters",
    [
        ("A", 16, 1, 0),
        ("A", 32, 2, 0),
        ("B", 16, 1, 0),
        ("B", 32, 2, 16 * 32 + 64),
        ("C", 16, 1, 16 * 16 + 32),
        ("C", 32, 2, 16 * 32 + 64),
    ],
)
def test_shortcut_parameters(kind, filters, strides, parameters):
    x = keras.Input((8, 8, 16))
    y = layers.shortcut(x, filters, strides, kind=kind, name="block")
    model = keras.Model(x, y)
    assert y.shape == (None, 8 // strides, 8 // strides, filters)
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == parameters


def test_stochastic_depth_per_sample_keeps_the_expectation():
    layer = StochasticDepth(0.8, "sample", "training", seed=1)
    y = layer(np.ones((4000, 2, 2, 1), "float32"), training=True).numpy()[:, 0, 0, 0]
    assert set(np.round(np.unique(y), 5)) == {0.0, 1.25}
    assert y.mean() == pytest.approx(1, abs=0.03)
    np.testing.assert_array_equal(layer(np.ones((2, 1, 1, 1)), training=False), np.ones((2, 1, 1, 1)))


def test_stochastic_depth_per_batch_is_the_papers():
    layer = StochasticDepth(0.6, "batch", "inference", seed=1)
    draws = np.stack([layer(np.ones((3, 2, 2, 1), "float32"), training=True).numpy() for _ in range(400)])
    assert all(len(np.unique(draw)) == 1 for draw in draws) and set(np.unique(draws)) == {0.0, 1.0}
    assert draws.mean() == pytest.approx(0.6, abs=0.06)
    np.testing.assert_allclose(layer(np.ones((2, 1, 1, 1)), training=False), np.full((2, 1, 1, 1), 0.6), rtol=1e-6)
    assert roundtrip(layer).get_config() == layer.get_config()


def test_survival_decays_linearly():
    assert [layers.linear_survival(block, 4, 0.5) for block in range(1, 5)] == [0.875, 0.75, 0.625, 0.5]


@pytest.mark.parametrize("arguments", [{"survival": 0}, {"survival": 1.1}, {"survival": 0.5, "unit": "pixel"}])
def test_stochastic_depth_refuses(arguments):
    with pytest.raises(ValueError, match=r"StochasticDepth: (survival|unit)="):
        StochasticDepth(**arguments)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
@pytest.mark.parametrize("policy, tolerance", [("float32", 1e-6), ("mixed_bfloat16", 1e-2)])
def test_input_scaling(rng, dtype, policy, tolerance):
    x = rng.integers(0, 256, (2, 4, 4, 3)).astype(dtype)
    layer = InputScaling(IMAGENET, dtype=policy)
    expected = (x / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    y = layer(x)
    assert y.dtype == layer.compute_dtype
    np.testing.assert_allclose(tf.cast(y, "float64"), expected, rtol=tolerance, atol=tolerance)
    assert roundtrip(layer).scaling == IMAGENET


def test_bgr_scaling_swaps_channels(rng):
    x = rng.integers(0, 256, (1, 2, 2, 3)).astype("float32")
    scaling = Scaling((1, 2, 3), (1, 1, 1), channel_order="BGR")
    expected = x[..., ::-1] - np.array([1, 2, 3])
    np.testing.assert_allclose(InputScaling(scaling)(x), expected)
    np.testing.assert_allclose(scaling.apply(x), expected)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"mean": (1, 2), "std": (1,)}, "mean has 2 values and std 1"),
        ({"mean": (1,), "std": (0,)}, "must be positive"),
        ({"mean": (1,), "std": (1,), "channel_order": "GBR"}, "channel_order='GBR'"),
        ({"mean": (1,), "std": (1,), "crop_fraction": 0}, "crop_fraction=0"),
    ],
)
def test_scaling_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        Scaling(**values)


def test_scaling_survives_json():
    assert Scaling.from_dict(CIFAR.to_dict()) == CIFAR


def test_classifier_is_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    x = keras.Input((4, 4, 8))
    y = layers.classifier(x, 5, "softmax")
    assert y.dtype == "float32" and y.shape == (None, 5)
