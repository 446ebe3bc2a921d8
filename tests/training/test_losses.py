import keras
import numpy as np
import pytest

from keras_deepnets.errors import InputError
from keras_deepnets.training import SmoothedCrossentropy
from keras_deepnets.training.losses import gives_logits


def reference(labels, logits, smoothing):
    logits = logits.astype(np.float64)
    logits = logits - logits.max(1, keepdims=True)
    log = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = np.eye(logits.shape[1])[labels] * (1 - smoothing) + smoothing / logits.shape[1]
    return -(targets * log).sum(1).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("spread", [1.0, 20.0])
def test_value(rng, smoothing, spread):
    logits = rng.normal(size=(6, 5)).astype("float32") * spread
    labels = rng.integers(0, 5, 6)
    expected = reference(labels, logits, smoothing)
    from_logits = SmoothedCrossentropy(smoothing, from_logits=True)
    behind_softmax = SmoothedCrossentropy(smoothing)
    probabilities = keras.activations.softmax(keras.ops.convert_to_tensor(logits))
    np.testing.assert_allclose(float(from_logits(labels, logits)), expected, rtol=1e-5)
    if spread < 5 or keras.config.backend() == "tensorflow":
        np.testing.assert_allclose(float(behind_softmax(labels, probabilities)), expected, rtol=1e-5)
    one_hot = np.eye(5, dtype="float32")[labels]
    np.testing.assert_allclose(float(from_logits(one_hot, logits)), expected, rtol=1e-5)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="Keras finds the logits behind a softmax only there")
def test_a_certain_mistake_still_has_a_gradient():
    """Logits ±200: the softmax is 0 and 1 to float32, yet the gradient is that of the logits."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, activation="softmax", use_bias=False)])
    model.set_weights([np.eye(3, dtype="float32")])
    model.compile(keras.optimizers.SGD(1.0), SmoothedCrossentropy())
    model.train_on_batch(np.array([[200.0, 0.0, -200.0]], "float32"), np.array([2]))
    np.testing.assert_allclose(model.get_weights()[0][0], [1 - 200.0, 0, 200.0], atol=1e-3)


def test_serialises():
    loss = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(SmoothedCrossentropy(0.2, True)))
    assert (loss.label_smoothing, loss.from_logits) == (0.2, True)


@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        ([keras.layers.Dense(3)], True),
        ([keras.layers.Dense(3, activation="softmax")], False),
        ([keras.layers.Dense(3), keras.layers.Softmax()], False),
        ([keras.layers.Dense(3), keras.layers.Activation("softmax", dtype="float32")], False),
        ([keras.layers.Dense(3), keras.layers.Activation("linear", dtype="float32")], True),
    ],
)
def test_what_a_model_ends_in(tail, expected):
    model = keras.Sequential([keras.Input((2,)), *tail])
    assert gives_logits(model) is expected
    assert gives_logits(keras.Sequential([keras.Input((2,)), model])) is expected


def test_another_ending():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="sigmoid")])
    with pytest.raises(InputError, match="ends in 'sigmoid'"):
        gives_logits(model)
