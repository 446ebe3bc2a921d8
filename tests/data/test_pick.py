"""Single images of a set, by their places."""

import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.data import stores
from keras_deepnets.errors import InputError


def check(data, positions=(5, 0, 5, 2)):
    everything = [image for image, _ in data.examples().as_numpy_iterator()]
    found = data.pick(positions)
    assert len(found) == len(positions)
    for image, position in zip(found, positions, strict=True):
        np.testing.assert_array_equal(image, everything[position])
    assert data.pick([]) == []


def test_of_images_in_memory_and_of_many_sizes():
    check(kd.data.load("digits", "test"), (359, 0, 17))
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (4 + at, 9 - at, 3)).astype("uint8") for at in range(6)]
    check(kd.data.ImageData("noise", "test", ("a", "b"), stores.from_images(images, np.arange(6) % 2)))


def test_of_shards(tmp_path):
    kd.data.write_shards("digits", tmp_path / "shards", 3, split="test")
    found = kd.data.load(tmp_path / "shards", "test")
    assert not found.store.in_memory
    check(found, (359, 3, 3, 20))


@pytest.mark.parametrize("wrong", [-1, 360])
def test_no_such_place(wrong):
    with pytest.raises(InputError, match="positions must be from 0 to 359"):
        kd.data.load("digits", "test").pick([0, wrong])
