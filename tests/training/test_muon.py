"""Muon: momentum that is orthogonal, for convolutions too; the rest is Adam's."""

import keras
import numpy as np
import pytest

from keras_deepnets.training import Muon
from keras_deepnets.training.muon import orthogonal

rng = np.random.default_rng(0)


def reference(matrix, iterations=5):
    """The quintic iteration in double precision, on the singular values alone: it leaves the singular vectors as they are."""
    left, values, right = np.linalg.svd(matrix.astype("float64"), full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(iterations):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left * values @ right


@pytest.mark.parametrize("shape", [(12, 5), (5, 12), (7, 7), (3, 1)])
def test_orthogonal(shape):
    matrix = rng.normal(size=shape).astype("float32")
    found = np.asarray(orthogonal(keras.ops.convert_to_tensor(matrix)))
    np.testing.assert_allclose(found, reference(matrix), atol=2e-5)
    singular = np.linalg.svd(found, compute_uv=False)
    assert singular.min() > 0.6 and singular.max() < 1.3


def test_orthogonal_of_nearly_dependent_columns():
    """Small singular values are lost in the product of a matrix with itself, and must not be made large by it."""
    left, _ = np.linalg.qr(rng.normal(size=(40, 8)))
    right, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    matrix = (left * 10.0 ** -np.arange(8) @ right.T).astype("float32")
    found = np.asarray(orthogonal(keras.ops.convert_to_tensor(matrix)))
    assert np.linalg.svd(found, compute_uv=False).max() < 1.3
    large = left[:, :3].T @ found @ right[:, :3]
    np.testing.assert_allclose(large, left[:, :3].T @ reference(matrix) @ right[:, :3], atol=2e-3)


def test_zeros_stay_zeros():
    assert not np.asarray(orthogonal(keras.ops.zeros((4, 3)))).any()


def variables():
    return [
        keras.Variable(rng.normal(size=(3, 3, 2, 4)).astype("float32"), name="kernel"),
        keras.Variable(rng.normal(size=4).astype("float32"), name="gamma"),
    ]


def test_two_steps():
    kernel, gamma = variables()
    before = [kernel.numpy(), gamma.numpy()]
    gradients = [[rng.normal(size=value.shape).astype("float32") for value in before] for _ in range(2)]
    optimizer = Muon(0.02, weight_decay=0.1)
    for pair in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(value) for value in pair], [kernel, gamma])
    expected, momentum = before[0].astype("float64"), 0.0
    for gradient, _ in gradients:
        momentum = 0.95 * momentum + gradient
        update = reference((gradient + 0.95 * momentum).reshape(18, 4)).reshape(3, 3, 2, 4)
        expected = expected - 0.02 * (0.2 * np.sqrt(18) * update + 0.1 * expected)
    np.testing.assert_allclose(kernel.numpy(), expected, atol=2e-5)
    expected, first, second = before[1].astype("float64"), 0.0, 0.0
    for step, (_, gradient) in enumerate(gradients, 1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        expected = expected - 0.01 * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-7)
    np.testing.assert_allclose(gamma.numpy(), expected, atol=2e-6)


def test_the_classifier_is_left_to_adam():
    head = keras.layers.Dense(3, name="predictions")
    head.build((None, 4))
    optimizer = Muon()
    assert not optimizer.orthogonalises(head.kernel)
    assert Muon(classifier="logits").orthogonalises(head.kernel)


def test_saved_and_loaded():
    optimizer = Muon(0.01, momentum=0.9, newton_schulz=4)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("scale", [0.01, 3.0, 0.0])
def test_relative_updates_are_a_share_of_the_kernel(scale):
    kernel = keras.Variable(scale * rng.normal(size=(3, 3, 8, 4)).astype("float32"), name="kernel")
    before = kernel.numpy().astype("float64")
    gradient = rng.normal(size=before.shape).astype("float32")
    Muon(0.02, weight_decay=0.1, relative=True).apply([keras.ops.convert_to_tensor(gradient)], [kernel])
    size = max(np.sqrt(np.mean(before**2)), 1e-3)
    update = size * np.sqrt(72) * reference(gradient.reshape(72, 4)).reshape(before.shape)
    np.testing.assert_allclose(
        kernel.numpy(), before - 0.02 * (update + 0.1 * before), rtol=1e-4, atol=2e-6 * max(scale, 0.01)
    )
    assert Muon.from_config(Muon(relative=True).get_config()).relative
