"""Training from weights: the classifier first, on features computed once, then all layers; the best epoch; longer runs."""

import json
import re

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.cli import main
from keras_deepnets.errors import InputError
from keras_deepnets.training import choosing, heads, read_metrics, train
from tests.training.common import images, network

pytestmark = pytest.mark.integration

SHORT = {"recipe": "fine_tune", "head_epochs": 2, "epochs": 2, "batch_size": 32, "augmentation": None, "verbose": 0}
HELD = images(40, seed=1, split="test")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A ResNet20 for other classes, as a run folder has it."""
    folder = tmp_path_factory.mktemp("start")
    keras.utils.set_random_seed(0)
    scaling = kd.Scaling([60.0], [70.0], crop_fraction=0.9, interpolation="bicubic")
    model = kd.ResNet20(input_shape=(16, 16, 1), classes=7, include_preprocessing=scaling)
    model.labels = list("abcdefg")
    model.save(folder / "model.keras")
    return folder


@pytest.fixture(scope="module")
def tuned(start, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "tuned"
    return train("resnet20", images(), run_dir=path, weights=start, validation=HELD, **SHORT | {"recipe": None})


def test_two_phases_are_one_run(tuned):
    rows = read_metrics(tuned.path / "metrics.csv")
    assert [(row["epoch"], row["phase"], row["step"]) for row in rows] == [(1, 1, 3), (2, 1, 6), (3, 2, 9), (4, 2, 12)]
    rates = [row["learning_rate"] for row in rows]
    # Half a cosine over the 6 steps of each phase; a tenth of the second warms up.
    half = [0.5 * (1 + np.cos(np.pi * step / 6)) for step in (2, 5)]
    np.testing.assert_allclose(rates, [2e-3 * half[0], 2e-3 * half[1], 4e-3 * half[0], 4e-3 * half[1]], rtol=1e-5)
    config = json.loads((tuned.path / "config.json").read_text())
    assert config["recipe"]["name"] == "fine_tune"
    assert config["resolved"]["head"] == {"steps": 6, "cached": True}
    assert tuned.metrics["epochs"] == 4 and tuned.metrics["steps"] == 12


def test_labels_scaling_and_size_are_those_of_data_and_weights(tuned, start):
    model = keras.saving.load_model(tuned.path / "model.keras")
    assert model.labels == images().labels
    assert model.input_shape == (None, 16, 16, 1)
    assert model.scaling.mean == (60.0,) and model.scaling.interpolation == "bicubic"
    assert model.scaling.crop_fraction == 0.9
    assert all(layer.trainable for layer in model.layers)


def test_the_classifier_alone_changes_nothing_else(start, tmp_path):
    before = keras.saving.load_model(start / "model.keras")
    run = train(
        "resnet20", images(), run_dir=tmp_path / "head", weights=start, head_only=True, validation=False, **SHORT
    )
    assert [row["step"] for row in read_metrics(run.path / "metrics.csv")] == [3, 6]
    ours = {weight.path: weight.numpy() for weight in run.model.weights}
    changed = [
        weight.path
        for weight in before.weights
        if not weight.path.startswith("predictions") and not np.array_equal(weight.numpy(), ours[weight.path])
    ]
    assert changed == []
    assert run.model.layers[-1].kernel.shape == (64, 4)


def test_features_are_the_inputs_of_the_classifier():
    model = network(dropout=0.5)
    batches = HELD.batches(16)
    known = heads.features(model, batches)
    pixels, labels = (np.concatenate(parts) for parts in zip(*batches.as_numpy_iterator(), strict=True))
    np.testing.assert_array_equal(known.labels, labels)
    kernel, bias = (weight.numpy() for weight in model.layers[-1].weights)
    logits = known.values @ kernel + bias
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(model.predict(pixels, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_batches_of_features_by_seed_and_epoch():
    known = heads.Features(np.arange(20, dtype="float32").reshape(10, 2), np.arange(10))

    def epochs(seed, first):
        rows = list(heads.training(known, 3, seed, first).take(6).as_numpy_iterator())
        for values, labels in rows:
            np.testing.assert_array_equal(values[:, 0], 2 * labels)
        return [labels.tolist() for _, labels in rows]

    whole = epochs(1, 0)
    assert len({label for batch in whole[:3] for label in batch}) == 9
    assert epochs(1, 1)[:3] == whole[3:]
    assert epochs(2, 0) != whole


@pytest.mark.parametrize("kind", ["train", "frozen"])
def test_batch_normalisation(kind, tmp_path):
    model = network()
    layer = model.layers[2]
    assert isinstance(layer, keras.layers.BatchNormalization)
    before = [weight.numpy() for weight in layer.weights]
    train(model, images(), run_dir=tmp_path / kind, batch_norm=kind, **SHORT)
    same = [np.array_equal(old, new.numpy()) for old, new in zip(before, layer.weights, strict=True)]
    assert same == [kind == "frozen"] * 4
    assert layer.trainable


def test_small_batches_freeze_batch_normalisation(tmp_path):
    model = network()
    before = model.layers[2].moving_mean.numpy()
    train(model, images(), run_dir=tmp_path / "run", **SHORT | {"batch_size": 4})
    np.testing.assert_array_equal(model.layers[2].moving_mean.numpy(), before)


@pytest.mark.slow
def test_freeze_up_to(start, tmp_path):
    before = {weight.path: weight.numpy() for weight in keras.saving.load_model(start / "model.keras").weights}
    run = train("resnet20", images(), run_dir=tmp_path / "run", weights=start, freeze="conv3_block3_out", **SHORT)
    changed = {
        weight.path.split("_")[0]
        for weight in run.model.weights
        if weight.path in before
        and weight.shape == before[weight.path].shape
        and not np.array_equal(weight.numpy(), before[weight.path])
    }
    assert changed == {"conv4"}
    with pytest.raises(InputError, match="has no layer 'conv9'"):
        train("resnet20", images(), run_dir=tmp_path / "no", weights=start, freeze="conv9", **SHORT)
    assert not (tmp_path / "no").exists()


@pytest.mark.slow
def test_the_best_epoch_is_kept(tmp_path):
    """The rate of the second phase destroys what was learnt, so that the first phase's weights are the best."""
    destroying = SHORT | {"epochs": 1, "learning_rate": 1e4, "warmup": 0, "schedule": "constant", "head_epochs": 20}
    run = train(network(), images(), run_dir=tmp_path / "run", validation=HELD, **destroying)
    accuracies = run.history["val_accuracy"]
    assert choosing.best_epoch([{"val_accuracy": value, "phase": 1} for value in accuracies[:-1]]) == 20
    assert accuracies[-1] < accuracies[-2]
    assert kd.training.evaluate(run.model, HELD).top1 == pytest.approx(accuracies[-2])
    assert run.metrics["val_accuracy"] == pytest.approx(accuracies[-2]) and run.metrics["kept_epoch"] == 20
    last = train(network(), images(), run_dir=tmp_path / "last", validation=HELD, **destroying | {"keep": "last"})
    assert kd.training.evaluate(last.model, HELD).top1 == pytest.approx(accuracies[-1], abs=0.03)


def test_best_epoch_of_equal_ones_is_the_last():
    rows = [
        {"phase": 1, "val_accuracy": 0.9},
        {"phase": 1, "val_accuracy": 0.5},
        *({"phase": 2, "val_accuracy": v} for v in (0.7, 0.8, 0.8)),
    ]
    assert choosing.best_epoch(rows) == 5
    assert choosing.best_epoch(rows[:2]) == 2
    assert choosing.best_epoch([{"loss": 1.0}]) == 0


def test_the_last_epoch_is_kept_unless_the_best_is_better_than_chance():
    """Two standard errors of 0.75 are 0.27 with 10 images and 0.087 with 100."""
    rows = [{"phase": 1, "val_accuracy": 0.8}, {"phase": 2, "val_accuracy": 0.75}, {"phase": 2, "val_accuracy": 0.7}]
    assert [choosing.kept_epoch(rows, keep, 10) for keep in ("last", "best", "auto")] == [3, 1, 3]
    assert [choosing.kept_epoch(rows, "auto", images) for images in (10, 70, 80, 1000)] == [3, 3, 1, 1]
    assert choosing.kept_epoch([{"val_accuracy": 1.0}, {"val_accuracy": 1.0}], "auto", 5) == 2
    assert choosing.kept_epoch([{"loss": 1.0}, {"loss": 2.0}], "auto", 0) == 2
    assert choosing.kept_epoch([{"val_accuracy": 0.9}, {"val_accuracy": float("nan")}], "auto", 50) == 1


def test_early_stopping(tmp_path):
    still = SHORT | {"recipe": "fast", "head_epochs": 0, "learning_rate": 1e-9, "epochs": 9, "early_stopping": 2}
    still |= {"ema": None, "batch_norm": "frozen"}
    run = train(network(), images(), run_dir=tmp_path / "run", validation=HELD, **still)
    assert len(run.history["loss"]) == 3
    again = train(network(), images(), run_dir=tmp_path / "run", validation=HELD, **still)
    assert again.history == run.history
    with pytest.raises(InputError, match="early_stopping=2 needs validation images"):
        train(network(), images(), run_dir=tmp_path / "no", validation=False, **still)


def test_a_finished_run_is_lengthened(tmp_path):
    options = SHORT | {"recipe": "fast", "head_epochs": 0, "learning_rate": 0.1, "validation": False}
    path = tmp_path / "run"
    train(network(), images(), run_dir=path, **options)
    run = train(network(), images(), run_dir=path, **options | {"epochs": 4})
    assert [row["step"] for row in read_metrics(path / "metrics.csv")] == [3, 6, 9, 12]
    # One-cycle over the 12 steps of the longer run, of which the rate of the eighth counts from 3.
    assert run.history["learning_rate"][2] == pytest.approx(0.1 * (12 - 8) / 9, rel=1e-5)
    assert (path / "model-after-epoch-2.keras").is_file() and (path / "model.keras").is_file()
    assert json.loads((path / "config.json").read_text())["lengthened"] == [{"after_epoch": 2, "steps": 6}]
    with pytest.raises(InputError, match="holds a finished run of 12 steps, and 9 are requested"):
        train(network(), images(), run_dir=path, **options | {"epochs": 3})
    with pytest.raises(InputError, match=r"recipe\.label_smoothing"):
        train(network(), images(), run_dir=path, **options | {"epochs": 5, "label_smoothing": 0.3})


def test_the_same_classes_keep_their_classifier(start, tmp_path):
    first = train("resnet20", images(), run_dir=tmp_path / "first", weights=start, head_only=True, **SHORT)
    again = train(
        "resnet20",
        images(),
        run_dir=tmp_path / "again",
        weights=first.path,
        head_only=True,
        **SHORT | {"head_learning_rate": 1e-12},
    )
    np.testing.assert_allclose(again.model.layers[-1].kernel.numpy(), first.model.layers[-1].kernel.numpy(), atol=1e-7)


@pytest.mark.slow
def test_own_optimizer_loss_and_schedule(tmp_path):
    own = keras.optimizers.Adam(keras.optimizers.schedules.PolynomialDecay(1e-2, 6, 1e-3))
    loss = keras.losses.SparseCategoricalCrossentropy(name="mine")
    options = SHORT | {"recipe": "fast", "head_epochs": 0, "validation": False}
    run = train(network(), images(), run_dir=tmp_path / "run", optimizer=own, loss=loss, **options)
    # The rates of the steps 3 and 6, of a straight line from 0.01 to 0.001 in six steps.
    np.testing.assert_allclose(run.history["learning_rate"], [1e-2 - 9e-3 * step / 6 for step in (2, 5)], rtol=1e-5)
    pieces = json.loads((tmp_path / "run" / "config.json").read_text())["pieces"]
    assert pieces["optimizer"]["class"] == "Adam" and pieces["loss"]["config"]["name"] == "mine"
    with pytest.raises(InputError, match=r"pieces\.optimizer"):
        train(network(), images(), run_dir=tmp_path / "run", optimizer=keras.optimizers.SGD(), loss=loss, **options)
    scheduled = train(
        network(),
        images(),
        run_dir=tmp_path / "schedule",
        learning_rate=keras.optimizers.schedules.PiecewiseConstantDecay([3], [0.02, 0.01]),
        **options | {"ema": None},
    )
    np.testing.assert_allclose(scheduled.history["learning_rate"], [0.02, 0.01], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimizer": 3.0}, "optimizer=3.0 is not one of"),
        (
            {"optimizer": keras.losses.MeanSquaredError()},
            "optimizer=.* must be a name or number of a recipe, or an object of",
        ),
        ({"learning_rate": 0.1, "optimizer": keras.optimizers.SGD()}, "learning_rate= beside an optimizer object"),
        ({"head_only": True, "recipe": "fast"}, "head_only=True needs head_epochs"),
        ({"keep": "first"}, "keep='first' is not one of 'last', 'best', 'auto'"),
    ],
)
def test_bad_pieces(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        train(network(), images(), run_dir=tmp_path / "run", **arguments)
    assert not (tmp_path / "run").exists()


def test_bad_weights(start, tmp_path):
    arguments = {"data": images(), "run_dir": tmp_path / "run"}
    with pytest.raises(InputError, match=r"is a folder without model\.keras"):
        train("resnet20", weights=tmp_path, **arguments)
    with pytest.raises(InputError, match="there is no weights file"):
        train("resnet20", weights=tmp_path / "no.keras", **arguments)
    with pytest.raises(InputError, match="is built"):
        train(network(), weights=start, **arguments)
    with pytest.raises(InputError, match=r"must be built with|unused|missing|of another"):
        train("resnet32", weights=start, **arguments)
    assert not (tmp_path / "run").exists()


def test_a_network_without_classifier_has_no_first_phase(tmp_path):
    base = network()
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), *base.layers[:-1], keras.layers.Dense(4), keras.layers.Reshape((4,))]
    )
    with pytest.raises(InputError, match="trains the classifier first"):
        train(model, images(), run_dir=tmp_path / "run", **SHORT)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("photos")
    data = images(60)
    for number, (image, label) in enumerate(data.examples().as_numpy_iterator()):
        path = folder / data.labels[label] / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tf.io.encode_png(image).numpy())
    return folder


def test_command(photos, start, tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "resnet20", str(photos), "--weights", str(start), "--run-dir", str(out), "--image-size", "16"]
    assert main([*words, "--head-only", "--set", "head_epochs=2"]) == 0
    printed = capsys.readouterr().out
    assert f"Training resnet20 from {start} with recipe fine_tune" in printed
    assert re.search(r"Classifier only: 2 epochs, \d+ steps per epoch, 8 images per step\.", printed)
    assert main(["predict", str(out), str(next(photos.rglob("*.png")))]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--weights", "nowhere.h5"], "nowhere.h5"),
        (["--weights", "timm/no_such"], "timm/no_such"),
        (["--head-only"], "head_only=True needs head_epochs"),
        (["--keep", "first"], "keep='first'"),
        (["--weights", ""], "weights"),
    ],
)
def test_command_with_bad_input(words, message, photos, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "resnet20", str(photos), "--run-dir", str(out), *words]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error and len(error.splitlines()) == 1
    assert not out.exists()
