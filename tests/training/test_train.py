import csv
import errno
import json
import os
import re
import resource
import shutil
import types
from importlib import metadata

import keras
import numpy as np
import pytest
from tensorflow.python.summary.summary_iterator import summary_iterator

import keras_deepnets as kd
from keras_deepnets import files
from keras_deepnets.data import folders
from keras_deepnets.errors import InputError, NoSuchSplit
from keras_deepnets.training import TrainingError, checkpoints, feed, identity, train
from tests.training.common import images, network

pytestmark = pytest.mark.integration

SHORT = {"epochs": 3, "batch_size": 32, "learning_rate": 0.1, "augmentation": None, "verbose": 0}

WIDE = SHORT | {"image_size": 64}  # a network of half a megabyte, larger than any other file of the run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "quadrants"
    return train(network(), images(), "fast", path, validation=images(40, seed=1, split="test"), **SHORT)


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_folder(finished):
    names = {entry.name for entry in finished.path.iterdir() if entry.name != ".lock"}
    assert names == {
        "checkpoints",
        "config.json",
        "confusion.png",
        "curves.png",
        "inputs.png",
        "metrics.csv",
        "model.keras",
        "tensorboard",
    }
    assert [path.name for path in sorted((finished.path / "checkpoints").iterdir())] == ["epoch-00002", "epoch-00003"]


def test_it_learnt(finished):
    assert finished.metrics["val_accuracy"] == 1.0
    assert finished.metrics["steps"] == 9 and finished.metrics["epochs"] == 3


def test_metrics_file(finished):
    with (finished.path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert [int(row["step"]) for row in rows] == [3, 6, 9]
    # One-cycle over 9 steps, peak at 2.25; the rate of each epoch's last step: 2, 5, 8.
    low = 0.1 / 25
    expected = [low + (0.1 - low) * 2 / 2.25, 0.1 * 4 / 6.75, 0.1 * 1 / 6.75]
    np.testing.assert_allclose([float(row["learning_rate"]) for row in rows], expected, rtol=1e-5)
    assert [float(row["val_loss"]) for row in rows] == finished.history["val_loss"]
    assert all(float(row["images_per_second"]) > 0 for row in rows)


def test_config_file(finished):
    config = json.loads((finished.path / "config.json").read_text())
    assert config["recipe"]["epochs"] == 3 and config["recipe"]["label_smoothing"] == 0.1
    assert set(config["data"].pop("digests")) == {"pixels", "labels"}
    assert config["data"] | {"labels": None} == {
        "name": "quadrants",
        "split": "train",
        "size": 96,
        "image_shape": [8, 8, 1],
        "labels": None,
    }
    assert config["resolved"]["steps_per_epoch"] == 3 and config["resolved"]["steps"] == 9
    assert config["versions"]["keras"] == keras.__version__
    assert config["versions"]["tensorflow-datasets"] == metadata.version("tensorflow-datasets")
    assert config["deterministic"] is False
    assert config["precision"] == "float32" and config["seed"] == 0


def test_model_file_needs_no_custom_objects(finished):
    model = keras.saving.load_model(finished.path / "model.keras")
    assert type(model.optimizer) is keras.optimizers.SGD
    for ours, theirs in zip(finished.model.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    held = images(40, seed=1)
    _, accuracy = model.evaluate(held.batches(40), verbose=0)
    assert accuracy == 1.0


def test_tensorboard_has_every_epoch(finished):
    found = {}
    for file in (finished.path / "tensorboard").rglob("events*"):
        for event in summary_iterator(str(file)):
            for value in event.summary.value:
                found.setdefault((file.parent.name, value.tag), []).append(event.step)
    assert found["train", "loss"] == found["validation", "accuracy"] == [3, 6, 9]
    assert ("train", "learning_rate") in found


def test_a_finished_run_returns_its_results_and_touches_nothing(finished):
    before = snapshot(finished.path)
    model = network(seed=9)
    again = train(model, images(), "fast", finished.path, validation=images(40, seed=1, split="test"), **SHORT)
    assert again.history == finished.history and again.metrics == finished.metrics
    assert again.model is model
    np.testing.assert_array_equal(model.get_weights()[0], finished.model.get_weights()[0])
    assert snapshot(finished.path) == before


def test_another_configuration_is_refused_and_nothing_touched(finished):
    before = snapshot(finished.path)
    with pytest.raises(InputError) as error:
        train(network(), images(size=100), "fast", finished.path, validation=False, **SHORT | {"epochs": 4, "seed": 1})
    message = str(error.value)
    for part in ("data.size is 96 there, 100 here", "recipe.epochs is 3.0 there, 4.0 here", "seed is 0 there, 1 here"):
        assert part in message
    assert "validation" in message and "learning_rate" not in message and "\n" not in message
    with pytest.raises(InputError, match=r"model\.fingerprint is"):
        train(
            network(dropout=0.3), images(), "fast", finished.path, validation=images(40, seed=1, split="test"), **SHORT
        )
    assert snapshot(finished.path) == before


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("dear reader")
    with pytest.raises(InputError, match="holds other files"):
        train(network(), images(), "fast", tmp_path, **SHORT)
    with pytest.raises(InputError, match="is a file"):
        train(network(), images(), "fast", tmp_path / "thesis.tex", **SHORT)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epoch": 3}, "no field 'epoch'"),
        ({"recipe": "quick"}, "no recipe 'quick'"),
        ({"model": "resnet21"}, "resnet20"),
        ({"model": network(activation="sigmoid")}, "ends in 'sigmoid'"),
        (
            {"model": keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])},
            "4 classes",
        ),
        ({"precision": "mixed_bfloat16"}, "was built in float32"),
        ({"image_size": 16}, "takes 8×8 pixels"),
        ({"model": "resnet20", "model_options": {"classes": 4}}, "leave it out"),
        ({"data": "./nowhere"}, "nowhere"),
    ],
)
def test_bad_input_is_found_before_anything_is_written(tmp_path, arguments, message):
    arguments = {"model": network(), "data": images(), "recipe": "fast", "run_dir": tmp_path / "run"} | arguments
    with pytest.raises(InputError, match=message) as error:
        train(**arguments, verbose=0)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_labels_that_differ_are_refused(tmp_path):
    held = images(40)
    swapped = kd.data.ImageData(held.name, held.split, held.labels[::-1], held.store)
    with pytest.raises(InputError, match="must be the same, in the same order"):
        train(network(), images(), "fast", tmp_path / "run", validation=swapped, **SHORT)


def test_a_corrupt_newest_checkpoint_falls_back(tmp_path, capsys):
    class Late(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    whole = train(network(), images(), "fast", tmp_path / "whole", **SHORT)
    with pytest.raises(KeyboardInterrupt):
        train(network(), images(), "fast", tmp_path / "run", callbacks=[Late()], **SHORT)
    newest = tmp_path / "run" / "checkpoints" / "epoch-00002" / "state.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    newest.write_bytes(content)
    run = train(network(seed=8), images(), "fast", tmp_path / "run", **SHORT)
    said = capsys.readouterr().err
    assert "epoch-00002 is corrupt" in said and "falling back" in said
    for ours, theirs in zip(whole.model.get_weights(), run.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert run.history["epoch"] == [1, 2, 3]


def test_all_checkpoints_corrupt_starts_afresh(tmp_path, capsys):
    store = checkpoints.CheckpointStore(tmp_path)
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    store.save(model, checkpoints.State(1, 3, []))
    for file in tmp_path.rglob("state.json"):
        file.write_text("{")
    before = model.get_weights()
    assert store.restore(model) is None
    said = capsys.readouterr().err
    assert "epoch-00001 is corrupt" in said
    assert said.endswith("no sound checkpoint is left; starting again.\n")
    np.testing.assert_array_equal(before[0], model.get_weights()[0])


def test_a_record_that_was_changed_is_corrupt(tmp_path):
    said = []
    store = checkpoints.CheckpointStore(tmp_path, say=said.append)
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    store.save(model, checkpoints.State(1, 3, [{"epoch": 1, "loss": 0.125}]))
    assert store.restore(model) == checkpoints.State(1, 3, [{"epoch": 1, "loss": 0.125}])
    (file,) = tmp_path.rglob("state.json")
    file.write_text(file.read_text().replace("0.125", "0.375"))
    assert store.restore(model) is None
    assert "state.json is not what was written" in said[0]


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
@pytest.mark.parametrize("what", ["weight", "statistic"])
@pytest.mark.parametrize("validation", [False, 0.25])
def test_what_the_last_step_of_an_epoch_spoils_is_not_kept(tmp_path, policy, what, validation):
    """The loss of the epoch is finite: only what is measured after it, and the variables, tell."""

    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

        def on_train_batch_end(self, batch, logs=None):
            if (self.epoch, batch) == (1, self.params["steps"] - 1):
                variable = {"weight": self.model.layers[-1].kernel, "statistic": self.model.layers[2].moving_mean}[what]
                variable.assign(np.full(variable.shape, np.nan))

    keras.config.set_dtype_policy(policy)
    model = network()
    keras.config.set_dtype_policy("float32")
    arguments = SHORT | {"validation": validation, "batch_size": 24, "ema": None if validation else 0.9}
    said = "The validation loss became nan in epoch 2" if validation else r".*/\w+ is not finite after epoch 2"
    with pytest.raises(TrainingError, match=said + r"; .*Last good checkpoint: .*epoch-00001\."):
        train(model, images(), "fast", tmp_path / "run", callbacks=[Spoil()], **arguments)
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["epoch-00000", "epoch-00001"]
    assert not (tmp_path / "run" / "model.keras").exists()


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.model.layers[-1].kernel.assign(np.full(self.model.layers[-1].kernel.shape, np.nan))

    with pytest.raises(
        TrainingError, match=r"The loss became nan in epoch 2, step \d.*Last good checkpoint: .*epoch-00001"
    ):
        train(network(), images(), "fast", tmp_path / "run", callbacks=[Spoil()], **SHORT)
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["epoch-00000", "epoch-00001"]
    run = train(network(), images(), "fast", tmp_path / "run", **SHORT)
    assert np.isfinite(run.history["loss"]).all() and len(run.history["loss"]) == 3


def test_no_space_left_keeps_the_last_checkpoint(tmp_path):
    """The system itself refuses to write on, as at a quota: in the middle of the checkpoint's largest file."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Fill(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                whole = (tmp_path / "run" / "checkpoints" / "epoch-00001" / "state.safetensors").stat().st_size
                resource.setrlimit(resource.RLIMIT_FSIZE, (whole - 1000, limits[1]))

    try:
        with pytest.raises(
            TrainingError, match=r"No space left for checkpoint .*epoch-00002\. Last good checkpoint: .*epoch-00001"
        ) as error:
            train(network(size=64), images(), "fast", tmp_path / "run", **WIDE, callbacks=[Fill()])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert sorted(entry.name for entry in (tmp_path / "run" / "checkpoints").iterdir()) == [
        "epoch-00000",
        "epoch-00001",
    ]
    assert len(train(network(size=64), images(), "fast", tmp_path / "run", **WIDE).history["loss"]) == 3


def test_no_space_left_for_the_folder_itself(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("keras_deepnets.training.run.write_json", full)
    with pytest.raises(InputError, match="No space left on device"):
        train(network(), images(), "fast", tmp_path / "run", **SHORT)
    assert not (tmp_path / "run").exists()


def test_length_in_steps_ends_within_an_epoch(tmp_path):
    run = train(
        network(),
        images(),
        "fast",
        tmp_path / "run",
        validation=0.25,
        **SHORT | {"epochs": None, "steps": 5, "batch_size": 24},
    )
    assert run.history["step"] == [3, 5]  # 72 images are left to train on
    assert len(run.history["val_loss"]) == 2


def test_fewer_images_than_a_batch(tmp_path):
    run = train(network(), images(size=20), "fast", tmp_path / "run", **SHORT | {"batch_size": 512})
    assert run.history["step"] == [1, 2, 3]


def test_lines_and_silence(tmp_path, capsys):
    train(network(), images(), "fast", tmp_path / "lines", validation=False, **SHORT | {"verbose": 2})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    plan = r"Training: 3 epochs, 3 steps per epoch, 32 images per step\."
    assert re.fullmatch(rf"On .* in float32 \(as the model was built\), .*XLA (on|off)\. {plan}", lines[0])
    assert re.fullmatch(r"epoch 3/3  loss \d\.\d{4}  accuracy \d\.\d{4}  lr 0\.0148  [\d,]+ img/s  [\d.]+ s", lines[3])
    train(network(), images(), "fast", tmp_path / "silent", **SHORT)
    assert capsys.readouterr() == ("", "")


def test_average_of_the_weights(tmp_path):
    """What is kept is the running average, and that is what was validated."""
    held = images(40, seed=1, split="test", noise=105)
    run = train(
        network(), images(), "fast", tmp_path / "run", validation=held, **SHORT | {"ema": 0.8, "label_smoothing": 0.0}
    )
    loss, _ = run.model.evaluate(held.batches(40), verbose=0)
    np.testing.assert_allclose(loss, run.history["val_loss"][-1], rtol=1e-5)
    plain = train(
        network(),
        images(),
        "fast",
        tmp_path / "plain",
        validation=held,
        **SHORT | {"ema": None, "label_smoothing": 0.0},
    )
    np.testing.assert_allclose(plain.history["loss"], run.history["loss"], rtol=1e-6)  # training is not changed by it
    assert abs(plain.history["val_loss"][-1] - loss) > 1e-4


def test_plateau_divides_the_rate(tmp_path):
    run = train(
        network(),
        images(),
        "fast",
        tmp_path / "run",
        validation=False,
        **SHORT | {"schedule": "plateau", "patience": 1, "epochs": 6, "learning_rate": 0.2},
    )
    errors, rate, best, expected = [1 - value for value in run.history["accuracy"]], 0.2, float("inf"), []
    for error in errors:
        expected.append(rate)
        rate = rate if error < best else rate / 10
        best = min(best, error)
    assert expected[-1] < 0.1
    np.testing.assert_allclose(run.history["learning_rate"], expected, rtol=1e-5)


def test_a_given_model_in_half_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = network()
    keras.config.set_dtype_policy("float32")
    run = train(model, images(), "fast", tmp_path / "run", **SHORT)
    assert json.loads((run.path / "config.json").read_text())["precision"] == "mixed_bfloat16"
    assert run.metrics["accuracy"] > 0.9


def test_loss_scaling_in_float16(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = network()
    keras.config.set_dtype_policy("float32")
    run = train(model, images(), "fast", tmp_path / "run", **SHORT)
    assert run.metrics["accuracy"] > 0.9


def test_what_overflows_in_float16_stops(tmp_path):
    # Loss scaling leaves out the steps whose gradients are not finite: without a word, it would be all that follow.
    class Grow(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                first = next(layer for layer in self.model.layers if isinstance(layer, keras.layers.Conv2D))
                first.kernel.assign(first.kernel * 1e8)

    keras.config.set_dtype_policy("mixed_float16")
    model = network()
    keras.config.set_dtype_policy("float32")
    with pytest.raises(
        TrainingError, match=r"The loss became (nan|inf) in epoch 2, .*Last good checkpoint: .*epoch-00001"
    ):
        train(model, images(), "fast", tmp_path / "run", **SHORT, callbacks=[Grow()])
    assert (tmp_path / "run" / "checkpoints").is_dir()


def test_a_named_network(tmp_path):
    run = train(
        "resnet20",
        images(64),
        "fast",
        tmp_path / "run",
        image_size=16,
        validation=False,
        epochs=1,
        batch_size=32,
        verbose=0,
        precision="mixed_bfloat16",
    )
    model = run.model
    assert model.input_shape == (None, 16, 16, 3) and model.labels == images().labels
    mean, std = images(64).statistics()
    np.testing.assert_allclose(model.scaling.mean, [mean[0]] * 3)
    np.testing.assert_allclose(model.scaling.std, [std[0]] * 3)
    assert keras.config.dtype_policy().name == "float32"
    config = json.loads((run.path / "config.json").read_text())
    assert config["model"] == {"name": "resnet20", "input_shape": [16, 16, 3], "options": {}}
    assert config["resolved"]["augmentation"] == "pad_crop_flip"
    again = kd.training.train(
        "ResNet20",
        images(64),
        "fast",
        tmp_path / "run",
        image_size=16,
        validation=False,
        epochs=1,
        batch_size=32,
        verbose=0,
        precision="mixed_bfloat16",
    )
    np.testing.assert_array_equal(again.model.get_weights()[0], model.get_weights()[0])


def test_images_are_measured_in_batches_that_fit_beside_the_training(monkeypatch):
    def batch(side, training_batch):
        model = types.SimpleNamespace(input_shape=(None, side, side, 3), name="model", layers=[])
        return feed.evaluation_batch(model, images(), training_batch)

    assert batch(224, 8) == 8
    assert batch(224, 64) == 64
    assert batch(224, 2048) == 256
    assert batch(32, 8) == 256
    assert batch(64, 8) == 64


def test_a_run_measures_in_such_batches(tmp_path):
    steps = []

    class Note(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            steps.append(batch)

    held = images(40, seed=1, split="test")
    arguments = SHORT | {"epochs": 1, "batch_size": 8, "image_size": 112}
    train(network(size=112), images(), "fast", tmp_path / "run", validation=held, callbacks=[Note()], **arguments)
    assert feed.evaluation_batch(network(size=112), held, 8) == 20
    assert steps == [0, 1]


def test_a_file_of_a_model(tmp_path):
    network(dropout=0.0).save(tmp_path / "own.keras")
    whole = train(network(dropout=0.0), images(), "fast", tmp_path / "whole", **SHORT)
    run = train(tmp_path / "own.keras", images(), "fast", tmp_path / "run", **SHORT)
    np.testing.assert_allclose(run.history["loss"], whole.history["loss"], rtol=1e-5)
    config = json.loads((run.path / "config.json").read_text())
    assert config["model"]["file"] == files.digest(tmp_path / "own.keras")
    network(seed=4, dropout=0.0).save(tmp_path / "own.keras")  # other weights
    with pytest.raises(InputError, match=r"belongs to another configuration: model\.file is"):
        train(str(tmp_path / "own.keras"), images(), "fast", tmp_path / "run", **SHORT)
    (tmp_path / "own.keras").write_text("no zip")
    with pytest.raises(InputError, match=r"own\.keras cannot be loaded as a Keras model"):
        train(str(tmp_path / "own.keras"), images(), "fast", tmp_path / "new", **SHORT)
    with pytest.raises(InputError, match=r"away\.keras does not exist"):
        train("away.keras", images(), "fast", tmp_path / "new", **SHORT)


def test_a_resumed_run_says_what_is_other_around_it(tmp_path, capsys):
    with pytest.raises(KeyboardInterrupt):
        train(network(), images(), "fast", tmp_path / "run", callbacks=[Stop()], **SHORT)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    config["versions"]["keras"] = "3.12.0"
    del config["versions"]["tensorflow-datasets"], config["data"]["digests"]  # as an older version left them
    config["deterministic"] = True
    (tmp_path / "run" / "config.json").write_text(json.dumps(config))
    train(network(), images(), "fast", tmp_path / "run", **SHORT)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f'Resuming {tmp_path / "run"} with different software: versions.keras is "3.12.0" there, "{keras.__version__}" here; '
        "deterministic is true there, false here."
    )


class Stop(keras.callbacks.Callback):
    """Ctrl-C in the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_other_images_in_the_same_place_are_refused(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(network(), images(), "fast", tmp_path / "run", callbacks=[Stop()], **SHORT)
    with pytest.raises(InputError, match="configuration: data: the pixels of the images differ; data: the labels"):
        train(network(), images(seed=5), "fast", tmp_path / "run", **SHORT)


def test_digests_of_files_and_of_shards(tmp_path):
    folder = tmp_path / "folder"
    rng = np.random.default_rng(0)
    for name in ("left", "right"):
        (folder / name).mkdir(parents=True)
        for number in range(10):
            keras.utils.save_img(folder / name / f"{number}.png", rng.integers(0, 256, (8, 8, 3)))

    def digests(source=folder):
        return identity.identity(kd.data.load(source, "all"))["digests"]

    first = digests()
    assert set(first) == {"names", "files"} and digests() == first
    os.utime(folder / "left" / "3.png", (1, 1))
    second = digests()
    assert second["names"] == first["names"] and second["files"] != first["files"]
    (folder / "left" / "3.png").rename(folder / "left" / "33.png")
    assert digests()["names"] != first["names"]
    kd.data.write_shards(folder, tmp_path / "shards", 1)
    records = digests(tmp_path / "shards")
    assert set(records) == {"records"} and digests(tmp_path / "shards") == records
    keras.utils.save_img(folder / "left" / "4.png", rng.integers(0, 256, (8, 8, 3)))
    kd.data.write_shards(folder, tmp_path / "others", 1)
    assert digests(tmp_path / "others") != records


def test_public_names():
    for name in kd.training.__all__:
        value = getattr(kd.training, name)
        assert value.__doc__ and value.__doc__.strip(), name
        assert name in dir(kd.training)
    parts = {"BinaryCrossentropy", "Curves", "ExponentialFall", "Lamb", "TopAccuracy", "learning_rate", "optimizer"}
    assert parts < set(kd.training.__all__)


def test_a_recipe_by_hand(tmp_path):
    """What a recipe names, composed of the public pieces alone."""
    recipe = kd.training.get_recipe("wightman2021_a3", batch_size=32, epochs=2)
    assert type(kd.training.optimizer(recipe, 6, 3)) is kd.training.Lamb
    assert type(kd.training.learning_rate(recipe, 6, 3)) is kd.training.WarmUp
    model = network()
    rate = kd.training.ExponentialFall(1e-2, 6)
    loss = kd.training.BinaryCrossentropy(0.1)
    model.compile(kd.training.Lamb(rate, weight_decay=0.02), loss, metrics=[kd.training.TopAccuracy(1)])
    history = []
    model.fit(
        images().batches(32, training=True, drop_remainder=True),
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[
            kd.training.MetricsFile(tmp_path / "metrics.csv", history, 32),
            kd.training.Curves(kd.training.RunFolder(tmp_path), 0),
        ],
    )
    assert [row["step"] for row in history] == [3, 6]
    np.testing.assert_allclose(history[-1]["learning_rate"], 1e-2 * 0.01 ** (5 / 6), rtol=1e-5)
    assert (tmp_path / "curves.png").exists()


def test_a_validation_split_that_cannot_be_used_is_said(tmp_path):
    folder = tmp_path / "folder"
    for split in ("train", "validation", "test"):
        for name in ("left", "right"):
            (folder / split / name).mkdir(parents=True)
            for number in range(4):
                keras.utils.save_img(folder / split / name / f"{number}.png", np.full((8, 8, 3), 9 * number))
    assert feed.load(folder, None, 0).held.split == "validation"
    (folder / "validation" / "left" / "2.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"validation: 1 of 8 images cannot be decoded \(validation/left/2\.png\)"):
        feed.load(folder, None, 0)
    assert feed.load(folder, None, 0, skip_broken=True).held.size == 7
    shutil.rmtree(folder / "validation")
    assert feed.load(folder, None, 0).held.split == "test"
    shutil.rmtree(folder / "test")
    assert feed.load(folder, None, 0).held.split == "validation"  # cut out of the training images
    assert feed.load(folder, False, 0).held is None


def test_a_split_that_is_not_there_costs_no_reading(tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    for split in ("train", "test"):
        for name in ("left", "right"):
            (folder / split / name).mkdir(parents=True)
            keras.utils.save_img(folder / split / name / "0.png", np.zeros((8, 8, 3)))
    read = []
    load_files = folders._load_files
    monkeypatch.setattr(folders, "_load_files", lambda *a: (read.append(a[3]), load_files(*a))[1])
    sets = feed.load(folder, None, 0)
    assert (sets.held.split, sets.cut) == ("test", None)
    assert read == ["train", "test"]
    with pytest.raises(NoSuchSplit, match="no validation split of its own"):
        kd.data.load(folder, "validation")


def test_a_cut_is_recorded(tmp_path):
    run = train("resnet20", "digits", "fast", tmp_path / "run", validation=437, image_size=8, **DIGITS)
    config = json.loads((run.path / "config.json").read_text())
    assert (config["data"]["size"], config["validation"]["size"], config["validation"]["cut"]) == (1000, 437, 437)
    assert feed.load("digits", 0.1, 0).cut == 0.1
    assert feed.load(images(), 0.25, 0).cut is None  # who loaded them knows what they were cut from
    with pytest.raises(InputError, match=r"validation=0\.2: the data was loaded with a validation set"):
        feed.load(feed.load(images(), 0.25, 0), 0.2, 0)


DIGITS = {"steps": 1, "batch_size": 32, "precision": "float32", "verbose": 0}


@pytest.mark.parametrize(("size", "fraction", "expected"), [(72, None, 0.875), (72, 0.95, 0.95), (32, None, 1.0)])
def test_a_named_network_is_measured_on_its_view(tmp_path, size, fraction, expected):
    """The centre crop of the papers for larger images; whole images for small ones."""
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 256, (6, 90, 100, 3)).astype("uint8")
    labels = np.arange(6) % 2
    data = kd.data.ImageData.from_arrays(pixels, labels, ("left", "right"), "noise")
    changes = {"steps": 1, "batch_size": 6, "image_size": size, "crop_fraction": fraction, "augmentation": None}
    run = train("resnet20", data, "he2015_cifar", tmp_path / "run", validation=data, verbose=0, **changes)
    assert kd.models.scaling_of(run.model).crop_fraction == expected
    assert json.loads((run.path / "config.json").read_text())["resolved"]["scaling"]["crop_fraction"] == expected
    views = kd.data.transforms.evaluation_view(pixels, size, size, crop_fraction=expected).numpy()
    outputs = np.asarray(run.model.predict_on_batch(views), np.float64)
    assert run.metrics["val_loss"] == pytest.approx(-np.log(outputs[np.arange(6), labels]).mean(), rel=1e-4)
    assert run.metrics["val_accuracy"] == pytest.approx((outputs.argmax(1) == labels).mean())
    assert run.model.input_shape == (None, size, size, 3)
    if expected < 1:
        assert kd.training.evaluate(run.model, data, crops=10).size == 6


def test_values_divided_by_255(tmp_path):
    changes = {"steps": 1, "input_scaling": "unit", "augmentation": None, "precision": "float32", "verbose": 0}
    run = train("resnet20", images(), "fast", tmp_path / "run", validation=False, **changes)
    scaling = kd.models.scaling_of(run.model)
    assert (scaling.mean, scaling.std) == ((0.0,) * 3, (255.0,) * 3)
