import keras
import numpy as np
import pytest

from keras_deepnets.errors import InputError
from keras_deepnets.training import SmoothedCrossentropy
from keras_deepnets.training.losses import BinaryCrossentropy, TopAccuracy, gives_logits


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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_binary_crossentropy(rng, smoothing):
    logits = rng.normal(size=(6, 5)).astype("float32") * 3
    shares = np.eye(5, dtype="float32")[rng.integers(0, 5, 6)] * 0.7 + np.eye(5, dtype="float32")[1] * 0.3
    targets = (shares >= 0.2) * (1 - smoothing) + smoothing / 5
    chances = 1 / (1 + np.exp(-logits.astype(np.float64)))
    expected = -(targets * np.log(chances) + (1 - targets) * np.log(1 - chances)).mean()
    np.testing.assert_allclose(float(BinaryCrossentropy(smoothing, True)(shares, logits)), expected, rtol=1e-5)
    if keras.config.backend() == "tensorflow":
        probabilities = keras.activations.softmax(keras.ops.convert_to_tensor(logits))
        np.testing.assert_allclose(float(BinaryCrossentropy(smoothing)(shares, probabilities)), expected, rtol=1e-5)
    with pytest.raises(InputError, match="needs logits"):
        BinaryCrossentropy()(shares, np.full((6, 5), 0.2, "float32"))
    labels = np.arange(6) % 5
    one_hot = np.eye(5, dtype="float32")[labels]
    loss = BinaryCrossentropy(smoothing, True)
    assert float(loss(labels, logits)) == pytest.approx(float(loss(one_hot, logits)), rel=1e-6)


@pytest.mark.parametrize("k", [1, 5])
def test_accuracy_of_labels_and_of_distributions(rng, k):
    outputs, labels = rng.normal(size=(50, 12)).astype("float32"), rng.integers(0, 12, 50)
    expected = np.mean([label in np.argsort(-row)[:k] for row, label in zip(outputs, labels, strict=True)])
    mixed = 0.6 * np.eye(12)[labels] + 0.4 * np.eye(12)[(labels + 1) % 12]
    for targets in (labels, labels[:, None], mixed.astype("float32")):
        metric = TopAccuracy(k)
        metric.update_state(targets[:20], outputs[:20])
        metric.update_state(targets[20:], outputs[20:])
        assert float(metric.result()) == pytest.approx(expected)
