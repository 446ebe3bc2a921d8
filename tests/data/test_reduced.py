"""A large part of a JPEG that is shrunk for training anyway is decoded at a reduced size, within the stated bound."""

import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets.data import ImageData, decoding, transforms
from keras_deepnets.data.stores import FilePixels, IndexedStore
from tests.data.conftest import picture
from tests.data.exif import saved

pytestmark = pytest.mark.integration

SIZE = (8, 10)


def scene(height=260, width=300):
    """A photograph's likeness: structure at all scales, less of it the finer it is."""
    layers = [picture(seed, height // scale + 1, width // scale + 1) for seed, scale in enumerate((32, 16, 8, 4, 2))]
    large = [tf.image.resize(layer, [height, width], "bicubic") * 0.6**at for at, layer in enumerate(layers)]
    return np.asarray(tf.saturate_cast(sum(large) / sum(0.6**at for at in range(5)), tf.uint8))


SCENE = scene()


def opened(encoded, window, size=None):
    graph = tf.function(
        lambda contents: transforms.decode(contents, 3, lambda height, width: window, size=size),
        input_signature=[tf.TensorSpec([], tf.string)],
    )
    return graph(encoded)


def shrunk(image, size=SIZE):
    return transforms.stretched(image[tf.newaxis], *size, "bilinear")[0].numpy().astype(int)


@pytest.mark.parametrize(("times", "ratio"), [(5.9, 1), (6, 2), (11.9, 2), (12, 4), (23.9, 4), (24, 8)])
def test_the_size_follows_from_the_part(times, ratio):
    encoded = saved(SCENE, "JPEG", quality=95)
    window = (17, 11, int(times * SIZE[0]), int(times * SIZE[1]))
    part, full = opened(encoded, window, SIZE), opened(encoded, window)
    assert full.shape == (*window[2:], 3)
    if ratio == 1:
        np.testing.assert_array_equal(part, full)
        return
    for length, start, whole in zip(part.shape, window, window[2:], strict=False):
        assert length == (start + whole) // ratio - start // ratio
    assert min(part.shape[0] / SIZE[0], part.shape[1] / SIZE[1]) >= decoding.FINENESS - 0.1
    assert 0 < np.abs(shrunk(part) - shrunk(full)).mean() < 1.5


def test_one_short_side_keeps_the_full_size():
    encoded = saved(SCENE, "JPEG", quality=95)
    for window in ((0, 0, 47, 300), (0, 0, 260, 59)):
        np.testing.assert_array_equal(opened(encoded, window, SIZE), opened(encoded, window))


def test_other_formats_keep_the_full_size():
    encoded = saved(SCENE, "PNG")
    np.testing.assert_array_equal(opened(encoded, (2, 4, 200, 280), SIZE), SCENE[2:202, 4:284])


@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation(turn):
    encoded = saved(SCENE, "JPEG", turn, quality=95)
    window = (16, 40, 112, 168)  # at even places, so that a half loses no pixel
    part, full = opened(encoded, window, (16, 24)), opened(encoded, window)
    assert part.shape == (56, 84, 3) and full.shape == (112, 168, 3)
    assert np.abs(shrunk(part, (16, 24)) - shrunk(full, (16, 24))).mean() < 1


@pytest.fixture
def training(tmp_path):
    """A function from an interpolation to one training batch of large files: images int64, labels."""
    paths = []
    for number in range(8):
        paths.append(str(tmp_path / f"{number}.jpg"))
        tf.io.write_file(paths[-1], saved(np.roll(SCENE, 30 * number, axis=1), "JPEG", quality=95))
    store = IndexedStore(FilePixels(np.asarray(paths, object)), np.arange(8), np.arange(8) % 2)

    def batch(interpolation):
        batches = ImageData("files", "train", ("a", "b"), store).batches(
            batch_size=8,
            image_size=16,
            training=True,
            augment="random_resized_crop_flip",
            interpolation=interpolation,
        )
        images, labels = next(iter(batches))
        return images.numpy().astype(int), labels.numpy()

    return batch


def test_training_batches_stay_within_the_bound(training, monkeypatch):
    reduced, labels = training("bilinear")
    monkeypatch.setattr(decoding, "FINENESS", 1000)
    full, same = training("bilinear")
    np.testing.assert_array_equal(labels, same)
    differences = np.abs(reduced - full).mean(axis=(1, 2, 3))
    assert differences.min() == 0  # a small window
    assert 0 < differences.mean() < 1 and differences.max() < 3  # edges are rounded too


def test_the_nearest_pixels_are_those_of_the_full_size(training, monkeypatch):
    images, _ = training("nearest")
    monkeypatch.setattr(decoding, "FINENESS", 1000)
    np.testing.assert_array_equal(images, training("nearest")[0])
