"""Contrast normalisation and whitening."""

import keras
import numpy as np
import pytest

from keras_deepnets import export, layers


def contrast(x, scale=55.0):
    x = x.astype("float64").reshape(len(x), -1)
    x = x - x.mean(1, keepdims=True)
    return scale * x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-8)


@pytest.fixture
def images(rng):
    """Images with correlated neighbours."""
    x = rng.normal(size=(300, 5, 4, 3)).cumsum(1).cumsum(2)
    return (128 + 20 * x).clip(0, 255).astype("float32")


def test_contrast_normalisation(images):
    found = np.asarray(layers.GlobalContrastNormalization()(images)).reshape(300, -1)
    np.testing.assert_allclose(found, contrast(images), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 55, rtol=1e-5)
    grey = np.full((1, 5, 4, 3), 7.0, "float32")
    np.testing.assert_array_equal(layers.GlobalContrastNormalization()(grey), np.zeros_like(grey))
    layer = layers.GlobalContrastNormalization(2.0)
    assert layers.GlobalContrastNormalization.from_config(layer.get_config()).scale == 2.0


def test_whitened_values_are_uncorrelated(images):
    x = contrast(images).reshape(images.shape).astype("float32")
    layer = layers.ZCAWhitening(bias=0.0)
    layer.build(x.shape)
    np.testing.assert_allclose(layer(x), x)  # the identity before it is fitted
    layer.bias = 1e-3
    layer.fit([x[:100], x[100:300]])
    flat = np.asarray(layer(x), "float64").reshape(300, -1)
    covariance = np.cov(flat.T, bias=True)
    # Images of mean zero leave one direction without variance.
    expected = np.eye(60) - 1 / 60
    np.testing.assert_allclose(covariance, expected, atol=5e-3)
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(layer.matrix, np.asarray(layer.matrix).T, atol=1e-5)


def test_whitening_is_the_published_formula(images):
    flat = contrast(images)
    layer = layers.ZCAWhitening()
    layer.build(images.shape)
    layer.fit([flat.reshape(images.shape)])
    mean = flat.mean(0)
    variances, vectors = np.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat) + 0.1 * np.eye(60))
    expected = (flat - mean) @ vectors @ np.diag(variances**-0.5) @ vectors.T
    found = np.asarray(layer(flat.reshape(images.shape).astype("float32"))).reshape(300, -1)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_errors():
    with pytest.raises(ValueError, match="must have a fixed size"):
        layers.ZCAWhitening()(keras.Input((None, 8, 3)))
    with pytest.raises(ValueError, match="12,288 values; at most 4,096"):
        layers.ZCAWhitening()(keras.Input((64, 64, 3)))
    with pytest.raises(ValueError, match="must not be negative"):
        layers.ZCAWhitening(-1.0)
    with pytest.raises(ValueError, match="scale=0 must be above 0"):
        layers.GlobalContrastNormalization(0)
    layer = layers.ZCAWhitening()
    layer.build((None, 2, 2, 1))
    with pytest.raises(ValueError, match="nothing to fit to"):
        layer.fit([])


def test_saved_and_exported(images, rng, tmp_path):
    inputs = keras.Input((5, 4, 3))
    whitening = layers.ZCAWhitening()
    x = whitening(layers.normalize_contrast(inputs))
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    whitening.fit([contrast(images).reshape(images.shape)])
    expected = model.predict(images[:4], verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(images[:4], verbose=0), expected, rtol=1e-5)
    path = export.tflite(model, tmp_path / "model.tflite")
    interpreter = export.litert.open_interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images[:1])
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(found, expected[:1], atol=1e-4)
