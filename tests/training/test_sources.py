"""What a run is fed with: where its validation images come from, how many it trains on, and images that are loaded already."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets.data import ImageData, arrays
from keras_deepnets.errors import InputError, NoSuchSplit
from keras_deepnets.training import evaluate, feed, train
from keras_deepnets.training.identity import identities
from keras_deepnets.training.measured import RunRecord, images_to_measure
from tests.training.common import images, network

pytestmark = pytest.mark.integration

SHORT = {"epochs": 2, "batch_size": 32, "learning_rate": 0.1, "augmentation": None, "verbose": 0}
NAMES = ["north-west", "north-east", "south-west", "south-east"]


def plain(size=96, seed=0, **arguments):
    """The quadrants as arrays."""
    found = images(size, seed, **arguments)
    return found.store.pixels.images, found.store.labels


def dataset(size=96, seed=0):
    return tf.data.Dataset.from_tensor_slices(plain(size, seed))


def uneven(*counts):
    """Black images, so many of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return ImageData.from_arrays(np.zeros((len(labels), 4, 4, 1), np.uint8), labels, tuple("abcdefgh"[: len(counts)]))


def write_folder(folder, counts, splits=("train",)):
    for split in splits:
        for name, count in counts.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                keras.utils.save_img(folder / split / name / f"{number}.png", np.full((8, 8, 3), number), scale=False)
    return folder


# --- Validation by default


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((100, 100), (10, 10)),
        ((100, 5), (9, 1)),  # one at least
        ((200, 3, 3, 3), (18, 1, 1, 1)),
        ((6, 6, 6, 6), (1, 1, 1, 1)),
        ((100, 2), (9, 1)),
        ((2, 2), (0, 0)),
    ],
)
def test_a_tenth_is_cut_out_of_images_that_are_loaded(counts, expected):
    data = uneven(*counts)
    sets = feed.load(data, None, 0)
    if not any(expected):
        assert sets.held is None and sets.train is data
        return
    assert sets.held.class_counts == expected
    assert sets.train.class_counts == tuple(all_ - cut for all_, cut in zip(counts, expected, strict=True))
    assert (sets.held.split, sets.cut) == ("validation", None)
    assert set(sets.held.store.rows).isdisjoint(sets.train.store.rows)
    again = feed.load(data, None, 0)
    np.testing.assert_array_equal(again.held.store.rows, sets.held.store.rows)
    if counts[0] == 100:
        assert set(feed.load(data, None, 1).held.store.rows) != set(sets.held.store.rows)


@pytest.mark.parametrize("source", [plain, dataset, images])
def test_none_where_none_is_wanted(source):
    sets = feed.load(source(), False, 0)
    assert sets.held is None and sets.train.size == 96


def test_of_a_source_with_training_images_only(tmp_path):
    """As of loaded images; the size is recorded, so that `evaluate --split validation` finds the same."""
    folder = write_folder(tmp_path / "folder", {"left": 30, "right": 10})
    sets = feed.load(folder, None, 3)
    assert (sets.cut, sets.held.class_counts) == (4, (3, 1))
    again = kd.data.load(folder, "validation", validation=sets.cut, seed=3)
    np.testing.assert_array_equal(again.store.rows, sets.held.store.rows)


def test_of_records_a_tenth(tmp_path):
    folder = write_folder(tmp_path / "folder", {"left": 30, "right": 10})
    kd.data.write_shards(folder, tmp_path / "shards")
    sets = feed.load(tmp_path / "shards", None, 0)
    assert (sets.train.size, sets.held.size, sets.cut) == (36, 4, 4)


def test_a_folder_without_splits_keeps_images_back_only_where_they_are_used(tmp_path):
    """Another source for validation: all images are trained on. No validation: all but the test part, which `evaluate` measures."""
    folder = write_folder(tmp_path / "a", {"left": 30, "right": 10}) / "train"
    other = write_folder(tmp_path / "b", {"left": 5, "right": 2}) / "train"
    measured = {
        None: ("test split: 4 of 40 images, the rest was used for training and validation"),
        False: ("test split: 4 of 40 images, the rest was used for training and validation"),
        other: ("all 40 images, the run was trained on these"),
    }
    for validation, trained, held in ((None, 32, 4), (False, 36, 0), (other, 40, 7)):
        sets = feed.load(folder, validation, 3)
        assert (sets.train.size, sets.held.size if sets.held else 0) == (trained, held)
        run = tmp_path / f"run-{trained}"
        run.mkdir()
        (run / "config.json").write_text(json.dumps(identities(sets) | {"seed": 3}))
        record = RunRecord.beside(run / "model.keras")
        assert str(images_to_measure(folder, None, record)) == measured[validation]
        moved = folder.rename(tmp_path / "moved")  # found again by the names of its files
        folder.mkdir()
        assert str(images_to_measure(moved, None, record)) == measured[validation]
        folder.rmdir()
        moved.rename(folder)
        part = images_to_measure(folder, "train", record)
        if validation is not other:
            assert part.images.size == trained
        if validation is False:
            with pytest.raises(NoSuchSplit, match="trained without validation images; give test, train or all"):
                images_to_measure(folder, "validation", record)


# --- Fewer training images


def test_limit():
    sets = feed.load(images(400), 0.25, 0, limit=40)
    assert (sets.train.size, sets.held.size) == (40, 100)
    whole = feed.load(images(400), 0.25, 0)
    np.testing.assert_array_equal(sets.held.store.rows, whole.held.store.rows)
    assert set(sets.train.store.rows) < set(whole.train.store.rows)
    again = feed.load(images(400), 0.25, 0, limit=40)
    np.testing.assert_array_equal(sets.train.store.rows, again.train.store.rows)
    assert feed.load(images(), False, 0, limit=1000).train.size == 96


@pytest.mark.parametrize(
    ("counts", "limit", "expected"),
    [
        ((60, 30, 10), 20, (12, 6, 2)),
        ((100, 1), 50, (49, 1)),
        ((97, 1, 1, 1), 4, (1, 1, 1, 1)),
        ((5, 0, 5), 2, (1, 0, 1)),
    ],
)
def test_a_limit_leaves_no_class_out(counts, limit, expected):
    assert feed.load(uneven(*counts), False, 0, limit=limit).train.class_counts == expected


@pytest.mark.parametrize("limit", [0, -1, 2.5, True, "ten"])
def test_a_bad_limit(limit):
    with pytest.raises(InputError, match=re.escape(f"limit={limit!r}: give a whole number")):
        feed.load(images(), None, 0, limit=limit)


def test_a_limit_below_the_number_of_classes():
    with pytest.raises(InputError, match="limit=3 leaves 1 of 4 classes without an image; give at least 4"):
        feed.load(images(), None, 0, limit=3)
    with pytest.raises(InputError, match="limit=5: the data is loaded already"):
        feed.load(feed.load(images(), None, 0), None, 0, limit=5)


def test_a_limit_belongs_to_the_run(tmp_path):
    run = train(network(), images(), "fast", tmp_path / "run", limit=40, **SHORT)
    config = json.loads((run.path / "config.json").read_text())
    assert (config["data"]["size"], config["validation"]["size"]) == (40, 10)
    with pytest.raises(InputError, match=r"data\.size is 40 there, 60 here"):
        train(network(), images(), "fast", tmp_path / "run", limit=60, **SHORT)


# --- Images that are loaded already


def test_a_run_on_arrays(tmp_path):
    run = train(network(), plain(), "fast", tmp_path / "run", validation=plain(40, seed=1), **SHORT | {"epochs": 4})
    assert run.metrics["val_accuracy"] == 1.0
    config = json.loads((run.path / "config.json").read_text())
    assert (config["data"]["name"], config["data"]["size"]) == ("arrays", 96)
    assert (config["validation"]["split"], config["validation"]["size"]) == ("validation", 40)
    found = evaluate(run.model, plain(40, seed=1))
    assert (found.top1, found.size, found.loss) == (1.0, 40, pytest.approx(found.loss))
    assert evaluate(run.model, dataset(40, seed=1).batch(9)).loss == pytest.approx(found.loss, rel=1e-5)
    changed = plain()[0].copy()
    changed[0, 0, 0, 0] ^= 1
    with pytest.raises(InputError, match="data: the pixels of the images differ"):
        train(network(), (changed, plain()[1]), "fast", run.path, validation=plain(40, seed=1), **SHORT | {"epochs": 4})


def test_a_run_on_a_dataset_resumes_whatever_its_order(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    def source():
        return dataset().shuffle(96).batch(10)

    with pytest.raises(KeyboardInterrupt):
        train(network(), source(), "fast", tmp_path / "run", callbacks=[Stop()], **SHORT)
    run = train(network(), source(), "fast", tmp_path / "run", **SHORT)
    whole = train(network(), source(), "fast", tmp_path / "whole", **SHORT)
    assert run.history["step"] == [2, 4]
    for one, other in zip(run.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def test_class_names_of_validation_arrays_are_those_of_training():
    named = kd.data.load(plain(), labels=NAMES)
    few = tuple(part[plain()[1] < 2] for part in plain())  # two of the classes only
    for held in (few, tf.data.Dataset.from_tensor_slices(few), (few[0], np.array(NAMES)[few[1]])):
        sets = feed.load(named, held, 0)
        assert sets.held.labels == tuple(NAMES)
        assert sets.held.class_counts[2:] == (0, 0)
    with pytest.raises(InputError, match="label 3 is not one of the 3 classes"):
        feed.load(tuple(part[plain()[1] < 3] for part in plain()), plain(), 0)
    other = dataset()
    other.class_names = NAMES[::-1]
    with pytest.raises(InputError, match="they must be the same, in the same order"):
        feed.load(named, other, 0)


def test_class_names_of_evaluated_arrays_are_those_of_the_model():
    model = network()
    few = tuple(part[plain()[1] < 2] for part in plain())
    assert list(evaluate(model, few).per_class) == ["0", "1"]
    model.labels = NAMES
    assert list(evaluate(model, few).per_class) == NAMES[:2]
    with pytest.raises(InputError, match="label 4 is not one of the 4 classes"):
        evaluate(model, (few[0], few[1] + 3))


@pytest.mark.parametrize("bad", [np.zeros((4, 8, 8, 1), np.uint8), 3, {"images": 1}, np.int64(3)])
def test_bad_data_is_said_before_anything_is_written(tmp_path, bad):
    with pytest.raises(InputError, match="The data is"):
        train(network(), bad, "fast", tmp_path / "run", **SHORT)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_examples_of_the_documentation(tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    section = text[text.index("## Data that is already loaded") : text.index("## Class weights")]
    examples = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(examples) == 3
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), np.arange(40, dtype=np.uint8)[:, None] % 10
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: ((pixels, labels), (pixels[:20], labels[:20])))
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path, {"left": 6, "right": 6}, ["photos"])
    for example in examples:
        exec(example, {})
    assert sorted(path.parent.name for path in tmp_path.glob("runs/*/model.keras")) == ["arrays", "dataset", "photos"]


def test_what_is_a_source():
    assert [arrays.is_loaded(source) for source in ("digits", images(), plain(), dataset(), None)] == [
        False, False, True, True, True,
    ]  # fmt: skip
