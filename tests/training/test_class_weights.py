import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets.errors import InputError
from keras_deepnets.training import BinaryCrossentropy, SmoothedCrossentropy, class_weights, feed, get_recipe, train
from tests.training.common import images

WEIGHTS = (0.25, 3.0, 1.0, 0.0)
LABELS = ("cat", "dog", "cow", "2")
COUNTS = (10, 30, 60, 0)


def linear(precision="float32"):
    """Logits that are linear in the pixels, and no randomness."""
    keras.utils.set_random_seed(1)
    body = [keras.Input((8, 8, 1)), keras.layers.Flatten(dtype=precision), keras.layers.Dense(4, dtype="float32")]
    return keras.Sequential([*body[:1], keras.layers.Rescaling(1 / 255, dtype="float32"), *body[1:]])


def reference(targets, logits, weights, smoothing=0.0, threshold=None):
    """The loss of a batch and its gradient with respect to the logits, in double precision.

    Args:
        targets: distributions before smoothing, [b, classes].
        logits: [b, classes].
        weights: one a class.
        smoothing: of the labels.
        threshold: of binary cross entropy; None: cross entropy.
    """
    targets, logits = targets.astype(np.float64), logits.astype(np.float64)
    size, classes = logits.shape
    weight = (targets * np.asarray(weights)).sum(1)
    if threshold is None:
        smoothed = (1 - smoothing) * targets + smoothing / classes
        top = logits.max(1, keepdims=True)
        logs = logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))
        losses, slopes = -(smoothed * logs).sum(1), np.exp(logs) * smoothed.sum(1, keepdims=True) - smoothed
    else:
        smoothed = (1 - smoothing) * (targets >= threshold) + smoothing / classes
        losses = (np.logaddexp(0, logits) - smoothed * logits).mean(1)
        slopes = (1 / (1 + np.exp(-logits)) - smoothed) / classes
    return (weight * losses).mean(), weight[:, None] * slopes / size


def batch(augmentation, weights=WEIGHTS, size=32):
    recipe = get_recipe("fast", batch_size=size)
    batches = feed.training(linear(), images(), recipe, augmentation, 3, 0, weights)
    return next(batches.take(1).as_numpy_iterator())


@pytest.mark.parametrize("augmentation", [None, "mixup(1.0)", "cutmix(1.0)"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["crossentropy", "binary"])
def test_loss_and_gradient(augmentation, smoothing, kind):
    _, targets, weights = batch(augmentation)
    assert weights.dtype == np.float32
    shares = np.eye(4)[targets] if targets.ndim == 1 else targets
    if augmentation:
        assert ((shares > 0).sum(1) == 2).any()  # some images are mixed of two classes
    np.testing.assert_allclose(weights, shares @ WEIGHTS, rtol=1e-6)
    logits = np.random.default_rng(5).normal(size=(32, 4)).astype("float32") * 3
    loss = (BinaryCrossentropy if kind == "binary" else SmoothedCrossentropy)(smoothing, from_logits=True)
    with tf.GradientTape() as tape:
        outputs = tf.Variable(logits)
        value = loss(targets, outputs, sample_weight=weights)
    expected = reference(shares, logits, WEIGHTS, smoothing, 0.2 if kind == "binary" else None)
    np.testing.assert_allclose(value.numpy(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(value, outputs).numpy(), expected[1], atol=1e-6 / 32, rtol=1e-5)


def test_of_plain_labels_it_is_that_of_keras():
    """`fit(class_weight=…)` of Keras, and ours in the batches."""
    pixels, targets, weights = batch(None)
    histories = []
    for arguments in ({"class_weight": dict(enumerate(WEIGHTS))}, {"sample_weight": weights}):
        model = linear()
        model.compile(keras.optimizers.SGD(0.1), SmoothedCrossentropy(0.1, from_logits=True))
        histories.append(
            model.fit(pixels, targets, 32, epochs=3, shuffle=False, verbose=0, **arguments).history["loss"]
        )
    np.testing.assert_allclose(*histories, rtol=1e-6)


@pytest.mark.parametrize("augmentation", [None, "mixup(1.0)"])
def test_balanced_weights_average_to_one(augmentation):
    data = images()
    weights = class_weights.resolve("balanced", data.labels, data.class_counts)
    found = batch(augmentation, weights, size=96)[2]
    assert found.mean() == pytest.approx(1, rel=1e-5 if augmentation is None else 0.05)


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_run(tmp_path, precision):
    """Logged: the weighted loss of training, and of validation loss and accuracy without weights."""
    data, held = images(), images(40, seed=1, split="test")
    model = linear(precision)
    start = model.predict(data.batches(96), verbose=0)
    asked = {"north-east": 3.0, 0: 0.25, "south-east": 0}
    settings = {"epochs": 1, "batch_size": 96, "augmentation": None, "ema": None, "label_smoothing": 0.1}
    run = train(model, data, "fast", tmp_path / "run", validation=held, class_weight=asked, verbose=0, **settings)
    assert json.loads((run.path / "config.json").read_text())["class_weight"] == list(WEIGHTS)
    truth = np.eye(4)[data.store.labels]
    tolerance = 1e-6 if precision == "float32" else 1e-3  # predict and fit round activations differently
    assert run.metrics["loss"] == pytest.approx(reference(truth, start, WEIGHTS, 0.1)[0], rel=tolerance)
    assert run.metrics["accuracy"] == pytest.approx((start.argmax(1) == data.store.labels).mean())
    end = model.predict(held.batches(40), verbose=0)
    truth = np.eye(4)[held.store.labels]
    assert run.metrics["val_loss"] == pytest.approx(reference(truth, end, np.ones(4), 0.1)[0], rel=tolerance)
    assert run.metrics["val_accuracy"] == pytest.approx((end.argmax(1) == held.store.labels).mean())
    # The loss in the file is one without weights: `model.evaluate` measures what everybody does.
    assert run.model.evaluate(held.batches(40), verbose=0)[0] == pytest.approx(
        reference(truth, end, np.ones(4))[0], rel=tolerance
    )


def test_weights_belong_to_the_run(tmp_path):
    settings = {"epochs": 1, "batch_size": 32, "augmentation": None, "validation": False, "verbose": 0}
    train(linear(), images(), "fast", tmp_path / "run", class_weight="balanced", **settings)
    again = train(linear(), images(), "fast", tmp_path / "run", class_weight="balanced", **settings)
    assert again.metrics["epochs"] == 1
    with pytest.raises(InputError, match=r"class_weight is .* there, null here"):
        train(linear(), images(), "fast", tmp_path / "run", **settings)
    config = tmp_path / "run" / "config.json"
    values = json.loads(config.read_text())
    del values["class_weight"]  # of an older version, which knew none
    config.write_text(json.dumps(values))
    train(linear(), images(), "fast", tmp_path / "run", **settings)


def test_a_run_with_weights_resumes(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    settings = {"epochs": 3, "batch_size": 32, "augmentation": "mixup(0.4)", "class_weight": {1: 4.0}, "verbose": 0}
    whole = train(linear(), images(), "fast", tmp_path / "whole", **settings)
    with pytest.raises(KeyboardInterrupt):
        train(linear(), images(), "fast", tmp_path / "run", callbacks=[Stop()], **settings)
    run = train(linear(), images(), "fast", tmp_path / "run", **settings)
    for one, other in zip(run.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


# --- What is asked for


def resolve(asked, labels=LABELS, counts=COUNTS):
    return class_weights.resolve(asked, labels, counts)


def test_balanced():
    """As scikit-learn's compute_class_weight("balanced"): 100 / (3 * count)."""
    assert resolve("balanced") == pytest.approx((100 / 30, 100 / 90, 100 / 180, 1.0))
    assert sum(weight * count for weight, count in zip(resolve("balanced"), COUNTS, strict=True)) == pytest.approx(100)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, None),
        ({}, (1, 1, 1, 1)),
        ({"dog": 2}, (1, 2, 1, 1)),
        ({0: 0.5, np.int64(1): np.float32(2)}, (0.5, 2, 1, 1)),
        ({"0": 3}, (3, 1, 1, 1)),  # a text that is no label is an index
        ({"2": 3}, (1, 1, 1, 3)),  # a label that looks like an index is a label
    ],
)
def test_mappings(asked, expected):
    assert resolve(asked) == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("even", "class_weight='even': give 'balanced', or weights by class, e.g. {'cat': 2.0}"),
        (2.0, "class_weight=2.0"),
        ([1, 2, 3, 4], r"class_weight=\[1, 2, 3, 4\]"),
        ({"bird": 1}, r"names 'bird', which is not one of the classes \(cat, dog, cow, 2\)"),
        ({4: 1}, "names class 4, and there are 4"),
        ({-1: 1}, "names class -1"),
        ({2: 1}, "2 is the label of class 3 and the index of 'cow'; write the label as a string, '2'"),
        ({True: 1}, "names True"),
        ({1.0: 1}, "names 1.0"),
        ({"dog": 1, 1: 1}, "names class 'dog' twice"),
        ({"dog": -1}, "of 'dog' is -1; give a finite number"),
        ({"dog": float("nan")}, "is nan"),
        ({"dog": float("inf")}, "is inf"),
        ({"dog": "2"}, "is '2'"),
        ({"dog": True}, "is True"),
        ({"cat": 0, "dog": 0, "cow": 0}, "no training image with a weight above 0"),
    ],
)
def test_bad_weights(asked, message):
    with pytest.raises(InputError, match=message) as caught:
        resolve(asked)
    assert "\n" not in str(caught.value)


def test_a_label_of_two_classes():
    labels = ("crane", "dog", "crane", "cow")
    with pytest.raises(InputError, match="2 classes are called 'crane'; name one by its index"):
        resolve({"crane": 2}, labels)
    assert resolve({2: 2}, labels) == (1, 1, 2, 1)
