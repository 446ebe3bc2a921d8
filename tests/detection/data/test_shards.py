import json

import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets.detection import data
from keras_deepnets.errors import InputError, NoSuchSplit
from tests.detection.data.folders import many, plain, write_coco


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return data.load(many(tmp_path_factory.mktemp("many")))


@pytest.fixture
def shards(train, tmp_path):
    data.write_shards(train, tmp_path / "shards", shards=3)
    return tmp_path / "shards"


def raises(message, *arguments, **options):
    with pytest.raises(InputError, match=message) as caught:
        data.load(*arguments, **options)
    assert "\n" not in str(caught.value)


def test_shards_hold_the_same_data(train, shards):
    stored = data.load(shards)
    assert sorted(path.name for path in shards.iterdir()) == [
        "detection.json",
        "train-00000-of-00003.tfrecord",
        "train-00001-of-00003.tfrecord",
        "train-00002-of-00003.tfrecord",
        "train.npz",
    ]
    assert (stored.classes, stored.size, stored.report()[-16:]) == (train.classes, 10, train.report()[-16:])
    originals = {each.image_id: each for each in train.annotations}
    for annotation in stored.annotations:
        original = originals.pop(annotation.image_id)
        assert plain(annotation) == plain(original) and annotation.area.tolist() == original.area.tolist()
        assert annotation.image.read() == original.image.read()
    assert not originals
    for number, example in enumerate(stored.examples().as_numpy_iterator()):
        np.testing.assert_array_equal(example["image"], stored.image(number))
    assert len(data.load(shards, limit=4)) == 4


def test_records_have_the_standard_fields(train, shards):
    names = sorted(map(str, shards.glob("*.tfrecord")))
    (record,) = tf.data.TFRecordDataset(names).take(1).as_numpy_iterator()
    fields = tf.train.Example.FromString(record).features.feature
    annotation = data.load(shards).annotations[0]
    assert fields["image/source_id"].bytes_list.value[0].decode() == annotation.image_id
    assert list(fields["image/object/class/label"].int64_list.value) == annotation.labels.tolist()
    np.testing.assert_allclose(
        fields["image/object/bbox/xmax"].float_list.value, annotation.boxes[:, 2] / annotation.width, rtol=1e-6
    )


def test_writing_is_reproducible(train, shards, tmp_path):
    data.write_shards(train, tmp_path / "again", shards=3)
    for path in shards.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    assert data.verify_shards(shards).splits["train"].examples == 10


def test_several_splits_and_dropped_boxes(tmp_path):
    for split in ("train", "val"):
        write_coco(
            tmp_path, split, {f"{split}.png": [(1, 1, 1, 0, 5, {}), (1, 1, 1, 9, 9, {"iscrowd": 1})]}, {1: "dog"}
        )
    sets = {split: data.load(tmp_path, split) for split in ("train", "val")}
    data.write_shards(sets, tmp_path / "other/shards")
    stored = data.load(tmp_path / "other/shards", "validation")
    assert stored.dropped == sets["val"].dropped and stored.dropped.counts == {"without area": 1}
    assert stored.annotations[0].crowd.tolist() == [True] and stored.split == "val"
    with pytest.raises(NoSuchSplit, match="has train, val"):
        data.load(tmp_path / "other/shards", "test")


def test_unfinished_and_damaged_folders(shards):
    first = shards / "train-00000-of-00003.tfrecord"
    contents = first.read_bytes()
    first.write_bytes(contents[:-1])
    raises("bytes instead of", shards)
    first.write_bytes(contents[:-1] + b"?")
    with pytest.raises(InputError, match=r"the bytes of train-00000-of-00003.tfrecord are not those"):
        data.verify_shards(shards)
    first.unlink()
    raises("train-00000-of-00003.tfrecord is missing", shards)
    boxes = (shards / "train.npz").read_bytes()
    first.write_bytes(contents)
    (shards / "train.npz").write_bytes(b"?" + boxes[1:])
    raises("train.npz is damaged", shards)
    index = json.loads((shards / "detection.json").read_text())
    for change, message in [
        ({"version": 2}, "has format version 2"),
        ({"format": "x"}, "is not an index"),
        ({"splits": {"train": {}}}, "is damaged .KeyError"),
    ]:
        (shards / "detection.json").write_text(json.dumps(index | change))
        raises(message, shards)
    (shards / "detection.json").write_text("{")
    raises("detection.json is damaged", shards)
    (shards / "detection.json").unlink()
    raises("no detection.json, so it is unfinished", shards)
    (shards / "shards.json").write_text("{}")
    raises("shards for classification, without boxes", shards)


def test_a_failure_leaves_no_folder(train, tmp_path, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_deepnets.detection.data.shard_writing._arrays", fail)
    with pytest.raises(KeyboardInterrupt):
        data.write_shards(train, tmp_path / "shards")
    assert not list(tmp_path.iterdir())


def test_bad_arguments(train, shards, tmp_path):
    for arguments, options, message in [
        ((train, shards), {}, "is not empty"),
        ((train, tmp_path / "x"), {"shards": 11}, "has only 10 images"),
        ((train, tmp_path / "x"), {"shards": 0}, "shards=0"),
        (({}, tmp_path / "x"), {}, "holds no split"),
        (({"a": train, "b": data.load(train.name, classes=["dog"])}, tmp_path / "x"), {}, "other classes"),
    ]:
        with pytest.raises(InputError, match=message):
            data.write_shards(*arguments, **options)
    raises("classes=.* is not for shards", shards, classes=["dog"])
