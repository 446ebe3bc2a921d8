import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_deepnets import data
from keras_deepnets.data import records, shard_writing, shards
from keras_deepnets.errors import InputError
from tests.data.conftest import picture, write_class_folders

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def raises(message, *arguments, **options):
    with pytest.raises(InputError, match=message) as caught:
        data.load(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pairs(images):
    """Images and labels as a sorted list of bytes and numbers."""
    return sorted((image.tobytes(), int(label)) for image, label in images.examples().as_numpy_iterator())


def features(path):
    """The examples of a file: name of a feature to its only value."""
    found = []
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        items = tf.train.Example.FromString(record).features.feature
        found.append({name: getattr(item, item.WhichOneof("kind")).value[0] for name, item in items.items()})
    return found


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def written(two_classes, tmp_path):
    """Two shards of each split of the two classes."""
    data.write_shards(two_classes, tmp_path / "out", 2)
    return tmp_path / "out"


def change(folder, function):
    """Edits the index."""
    values = json.loads((folder / shards.INDEX).read_text())
    function(values)
    (folder / shards.INDEX).write_text(json.dumps(values))


def test_every_split_comes_back_as_it_was(two_classes, written):
    assert sorted(path.name for path in written.iterdir()) == [
        "shards.json",
        *(f"{split}-0000{n}-of-00002.tfrecord" for split in ("test", "train", "validation") for n in range(2)),
    ]
    for split in ("train", "validation", "test", "all"):
        ours, theirs = data.load(written, split), data.load(two_classes, split)
        assert isinstance(ours.store, records.RecordStore)
        assert (ours.labels, ours.size, ours.class_counts) == (theirs.labels, theirs.size, theirs.class_counts)
        assert ours.image_shape == (20, 24, 3) and ours.name == str(written) and ours.split == split
        assert pairs(ours) == pairs(theirs)
    assert len({image for image, _ in pairs(data.load(str(written), "all"))}) == 30


def test_files_are_stored_byte_for_byte_under_the_names_of_imagenet(tmp_path):
    write_class_folders(tmp_path / "in", {"cat": 3, "dog": 3}, size=lambda index: (20 + index, 30), extension="jpg")
    for extension in ("png", "bmp", "gif"):
        Image.fromarray(picture(1, 17, 19)).save(tmp_path / "in" / "dog" / f"more.{extension}")
    index = shard_writing.write(tmp_path / "in", tmp_path / "out", 1, split="all")
    assert index.splits["all"].image_size is None and index.splits["all"].class_counts == (3, 6)
    found = {item["image/filename"].decode(): item for item in features(tmp_path / "out/all-00000-of-00001.tfrecord")}
    assert len(found) == 9
    for name, item in found.items():
        path = tmp_path / "in" / name
        assert item["image/encoded"] == path.read_bytes()
        with Image.open(path) as image:
            assert (item["image/width"], item["image/height"]) == image.size
            assert item["image/format"].decode() == image.format
        assert item["image/class/text"].decode() == path.parent.name == ["cat", "dog"][item["image/class/label"]]
        assert (item["image/channels"], item["image/colorspace"]) == (3, b"RGB")
    assert pairs(data.load(tmp_path / "out", "all")) == pairs(data.load(tmp_path / "in", "all"))


def test_shards_are_alike_and_mixed(tmp_path):
    write_class_folders(tmp_path / "in", {"a": 14, "b": 8, "c": 3}, size=(2, 2))
    index = shard_writing.write(tmp_path / "in", tmp_path / "out", 3, split="all")
    assert [shard.examples for shard in index.splits["all"].shards] == [9, 8, 8]
    for shard in index.splits["all"].shards:
        labels = [item["image/class/label"] for item in features(tmp_path / "out" / shard.file)]
        counts = np.bincount(labels, minlength=3)
        assert counts[0] in (4, 5) and counts[1] in (2, 3) and counts[2] == 1
        assert labels != sorted(labels)


def test_a_seed_decides_all_of_it(two_classes, tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("other", 1)):
        data.write_shards(two_classes, tmp_path / name, 2, seed=seed)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert contents(tmp_path / "one") != contents(tmp_path / "other")
    assert pairs(data.load(tmp_path / "other", "test")) == pairs(data.load(two_classes, "test", seed=1))


def test_split_folders(tmp_path):
    write_class_folders(tmp_path / "in" / "train", {"a": 6, "b": 6})
    write_class_folders(tmp_path / "in" / "val", {"a": 2, "b": 1})
    assert list(shard_writing.write(tmp_path / "in", tmp_path / "out").splits) == ["train", "validation"]
    for split in ("train", "validation", "all"):
        assert pairs(data.load(tmp_path / "out", split)) == pairs(data.load(tmp_path / "in", split))
    raises("split 'test': .* has train, validation, all", tmp_path / "out", "test")
    assert data.load(tmp_path / "out", "validation", validation=5).size == 5
    assert list(shard_writing.write(tmp_path / "in", tmp_path / "one", split="validation").splits) == ["validation"]
    raises("split 'train': .* has validation, all", tmp_path / "one")


def test_sources_without_files_become_png(tmp_path):
    index = shard_writing.write("digits", tmp_path / "out", 2)
    assert (list(index.splits), index.channels, index.source) == (["train", "test"], 1, "digits")
    for split in ("train", "test"):
        ours, theirs = data.load(tmp_path / "out", split), data.load("digits", split)
        assert ours.image_shape == (8, 8, 1) and ours.labels == theirs.labels
        assert pairs(ours) == pairs(theirs)
    assert {item["image/format"] for item in features(tmp_path / "out/test-00000-of-00002.tfrecord")} == {b"PNG"}
    with pytest.raises(InputError, match="already stored in record files; load it by its name"):
        shard_writing.write(tmp_path / "out", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_validation_set_is_cut_by_seed(written):
    change(written, lambda values: values["splits"].pop("validation"))
    raises("no validation split of its own", written, "validation")
    parts = [data.load(written, split, validation=7) for split in ("train", "validation")]
    assert [part.size for part in parts] == [17, 7]
    assert sorted(pairs(parts[0]) + pairs(parts[1])) == pairs(data.load(written))
    assert parts[0].class_counts[0] + parts[1].class_counts[0] == 16
    cuts = [data.load(written, "validation", validation=7, seed=seed).store.pieces for seed in (0, 0, 1)]
    assert cuts[0] == cuts[1] != cuts[2]


def test_training_batches_are_those_of_any_stream(written, monkeypatch):
    monkeypatch.setattr("keras_deepnets.data.pipelines.VIEW_BUDGET", 0)
    arguments = {"batch_size": 24, "image_size": 12, "training": True, "augment": "random_resized_crop_flip", "seed": 3}
    train = data.load(written)
    running = train.batches(**arguments)
    epochs = [next(running.as_numpy_iterator()) for _ in range(3)]
    resumed = next(data.load(written).batches(**arguments, first_epoch=2).as_numpy_iterator())
    np.testing.assert_array_equal(resumed[0], epochs[2][0])
    np.testing.assert_array_equal(resumed[1], epochs[2][1])
    assert not np.array_equal(epochs[0][1], epochs[1][1])
    assert np.bincount(epochs[0][1]).tolist() == [16, 8]


def test_how_many_shards(two_classes, tmp_path, monkeypatch):
    assert len(shard_writing.write(two_classes, tmp_path / "one", split="all").splits["all"].shards) == 1
    total = sum(path.stat().st_size for path in two_classes.rglob("*.png"))
    monkeypatch.setattr(shard_writing, "SHARD_BYTES", total // 7)
    assert len(shard_writing.write(two_classes, tmp_path / "seven", split="all").splits["all"].shards) == 7
    monkeypatch.setattr(shard_writing, "SHARD_BYTES", 1)
    assert len(shard_writing.write(two_classes, tmp_path / "thirty", split="all").splits["all"].shards) == 30


def test_what_is_refused_before_anything_is_written(two_classes, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("Dear")
    for arguments, message in (
        ((two_classes, tmp_path / "file"), "is a file; name a new or empty folder"),
        ((two_classes, tmp_path / "full"), "is not empty; name a new or empty folder"),
        ((two_classes, two_classes / "out"), "is inside the image folder"),
        ((two_classes, tmp_path / "new" / "out", 4), "shards=4: the validation split of .* has only 3 examples"),
        ((two_classes, tmp_path / "new" / "out", 0), "shards=0 is not a whole number from 1"),
        ((two_classes, tmp_path / "new" / "out", 2.5), "shards=2.5 is not a whole number from 1"),
        ((tmp_path / "nowhere", tmp_path / "new" / "out"), "no such folder"),
    ):
        with pytest.raises(InputError, match=message):
            shard_writing.write(*arguments)
    with pytest.raises(InputError, match="split 'dev' is not one of train, validation, test, all"):
        shard_writing.write(two_classes, tmp_path / "new", split="dev")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full", "photos"]
    (tmp_path / "empty").mkdir()
    shard_writing.write(two_classes, tmp_path / "empty")
    assert data.load(tmp_path / "empty").size == 24


@pytest.mark.parametrize("limit", [None, 0])
def test_broken_images(two_classes, tmp_path, monkeypatch, limit):
    if limit is not None:  # where not every file is decoded when the folder is listed
        monkeypatch.setattr("keras_deepnets.data.verification.DECODE_LIMIT", limit)
        (two_classes / "cat" / "5.png").rename(two_classes / "cat" / "5.jpg")
        (two_classes / "cat" / "5.jpg").write_bytes(b"\xff\xd8\xff\xe0 no image \xff\xd9")
    else:
        (two_classes / "cat" / "5.png").write_bytes(b"no image")
    name = "cat/5.jpg" if limit is not None else "cat/5.png"
    with pytest.raises(InputError, match=f"{name}.*--skip-broken"):
        shard_writing.write(two_classes, tmp_path / "new" / "out", split="all")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    index = shard_writing.write(two_classes, tmp_path / "out", split="all", skip_broken=True)
    assert index.skipped == (name,) and index.splits["all"].class_counts == (19, 10)
    assert data.load(tmp_path / "out", "all").class_counts == (19, 10)
    assert len(pairs(data.load(tmp_path / "out", "all"))) == 29


def go(source, out, moment):
    words = [sys.executable, "-m", "tests.data.killed", str(source), str(out), moment]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_killed_process_leaves_nothing_that_loads(two_classes, tmp_path):
    out = tmp_path / "out"
    for moment in ("in the second shard", "before the index"):
        assert go(two_classes, out, moment).returncode == -9
        assert not out.exists()
        partial = tmp_path / ".partial-out"
        assert len(list(partial.iterdir())) == 2  # it did happen in the middle
        raises("no such folder", out)
        raises("no shards.json, which describes them", partial)
    done = go(two_classes, out, "never")
    assert done.returncode == 0, done.stderr
    assert data.load(out, "all").class_counts == (20, 10)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_a_full_disk_leaves_nothing(two_classes, tmp_path):
    done = go(two_classes, tmp_path / "new" / "out", "full")
    assert done.returncode == 1 and "File too large" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_shards_that_are_missing_cut_short_or_changed(written):
    path = written / "train-00001-of-00002.tfrecord"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    raises(rf"train-00001-of-00002.tfrecord has {len(whole) - 1:,} bytes instead of {len(whole):,}", written)
    assert data.load(written, "test").size == 3  # which is whole
    path.unlink()
    raises("shard train-00001-of-00002.tfrecord is missing", written)
    path.write_bytes(whole[:-5] + b"12345")
    assert data.load(written).size == 24
    with pytest.raises(InputError, match=r"the bytes of train-00001-of-00002\.tfrecord are not those"):
        shards.verify(written)
    path.write_bytes(whole)
    seen = []
    shards.verify(written, lambda done, total: seen.append((done, total)))
    assert len(seen) == 6 and seen[-1][0] == seen[-1][1] == sum(file.stat().st_size for file in written.glob("*.tf*"))


def test_records_are_counted(written, monkeypatch):
    path = written / "train-00000-of-00002.tfrecord"
    assert shards.count_records(path) == 12
    assert shards.count_records(written / shards.INDEX) == 0
    whole = path.read_bytes()
    first = 16 + int.from_bytes(whole[:8], "little")
    path.write_bytes(whole[:-1])
    assert shards.count_records(path) == 11
    path.write_bytes(whole[first:] + bytes(first))  # as large as it was: empty records at the end
    raises(rf"train-00000-of-00002.tfrecord holds {11 + first // 16:,} whole records instead of 12", written)
    monkeypatch.setattr(shards, "COUNT_LIMIT", 0)
    assert data.load(written).size == 24


def test_a_damaged_index(written):
    good = (written / shards.INDEX).read_text()
    for function, message in (
        (lambda values: values.update(version=2), "format version 2, but this keras_deepnets reads version 1; update"),
        (lambda values: values.update(format="other"), "is not an index of shards"),
        (lambda values: values.pop("labels"), "is damaged .KeyError: 'labels'"),
        (lambda values: values["labels"].append("cow"), "3 labels but counts of 2 classes"),
        (
            lambda values: values["splits"]["train"].update(examples=25),
            "train has 25 examples, but its shards add up to 24",
        ),
        (lambda values: values["splits"]["train"].update(class_counts=[1, 2]), "its classes add up to 3"),
        (lambda values: values["splits"]["train"]["shards"][0].pop("bytes"), "is damaged .TypeError"),
    ):
        (written / shards.INDEX).write_text(good)
        change(written, function)
        raises(message, written)
    (written / shards.INDEX).write_text(good[:100])
    raises("shards.json is damaged", written)
    (written / shards.INDEX).write_text("[]")
    raises("is not an index of shards", written)
    (written / shards.INDEX).unlink()
    raises("holds .tfrecord files but no shards.json", written)
