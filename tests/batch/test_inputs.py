"""The images of a job: found, cut into shards, and read. Beam is not needed."""

import struct
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets.batch import inputs, rows
from keras_deepnets.errors import InputError


def names(sources):
    return [source.path for source in sources]


def read(sources, count, folder):
    """All images, shard by shard."""
    works, listing = inputs.cut(sources, count)
    (folder / "list.jsonl").write_bytes(listing)
    return [list(inputs.images_of(work, str(folder / "list.jsonl"), "")) for work in works]


def record_file(path, features):
    """Write records, each with one feature. A name of None writes bytes that are no example."""
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name, value in features:
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
            example = tf.train.Example(features=tf.train.Features(feature={name or "": feature}))
            writer.write(example.SerializeToString() if name else value)
    return path


def test_folders_files_and_patterns_name_each_file_once(photos):
    found = inputs.find([photos, photos / "part0" / "00.jpg", f"{photos}/**/*.png"])
    assert names(found) == [
        str(photos / f"part{number % 2}" / f"{number:02}.{'png' if number % 3 else 'jpg'}")
        for number in (0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11)
    ]
    assert [source.size for source in found] == [Path(source.path).stat().st_size for source in found]
    assert names(inputs.find([f"{photos}/part1/0?.png"])) == [str(photos / "part1" / f"0{n}.png") for n in (1, 5, 7)]


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_shards_have_almost_equal_sizes_and_all_images(photos, tmp_path, count):
    sources = inputs.find([photos])
    parts = read(sources, count, tmp_path)
    assert {len(part) for part in parts} <= {12 // count, -(-12 // count)}
    assert [image.name for part in parts for image in part] == names(sources)
    for number, part in enumerate(parts):
        assert [image.place for image in part] == list(range(len(part)))
        assert {(image.shard, image.shard_images) for image in part} == {(number, len(part))}
        for image in part:
            assert image.content == Path(image.name).read_bytes()


def test_relative_names_start_from_the_folder_of_the_job(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos)
    sources = inputs.find(["part1"])
    works, listing = inputs.cut(sources, 1)
    (tmp_path / "list.jsonl").write_bytes(listing)
    monkeypatch.chdir(tmp_path)
    found = list(inputs.images_of(works[0], str(tmp_path / "list.jsonl"), str(photos)))
    assert found[0].name == str(Path("part1", "01.png")) and found[0].error is None


def test_the_shards_of_this_library(photos, tmp_path):
    from keras_deepnets.data import shard_writing

    index = shard_writing.write(str(photos), tmp_path / "shards", 2, split="all")
    sources = inputs.find([tmp_path / "shards"])
    assert [source.images for source in sources] == [shard.examples for shard in index.splits["all"].shards]
    parts = read(sources, 5, tmp_path)
    flat = [image for part in parts for image in part]
    assert flat[0].name == f"{sources[0].path}#0" and flat[-1].name == f"{sources[1].path}#{sources[1].images - 1}"
    files = {path.read_bytes() for path in photos.rglob("*.*")}
    assert len(flat) == 12 and {image.content for image in flat} == files
    assert [len(part) for part in parts] == [2, 2, 3, 2, 3]
    next((tmp_path / "shards").glob("*-00001-*")).unlink()
    with pytest.raises(InputError, match=r"shard .*00001-of-00002.tfrecord is missing"):
        inputs.find([tmp_path / "shards"])


def test_records_of_others(photos, tmp_path):
    content = (photos / "part0" / "00.jpg").read_bytes()
    given = [("image", content), ("image/encoded", content), ("label", b"1"), (None, b"\xff\xff\xff"), ("image", b"x")]
    path = record_file(tmp_path / "a.tfrecord-00000-of-00001", given)
    (images,) = read(inputs.find([path]), 1, tmp_path)
    assert [image.name for image in images] == [f"{path}#{position}" for position in range(5)]
    assert [image.content for image in images] == [content, content, None, None, b"x"]
    assert images[2].error == f"{path}#2 has no image in image/encoded or image; it holds label."
    assert images[3].error.startswith(f"{path}#3 is not a tf.train.Example; ")


def test_a_record_with_a_wrong_checksum_is_one_error(photos, tmp_path):
    content = (photos / "part0" / "00.jpg").read_bytes()
    path = record_file(tmp_path / "a.tfrecord", [("image", content)] * 4)
    data = bytearray(path.read_bytes())
    data[len(data) // 4 + 40] ^= 1
    path.write_bytes(data)
    images = [image for part in read(inputs.find([path]), 2, tmp_path) for image in part]
    assert [image.content for image in images] == [content, None, content, content]
    assert images[1].error == f"{path}#1 is damaged: its checksum is wrong; leave it out or write it again."


def test_a_record_file_that_is_cut_off_is_refused(photos, tmp_path):
    path = record_file(tmp_path / "a.tfrecord", [("image", b"abc")] * 2)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"a.tfrecord ends in the middle of record 1, or is compressed; "):
        inputs.find([path])
    path.write_bytes(struct.pack("<QI", 1 << 62, 0))
    with pytest.raises(InputError, match="ends in the middle of record 0"):
        inputs.find([path])


def test_what_cannot_be_read_becomes_an_error(photos, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(b"1")
    (tmp_path / "in" / "b.png").symlink_to(tmp_path / "nowhere")
    sources = inputs.find([tmp_path / "in"])
    (images,) = read(sources, 1, tmp_path)
    assert images[0].content == b"1"
    assert images[1].error == f"{tmp_path / 'in' / 'b.png'}: cannot be read (No such file or directory)."


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.png", "nothing.png does not exist; give image files, folders, patterns or TFRecord files."),
        ("*.png", "*.png matches no images and no TFRecord files; give files, folders or patterns."),
        ("empty", "empty holds no images (.jpg "),
    ],
)
def test_sources_without_images(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as error:
        inputs.find([source])
    assert str(error.value).startswith(message)
    with pytest.raises(InputError, match="no images were given"):
        inputs.find([])


def test_other_files_in_a_folder_are_counted(photos, tmp_path, capsys):
    record_file(tmp_path / "a.tfrecord", [("image", b"abc")])
    (tmp_path / "note.txt").write_text("note")
    assert names(inputs.find([tmp_path])) == [str(tmp_path / "a.tfrecord")]
    assert capsys.readouterr().err == f"{tmp_path}: left out 1 file that is not an image: 1 .txt\n"


def test_rows_have_ids_of_wordnet_for_imagenet():
    values = np.zeros((1, 1000), "float32")
    values[0, [3, 7]] = 0.25, 0.75
    names = [name for _, name in kd.labels.imagenet_classes()]
    (found,) = rows.classes(values, names, 2)
    assert found == [
        {"id": "n01514668", "label": "cock", "probability": 0.75},
        {"id": "n01491361", "label": "tiger_shark", "probability": 0.25},
    ]
    assert [each["id"] for each in rows.classes(values[:, :8], None, 1)[0]] == ["7"]


def test_features_keep_every_bit():
    values = np.random.default_rng(0).normal(size=(3, 50)).astype("float32")
    assert (np.asarray(rows.features(values), "float32") == values).all()
    assert max(len(str(value)) for value in rows.features(values)[0]) <= 14
