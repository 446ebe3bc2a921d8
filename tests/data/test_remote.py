"""Shards on other file systems. TensorFlow's `ram://` is one that is always there."""

import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets import data
from keras_deepnets.data import remote
from keras_deepnets.errors import InputError
from keras_deepnets.training import feed
from keras_deepnets.training.identity import identities
from tests.data.conftest import write_class_folders

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A folder of shards, and its copy on another file system."""
    base = tmp_path_factory.mktemp("shards")
    folder = base / "out"
    data.write_shards(write_class_folders(base / "photos", {"cat": 20, "dog": 10}), folder, 3)
    url = "ram://bucket/shards"
    tf.io.gfile.makedirs(url)
    for path in folder.iterdir():
        with tf.io.gfile.GFile(f"{url}/{path.name}", "wb") as file:
            file.write(path.read_bytes())
    return folder, url


def examples(images):
    return [(image.tobytes(), int(label)) for image, label in images.examples().as_numpy_iterator()]


def test_shards_are_read_as_from_a_folder(copied):
    folder, url = copied
    here, there = data.load(str(folder)), data.load(url)
    assert examples(there) == examples(here) and len(examples(here)) == there.size > 0
    batches = [
        [batch[0].numpy() for batch in images.batches(5, training=True, seed=3, image_size=(8, 8))]
        for images in (here, there)
    ]
    np.testing.assert_array_equal(*map(np.concatenate, batches))


def test_training_sets_and_identities(copied):
    folder, url = copied
    here, there = (identities(feed.load(source, 4, 0)) for source in (str(folder), url))
    assert there["data"]["digests"] == here["data"]["digests"]
    assert there["validation"]["size"] == here["validation"]["size"] == 4


def test_a_missing_or_short_shard_is_named(copied):
    url = copied[1]
    (name, *_) = sorted(each for each in tf.io.gfile.listdir(url) if each.startswith("train-"))
    with tf.io.gfile.GFile(f"{url}/{name}", "rb") as file:
        content = file.read()
    try:
        tf.io.gfile.remove(f"{url}/{name}")
        with pytest.raises(InputError, match=f"shard {name} is missing"):
            data.load(url)
        with tf.io.gfile.GFile(f"{url}/{name}", "wb") as file:
            file.write(content[:-5])
        with pytest.raises(InputError, match=f"{name} has .* bytes instead of"):
            data.load(url)
    finally:
        with tf.io.gfile.GFile(f"{url}/{name}", "wb") as file:
            file.write(content)


@pytest.mark.parametrize("url", ["s3://bucket/shards", "hdfs://host/shards", "nothing://host/shards"])
def test_a_file_system_without_plugin(url):
    scheme = url.split("://")[0]
    with pytest.raises(
        InputError, match=rf"{url}.*: TensorFlow has no file system for {scheme}://\. Install"
    ) as caught:
        data.load(url)
    assert "\n" not in str(caught.value)


def test_a_folder_without_shards():
    with pytest.raises(InputError, match=r"ram://bucket/nothing holds no shards \(shards.json\)"):
        data.load("ram://bucket/nothing")


def test_other_errors_are_one_line(monkeypatch):
    def refused(url):
        raise tf.errors.PermissionDeniedError(None, None, "403\nForbidden")

    monkeypatch.setattr(tf.io.gfile, "stat", refused)
    with pytest.raises(InputError, match=r"^gs://bucket/x cannot be read: 403 Forbidden. Check the address"):
        remote.RemotePath("gs://bucket/x").is_file()
