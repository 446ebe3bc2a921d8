import shutil

import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets import data
from keras_deepnets.data import caching, pipelines, transforms
from keras_deepnets.errors import InputError
from tests.data.conftest import picture, write_class_folders

POLICIES = [None, "pad_crop_flip(fill=0)", "shift", "random_resized_crop_flip", "scale_crop_flip(256, 480)"]


def collect(dataset, batches=None):
    """All images and labels of a dataset."""
    pairs = list((dataset if batches is None else dataset.take(batches)).as_numpy_iterator())
    return np.concatenate([images for images, _ in pairs]), np.concatenate([labels for _, labels in pairs])


def numbered(count=50, size=8, channels=1):
    """Images that say which they are."""
    images = np.broadcast_to(
        np.arange(1, count + 1, dtype=np.uint8)[:, None, None, None], (count, size, size, channels)
    )
    return data.ImageData.from_arrays(np.array(images), np.arange(count) % 3, ("a", "b", "c"), "numbered")


@pytest.fixture
def pictures(tmp_path):
    """Images of many sizes, in a folder."""
    return data.load(write_class_folders(tmp_path, {"a": 9, "b": 8}, size=lambda index: (20 + index, 30)), "all")


def test_evaluation_batches_are_the_examples_in_order():
    digits = data.load("digits", "test")
    batches = digits.batches(100)
    assert [images.shape for images, _ in batches] == [(100, 8, 8, 1)] * 3 + [(60, 8, 8, 1)]
    assert batches.cardinality() == digits.steps(100) == 4
    assert batches.element_spec[0].dtype == tf.uint8 and batches.element_spec[1].dtype == tf.int64
    images, labels = collect(batches)
    examples = list(digits.examples().as_numpy_iterator())
    np.testing.assert_array_equal(images, [image for image, _ in examples])
    np.testing.assert_array_equal(labels, [label for _, label in examples])
    assert digits.examples().cardinality() == 360


@pytest.mark.parametrize("crop_fraction", [1.0, 0.875])
def test_evaluation_batches_are_evaluation_views(pictures, crop_fraction):
    images, labels = collect(pictures.batches(4, (16, 24), 1, crop_fraction=crop_fraction, interpolation="bicubic"))
    for ours, label, (image, target) in zip(images, labels, pictures.examples(), strict=True):
        view = transforms.evaluation_view(image, 16, 24, 1, crop_fraction, "bicubic")
        np.testing.assert_array_equal(ours, view)
        assert label == target


def test_drop_remainder():
    batches = data.load("digits", "test").batches(100, training=True, drop_remainder=True)
    assert batches.element_spec[0].shape == (100, 8, 8, 1)
    assert [len(labels) for _, labels in batches] == [100] * 3


@pytest.mark.parametrize("augment", POLICIES)
def test_an_epoch_holds_every_example_once(augment):
    images, labels = collect(numbered().batches(16, 8, training=True, augment=augment))
    assert len(images) == 50
    who = images.reshape(50, -1).max(axis=1)
    assert sorted(who) == list(range(1, 51)) and list(who) != sorted(who)
    np.testing.assert_array_equal(labels, (who.astype(int) - 1) % 3)


@pytest.mark.parametrize(
    ("source", "augment"),
    [
        ("digits", "pad_crop_flip"),
        ("pictures", "shift"),
        ("pictures", "random_resized_crop_flip"),
        ("pictures", "scale_crop_flip(256, 480)"),
    ],
)
def test_an_epoch_depends_on_seed_and_number_alone(source, augment, request):
    images = data.load("digits", "test") if source == "digits" else request.getfixturevalue(source)
    arguments = {
        "batch_size": 5 if source == "pictures" else 64,
        "image_size": 16,
        "training": True,
        "augment": augment,
    }
    running = images.batches(**arguments, seed=3)
    epochs = [collect(running) for _ in range(3)]
    assert not np.array_equal(epochs[0][0], epochs[1][0]) and not np.array_equal(epochs[1][0], epochs[2][0])
    resumed = collect(images.batches(**arguments, seed=3, first_epoch=2))
    steps = images.steps(arguments["batch_size"])
    endless = images.batches(**arguments, seed=3, first_epoch=1, repeat=True)
    assert endless.cardinality() == tf.data.INFINITE_CARDINALITY
    tf.random.set_seed(99)  # the global seed has no say
    stream = collect(endless, 2 * steps)
    for part in range(2):
        np.testing.assert_array_equal(resumed[part], epochs[2][part])
        np.testing.assert_array_equal(stream[part], np.concatenate([epochs[1][part], epochs[2][part]]))
    other = collect(images.batches(**arguments, seed=4))
    assert not np.array_equal(other[0], epochs[0][0])


def test_augmentation_does_not_depend_on_the_batch_size():
    digits = data.load("digits", "test")
    small, large = (collect(digits.batches(size, training=True, augment="pad_crop_flip")) for size in (7, 100))
    np.testing.assert_array_equal(small[0], large[0])


def test_images_are_resized_once_and_kept(pictures, monkeypatch):
    calls = []
    materialise = pipelines.materialise
    monkeypatch.setattr(pipelines, "materialise", lambda *arguments: calls.append(1) or materialise(*arguments))
    first, _ = collect(pictures.batches(4, 16, training=True))
    again, _ = collect(pictures.batches(4, 16, training=True))
    np.testing.assert_array_equal(first, again)
    assert len(calls) == 1
    monkeypatch.setattr(pipelines, "VIEW_BUDGET", 0)
    np.testing.assert_array_equal(collect(pictures.batches(4, 16, training=True))[0], first)


@pytest.mark.integration
def test_what_does_not_fit_in_memory_is_decoded_once(tmp_path, monkeypatch):
    folder = write_class_folders(tmp_path / "photos", {"a": 9, "b": 8}, size=lambda index: (20 + index, 30))
    arguments = {
        "batch_size": 4,
        "image_size": 16,
        "augment": "pad_crop_flip",
        "training": True,
        "crop_fraction": 0.875,
    }
    kept = data.load(folder, "all")
    expected = [collect(kept.batches(**arguments, first_epoch=epoch)) for epoch in range(3)]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("keras_deepnets.data.verification.MEMORY_BUDGET", 0)
    monkeypatch.setattr(pipelines, "VIEW_BUDGET", 0)
    rest, _ = data.load(folder, "all").divide(3)
    files = data.load(folder, "all")
    collect(rest.batches(**arguments))  # a set of some of the rows has a cache of its own
    collect(files.batches(**arguments))
    shutil.rmtree(folder)  # from here on only the cache can know the pixels
    for epoch in range(3):
        found = collect(files.batches(**arguments, first_epoch=epoch))
        np.testing.assert_array_equal(found[0], expected[epoch][0])
        np.testing.assert_array_equal(found[1], expected[epoch][1])
    assert len(collect(rest.batches(**arguments, first_epoch=1))[1]) == rest.size
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]


@pytest.mark.integration
def test_no_room_for_a_cache(tmp_path, monkeypatch):
    folder = write_class_folders(tmp_path, {"a": 5, "b": 4}, size=lambda index: (20 + index, 30))
    arguments = {"batch_size": 4, "image_size": 16, "training": True}
    expected = collect(data.load(folder, "all").batches(**arguments))
    monkeypatch.setattr("keras_deepnets.data.verification.MEMORY_BUDGET", 0)
    monkeypatch.setattr(pipelines, "VIEW_BUDGET", 0)
    monkeypatch.setattr(caching, "DISK_BUDGET", 9 * 16 * 16 * 3 - 1)
    small = data.load(folder, "all")
    np.testing.assert_array_equal(collect(small.batches(**arguments))[0], expected[0])
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("KERAS_HOME", str(file))  # no folder can be made there
    monkeypatch.setattr(caching, "DISK_BUDGET", 1 << 30)
    shut = data.load(folder, "all")
    np.testing.assert_array_equal(collect(shut.batches(**arguments))[0], expected[0])
    shutil.rmtree(folder)
    for uncached in (small, shut):
        with pytest.raises(tf.errors.NotFoundError):
            collect(uncached.batches(**arguments))


def test_random_resized_crops_keep_the_colours():
    flat = data.ImageData.from_arrays(np.full((8, 40, 60, 3), [10, 100, 200], np.uint8), np.arange(8) % 2, ("a", "b"))
    images, _ = collect(flat.batches(8, (24, 16), training=True, augment="random_resized_crop_flip"))
    np.testing.assert_array_equal(images, np.full((8, 24, 16, 3), [10, 100, 200], np.uint8))


def test_jpegs_are_cropped_while_they_are_decoded(tmp_path, monkeypatch):
    folder = write_class_folders(tmp_path, {"a": 4, "b": 4}, size=(64, 80), extension="jpg")
    arguments = {"batch_size": 8, "image_size": 32, "training": True, "augment": "random_resized_crop_flip"}
    decoded, _ = collect(data.load(folder, "all").batches(**arguments))
    monkeypatch.setattr("keras_deepnets.data.verification.MEMORY_BUDGET", 0)
    streamed, _ = collect(data.load(folder, "all").batches(**arguments))
    # At the window's edge the colour planes, of half the resolution, are interpolated without their neighbours.
    assert np.abs(decoded.astype(int) - streamed).mean() < 0.5


def test_keras_trains_epoch_after_epoch():
    import keras

    seen = []

    @tf.function
    def spy(images, labels):
        tf.py_function(lambda some: seen.append(some.numpy().reshape(len(some), -1).max(axis=1).tolist()), [images], [])
        return images, labels

    def fit(**arguments):
        seen.clear()
        model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
        repeat = "steps_per_epoch" in arguments
        batches = numbered().batches(50, training=True, repeat=repeat)
        model.fit(batches.map(spy), epochs=3, verbose=0, shuffle=False, **arguments)
        return seen[:3]

    expected = [collect(numbered().batches(50, training=True, first_epoch=epoch))[0][:, 0, 0, 0] for epoch in range(3)]
    np.testing.assert_array_equal(fit(), expected)
    np.testing.assert_array_equal(fit(steps_per_epoch=1), expected)


@pytest.mark.parametrize("repeat", [False, True])
def test_batches_under_a_strategy(repeat):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        batches = numbered().batches(50, training=True, augment="shift", repeat=repeat)
    # Read to the end: TensorFlow 2.21 can crash when an unfinished distributed iterator is deleted (about 1 time in 200).
    [[images, _]] = list(strategy.experimental_distribute_dataset(batches.take(1)))
    np.testing.assert_array_equal(images, collect(numbered().batches(50, training=True, augment="shift"), 1)[0])


def test_divide():
    rest, cut = numbered().divide(0.2, seed=1)
    assert (rest.size, cut.size, cut.split, rest.class_counts, cut.class_counts) == (
        40,
        10,
        "validation",
        (13, 14, 13),
        (4, 3, 3),
    )
    both = np.concatenate([collect(part.batches(50))[0][:, 0, 0, 0] for part in (rest, cut)])
    assert sorted(both) == list(range(1, 51))
    with pytest.raises(InputError, match="at least one"):
        numbered().divide(0)


def test_from_arrays_checks():
    good, labels = np.zeros((2, 4, 4), np.uint8), ("a", "b")
    assert data.ImageData.from_arrays(good, [0, 1], labels).image_shape == (4, 4, 1)
    for images, targets, message in (
        (good.astype(np.float32), [0, 1], "uint8"),
        (np.zeros((2, 4, 4, 2), np.uint8), [0, 1], "1 or 3"),
        (good, [0.0, 1.0], "integer"),
        (good, [0], "integer"),
        (good, [0, 2], "an index into the 2 labels"),
        (good[:0], np.zeros(0, int), "at least one"),
    ):
        with pytest.raises(InputError, match=message):
            data.ImageData.from_arrays(images, targets, labels)


def test_statistics_of_a_constant_channel():
    assert numbered(1).statistics() == ((1.0,), (1.0,))
    images = np.stack([picture(seed) for seed in range(5)])
    mean, std = data.ImageData.from_arrays(images, [0, 1, 0, 1, 0], ("a", "b")).statistics()
    np.testing.assert_allclose(mean, images.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, images.astype(np.float64).std(axis=(0, 1, 2)), rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2.5}, "batch_size=2.5"),
        ({"batch_size": 4, "augment": "shift"}, "needs training=True"),
        ({"batch_size": 4, "repeat": True}, "needs training=True"),
        ({"batch_size": 4, "training": True, "augment": "bright"}, "augment='bright' is unknown"),
        ({"batch_size": 51, "training": True, "drop_remainder": True}, "leaves no batch of 50"),
        ({"batch_size": 4, "channels": 4}, "channels=4"),
        ({"batch_size": 4, "image_size": 0}, "positive"),
        ({"batch_size": 4, "interpolation": "best"}, "interpolation='best'"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        numbered().batches(**arguments)


def test_take(two_classes):
    for images in (data.load("digits"), data.load(two_classes, "all")):
        few = images.take(6)
        assert (few.size, few.labels, few.split, few.name) == (6, images.labels, images.split, images.name)
        again = [image.tobytes() for image, _ in images.take(6).examples().as_numpy_iterator()]
        assert [image.tobytes() for image, _ in few.examples().as_numpy_iterator()] == again
        assert images.take(images.size) is images and images.take(10**9) is images
    assert few.class_counts == (4, 2)  # of 20 and 10
    for wrong in (0, 1.5, True, -1):
        with pytest.raises(InputError, match=r"must be a whole number of examples, at least 1"):
            images.take(wrong)
