import json

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.labels import imagenet_classes
from keras_deepnets.training import evaluate, evaluation
from keras_deepnets.training.evaluation import Tally
from tests.training.common import images, network


class Fixed(keras.layers.Layer):
    """Gives, for image i (its top left value), row i of a table."""

    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def call(self, inputs):
        return keras.ops.take(
            keras.ops.convert_to_tensor(self.table), keras.ops.cast(inputs[:, 0, 0, 0], "int32"), axis=0
        )


def answering(table, activation):
    model = keras.Sequential([keras.Input((2, 2, 1)), Fixed(table), keras.layers.Activation(activation)])
    return model


@pytest.fixture
def problem(rng):
    logits = rng.normal(size=(37, 7)).astype("float32") * 3
    labels = rng.integers(0, 6, 37)  # the last class has no image
    pixels = np.zeros((37, 2, 2, 1), "uint8")
    pixels[:, 0, 0, 0] = np.arange(37)
    return logits, labels, kd.data.ImageData.from_arrays(pixels, labels, tuple("abcdefg"), "numbers", "test")


@pytest.mark.parametrize("activation", ["linear", "softmax"])
@pytest.mark.parametrize("batch_size", [5, 256])
def test_against_numpy(problem, activation, batch_size):
    logits, labels, data = problem
    found = evaluate(answering(logits, activation), data, batch_size)
    order = np.argsort(-logits, axis=1)
    right = order[:, 0] == labels
    wide = logits.astype(np.float64)
    log = wide - np.log(np.exp(wide).sum(1, keepdims=True))
    assert found.size == 37
    assert found.top1 == right.mean()
    assert found.top5 == (order[:, :5] == labels[:, None]).any(1).mean()
    np.testing.assert_allclose(found.loss, -log[np.arange(37), labels].mean(), rtol=1e-5)
    assert found.per_class == {"abcdefg"[at]: right[labels == at].mean() for at in range(6)}
    assert found.images_per_second > 0
    confusion = np.zeros((7, 7), int)
    for label, guess in zip(labels, order[:, 0], strict=True):
        confusion[label, guess] += 1
    np.testing.assert_array_equal(found.confusion, confusion)
    assert found.to_dict()["confusion"] == confusion.tolist()
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


@pytest.mark.parametrize("activation", ["linear", "softmax"])
@pytest.mark.parametrize(("batch_size", "most"), [(5, 4), (256, 25)])
def test_what_is_mistaken_for_what_and_the_worst_errors(problem, activation, batch_size, most):
    logits, labels, data = problem
    found = evaluate(answering(logits, activation), data, batch_size, worst=most)
    wide = np.exp(logits.astype(np.float64))
    probabilities = wide / wide.sum(1, keepdims=True)
    guesses = logits.argmax(1)
    own = probabilities[np.arange(37), labels]
    wrong = [at for at in np.argsort(own, kind="stable") if guesses[at] != labels[at]]
    assert [error.index for error in found.worst] == wrong[:most]
    assert found.errors == len(wrong) > most or most == 25
    for error in found.worst:
        assert (error.true, error.predicted) == ("abcdefg"[labels[error.index]], "abcdefg"[guesses[error.index]])
        assert error.probability == pytest.approx(probabilities[error.index].max(), rel=1e-5)
        assert error.loss == pytest.approx(-np.log(own[error.index]), rel=1e-5)
    recalls = [(guesses == labels)[labels == at].mean() for at in range(6)]
    assert found.balanced_accuracy == pytest.approx(np.mean(recalls))
    assert found.balanced_accuracy != pytest.approx(found.top1)
    counts = {}
    for label, guess in zip(labels, guesses, strict=True):
        if label != guess:
            counts[label, guess] = counts.get((label, guess), 0) + 1
    shares = {pair: count / (labels == pair[0]).sum() for pair, count in counts.items()}
    expected = sorted(counts, key=lambda pair: (-counts[pair], -shares[pair], pair))
    pairs = found.confused_pairs(100)
    assert [(pair.true, pair.predicted) for pair in pairs] == [("abcdefg"[a], "abcdefg"[b]) for a, b in expected]
    assert [pair.count for pair in pairs] == [counts[pair] for pair in expected]
    assert [pair.share for pair in pairs] == pytest.approx([shares[pair] for pair in expected])
    assert found.confused_pairs() == pairs[:5] and len(pairs) > 5
    assert found.to_dict()["balanced_accuracy"] == found.balanced_accuracy
    assert found.to_dict()["confused_pairs"][0] == pairs[0]._asdict()
    for wrong in (0, 2.5, True):
        with pytest.raises(InputError, match=r"top=.* must be a whole number of at least 1"):
            found.confused_pairs(wrong)
    with pytest.raises(InputError, match=r"worst=0 must be"):
        evaluate(answering(logits, activation), data, worst=0)


def test_probabilities_of_zero_are_ranked_in_the_order_of_the_data():
    tally = Tally("ab", 3)
    outputs = np.array([[1, 0], [0, 1], [1, 0], [1.0, 1e-9]])
    tally.add(outputs[:2], np.array([1, 0]))
    tally.add(outputs[2:], np.array([1, 1]))
    assert [error.index for error in tally.evaluation(1.0).worst] == [0, 1, 2]


def test_no_errors(problem):
    _, labels, data = problem
    found = evaluate(answering(np.eye(7, dtype="float32")[labels] * 9, "softmax"), data)
    assert (found.worst, found.confused_pairs(), found.errors, found.balanced_accuracy) == ((), [], 0, 1.0)


def test_report_draws_into_a_folder(problem, tmp_path):
    logits, labels, data = problem
    found = evaluation.report(answering(logits, "softmax"), data, tmp_path, 16, worst=3)
    again = evaluate(answering(logits, "softmax"), data, 16, worst=3)
    assert (found.loss, found.worst, found.top1) == (again.loss, again.worst, again.top1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["confusion.png", "errors.png"]
    assert len(found.worst) == 3
    evaluation.report(answering(np.eye(7, dtype="float32")[labels] * 9, "softmax"), data, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["confusion.png"]


def test_ties_go_to_the_lower_class(problem):
    _, labels, data = problem
    found = evaluate(answering(np.zeros((37, 7), "float32"), "softmax"), data)
    assert found.top1 == (labels == 0).mean() and found.top5 == (labels < 5).mean()
    np.testing.assert_allclose(found.loss, np.log(7), rtol=1e-6)


IMAGENET = imagenet_classes()


@pytest.mark.parametrize("column", [0, 1])
def test_imagenets_ids_and_names_are_the_same_labels(column):
    """Of the folders' ids and the names that published weights bring; "crane" and "maillot" are the names of two classes each."""
    targets = np.repeat([134, 517, 638, 0], 2)
    pixels = np.zeros((8, 2, 2, 1), "uint8")
    pixels[:, 0, 0, 0] = np.arange(8)
    data = kd.data.ImageData.from_arrays(pixels, targets, tuple(row[column] for row in IMAGENET), "imagenet", "test")
    guesses = [134, 134, 134, 517, 639, 638, 1, 0]
    model = answering(20 * np.eye(1000, dtype="float32")[guesses], "softmax")
    model.labels = tuple(name for _, name in IMAGENET)
    found = evaluate(model, data)
    names = (IMAGENET[0][0], *(IMAGENET[at][0] for at in (134, 517, 638)))
    names = names if column == 0 else ("tench", "crane (134)", "crane (517)", "maillot (638)")
    assert found.per_class == dict(zip(names, (0.5, 1.0, 0.5, 0.5), strict=True))
    assert found.top1 == 0.625
    model.labels = (*model.labels[1:], "tench")
    with pytest.raises(
        InputError, match=r"Output 0 of model 'sequential.*' is 'goldfish', but class 0 of data 'imagenet'"
    ):
        evaluate(model, data)


def test_a_model_that_wants_scaled_images_gets_them(rng):
    """The same weights with and without the scaling inside say the same."""
    data = kd.data.load("digits", "test")
    scaling = kd.Scaling((40.0,) * 3, (80.0,) * 3, crop_fraction=1.0)
    inside = kd.ResNet20(include_preprocessing=scaling)
    outside = kd.ResNet20()
    outside.set_weights(inside.get_weights())
    outside.scaling = scaling
    first, second = evaluate(inside, data), evaluate(outside, data)
    assert first.per_class == second.per_class
    np.testing.assert_allclose(first.loss, second.loss, rtol=1e-5)


def test_a_saved_model(tmp_path):
    model = network()
    model.save(tmp_path / "model.keras")
    assert evaluate(tmp_path / "model.keras", images(40)).loss == evaluate(model, images(40)).loss
    with pytest.raises(InputError, match=r"is not a \.keras file"):
        evaluate(tmp_path / "nothing.keras", images(40))


def test_labels_in_another_order(problem):
    model = kd.ResNet20(classes=4)
    model.labels = ("north-east", "north-west", "south-west", "south-east")
    with pytest.raises(
        InputError, match=r"Output 0 of model 'resnet20' is 'north-east', but class 0 .* is 'north-west'"
    ):
        evaluate(model, images(40))
    with pytest.raises(InputError, match="4 classes"):
        evaluate(kd.ResNet20(), images(40))
