import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets import data
from keras_deepnets.data import caching, stores, verification
from keras_deepnets.errors import InputError, NoSuchSplit
from keras_deepnets.training.identity import identity
from tests.data.conftest import picture, write_class_folders


def images(count=60, side=6, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def targets(count=60, classes=3):
    return np.arange(count) % classes


def examples(found):
    pairs = list(found.examples().as_numpy_iterator())
    return [image for image, _ in pairs], np.array([label for _, label in pairs])


def pairs(some_images, labels):
    """Images with their labels in an order of their own."""
    return sorted((image.tobytes(), int(label)) for image, label in zip(some_images, labels, strict=True))


def raises(message, source, **arguments):
    with pytest.raises(InputError, match=message) as caught:
        data.load(source, **arguments)
    assert "\n" not in str(caught.value)


# --- Arrays


def test_arrays_keep_their_order():
    found = data.load((images(), targets()))
    some_images, labels = examples(found)
    np.testing.assert_array_equal(some_images, images())
    np.testing.assert_array_equal(labels, targets())
    assert (found.name, found.split, found.labels, found.image_shape) == ("arrays", "train", ("0", "1", "2"), (6, 6, 3))


@pytest.mark.parametrize(
    "labels",
    [
        targets(),
        targets().astype(np.uint8)[:, None],  # as keras.datasets.cifar10
        targets().astype(np.float64),
        targets().tolist(),
        np.eye(3, dtype=np.float32)[targets()],
        np.eye(3, dtype=bool)[targets()],
        tf.constant(targets()),
    ],
)
def test_labels_of_any_form(labels):
    found = data.load((images(), labels))
    np.testing.assert_array_equal(examples(found)[1], targets())
    assert found.labels == ("0", "1", "2")


def test_labels_that_are_texts():
    words = np.array(["dog10", "cat", "dog2"])[targets()]
    found = data.load((images(), words))
    assert found.labels == ("cat", "dog2", "dog10")
    np.testing.assert_array_equal(examples(found)[1], np.array([2, 0, 1])[targets()])
    named = data.load((images(), words), labels=["dog10", "cat", "dog2", "cow"])
    assert named.class_counts == (20, 20, 20, 0)
    raises("label 'dog2' is not one of the 2 classes", (images(), words), labels=["dog10", "cat"])


def test_named_classes():
    found = data.load((images(), targets()), labels=("a", "b", "c", "d"))
    assert (found.labels, found.class_counts) == (("a", "b", "c", "d"), (20, 20, 20, 0))
    raises("label 2 is not one of the 2 classes", (images(), targets()), labels=["a", "b"])
    raises("one-hot labels have 3 classes, but 2 names were given", (images(), np.eye(3)[targets()]), labels=["a", "b"])
    raises("labels='ab': give the class names as a list", (images(), targets()), labels="ab")
    raises("for arrays and datasets", "digits", labels=["a", "b"])


@pytest.mark.parametrize("kind", ["float16", "float32", "float64", "int16", "int64", "uint16"])
def test_other_numbers_are_pixels_too(kind):
    found = data.load((images().astype(kind), targets()))
    np.testing.assert_array_equal(examples(found)[0], images())


def test_values_between_are_rounded():
    values = np.full((4, 2, 2, 1), 100.0)
    values[:, 0, 0, 0] = [0.4, 0.6, 254.4, 254.6]
    found = data.load((values, [0, 1, 0, 1]))
    assert [image[0, 0, 0] for image in examples(found)[0]] == [0, 1, 254, 255]


def test_grey_images_need_no_axis_of_channels():
    assert data.load((images(channels=1)[..., 0], targets())).image_shape == (6, 6, 1)


def test_images_of_several_sizes():
    some = [picture(number, 5 + number % 3, 7) for number in range(12)]
    found = data.load((some, targets(12)))
    assert found.image_shape == (None, None, 3)
    for image, expected in zip(examples(found)[0], some, strict=True):
        np.testing.assert_array_equal(image, expected)


def test_an_array_is_copied_once():
    """Into memory that TensorFlow shares, so that the caller may change its own array."""
    own = images()
    pixels = data.load((own, targets())).store.pixels
    own[:] = 0
    np.testing.assert_array_equal(pixels.images, images())
    before = int(pixels.tensor[0, 0, 0, 0])
    pixels.images[0, 0, 0, 0] = before ^ 255
    assert int(pixels.tensor[0, 0, 0, 0]) == before ^ 255


@pytest.mark.parametrize("offset", [0, 1, 16])
def test_tensors_of_memory_that_begins_anywhere(offset):
    memory = np.arange(200, dtype=np.uint8)
    start = -memory.ctypes.data % 64 + offset
    array = memory[start : start + 60].reshape(5, 12)
    np.testing.assert_array_equal(stores.tensor_of(array), array)
    np.testing.assert_array_equal(stores.tensor_of(array[:, ::2]), array[:, ::2])
    assert np.shares_memory(stores.aligned(array), array) is (offset == 0)
    np.testing.assert_array_equal(stores.aligned(array[::2]), array[::2])


def test_splits_of_arrays():
    parts = [data.load((images(), targets()), split, validation=0.2) for split in ("train", "validation")]
    assert [part.class_counts for part in parts] == [(16, 16, 16), (4, 4, 4)]
    assert set(parts[0].store.rows).isdisjoint(parts[1].store.rows)
    assert data.load((images(), targets()), "all").split == "all"
    for split in ("test", "validation"):
        with pytest.raises(NoSuchSplit, match=split):
            data.load((images(), targets()), split)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (images(), "images without labels"),
        (None, "of type NoneType; give"),
        ((images(), targets(), targets()), "3 parts"),
        (((images(), targets()), (images(), targets())), r"as load_data\(\) returns"),
        ((images(), targets(59)), "60 images and 59 labels"),
        ((images()[:0], targets(0)), "no images"),
        (([], []), "no images"),
        ((images(), np.zeros(60, int)), "only one class"),
        ((images(), targets() + 1), "no image has label 0; count classes from 0"),
        ((images(), targets() - 1), "label -1 is not one of"),
        ((images(), targets() + 0.5), "labels such as 0.5 are not whole numbers"),
        ((images(), np.full(60, np.nan)), "are not whole numbers"),
        ((images(), np.full((60, 3), 1 / 3)), "not one-hot"),
        ((images(), np.zeros((60, 3, 2))), "labels have the shape"),
        ((images(), [{}] * 60), "Python objects"),
        ((images() / 255, targets()), r"seem to be 0–1\. Scale them to 0–255: images \* 255"),
        ((images() > 127, targets()), "images are bool"),
        ((images() / 127.5 - 1, targets()), "values from -1 to 1,"),
        ((images() * 2.0, targets()), "values from 0 to 510,"),
        ((np.full((60, 6, 6, 3), np.nan), targets()), "values from nan to nan"),
        ((images().astype(str), targets()), "decode them first"),
        ((images().transpose(0, 3, 1, 2), targets()), r"np\.moveaxis\(images, -3, -1\)"),
        ((images(channels=4), targets()), r"give \[height, width, 1 or 3\]"),
        (([images()[0], images()[0][..., :1]], [0, 1]), "some images have 3 channels and others 1"),
    ],
)
def test_bad_arrays(source, message):
    raises(message, source)


# --- Datasets


def dataset(labels=None, **arguments):
    labels = targets() if labels is None else labels
    return tf.data.Dataset.from_tensor_slices((images(**arguments), labels))


@pytest.mark.parametrize("form", ["single", "batches", "unknown shapes", "generator", "float32", "bfloat16"])
def test_datasets_of_any_form(form):
    source = dataset()
    if form == "batches":
        source = source.batch(7)
    elif form == "unknown shapes":
        source = source.map(lambda image, label: tf.numpy_function(lambda *x: x, [image, label], (tf.uint8, tf.int64)))
    elif form == "generator":
        signature = (tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.int64))
        values = zip(images(), targets(), strict=True)
        source = tf.data.Dataset.from_generator(lambda: values, output_signature=signature)
    elif "float" in form:
        source = source.map(lambda image, label: (tf.cast(image, form), label)).batch(9)
    found = data.load(source)
    assert (found.name, found.labels, found.image_shape) == ("dataset", ("0", "1", "2"), (6, 6, 3))
    assert pairs(*examples(found)) == pairs(images(), targets())


@pytest.mark.parametrize("batch", [None, 8])
@pytest.mark.parametrize("kind", ["one-hot", "binary", "texts"])
def test_labels_of_datasets(batch, kind):
    classes = 2 if kind == "binary" else 3
    plain = targets(classes=classes)
    labels = {
        "one-hot": np.eye(3, dtype=np.float32)[targets()],
        "binary": plain[:, None].astype(np.float32),
        "texts": np.array(["a", "b", "c"])[targets()],
    }[kind]
    source = dataset(labels)
    found = data.load(source if batch is None else source.batch(batch))
    assert pairs(*examples(found)) == pairs(images(), plain)
    assert found.labels == (("a", "b", "c") if kind == "texts" else tuple("012"[:classes]))


def test_grey_batches_without_an_axis_of_channels():
    grey = images(channels=1)[..., 0]
    source = tf.data.Dataset.from_tensor_slices((grey, targets()))
    for form in (source, source.batch(7)):
        found = data.load(form)
        assert found.image_shape == (6, 6, 1)
        assert pairs(*examples(found)) == pairs(grey, targets())


def test_images_of_several_sizes_in_a_dataset():
    some = [picture(number, 5 + number % 3, 7) for number in range(12)]
    signature = (tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.int64))
    source = tf.data.Dataset.from_generator(lambda: zip(some, targets(12), strict=True), output_signature=signature)
    found = data.load(source)
    assert found.image_shape == (None, None, 3)
    assert pairs(*examples(found)) == pairs(some, targets(12))


@pytest.mark.parametrize("budget", [1 << 30, 500])
def test_the_order_of_a_dataset_does_not_matter(monkeypatch, budget):
    """Neither in memory nor on disk, and images stay with their labels."""
    monkeypatch.setattr(verification, "MEMORY_BUDGET", budget)
    once, twice = (data.load(dataset().shuffle(60, seed=seed).batch(7)) for seed in (1, 2))
    assert identity(once) == identity(twice)
    np.testing.assert_array_equal(*(examples(found)[0] for found in (once, twice)))
    assert identity(once) != identity(data.load(dataset(seed=1)))
    relabelled = identity(data.load(dataset((targets() + 1) % 3)))["digests"]
    assert relabelled["pixels"] == identity(once)["digests"]["pixels"]
    assert relabelled["labels"] != identity(once)["digests"]["labels"]


@pytest.mark.parametrize("several", [False, True])
def test_what_exceeds_the_memory_goes_to_disk(monkeypatch, several):
    some = [picture(number, 5 + several * (number % 3), 7) for number in range(40)]
    signature = (tf.TensorSpec([None, None, 3], tf.uint8), tf.TensorSpec([], tf.int64))
    source = tf.data.Dataset.from_generator(lambda: zip(some, targets(40), strict=True), output_signature=signature)
    held = data.load(source)
    monkeypatch.setattr(verification, "MEMORY_BUDGET", 2_000)  # some of them are in memory when it is full
    found = data.load(source)
    assert isinstance(found.store.pixels, stores.DiskPixels) and not found.store.in_memory
    assert found.image_shape == held.image_shape == ((None, None, 3) if several else (5, 7, 3))
    assert identity(found) == identity(held)
    assert found.statistics() == held.statistics()
    view = {"image_size": 6, "training": True, "augment": "pad_crop_flip", "seed": 5}
    for one, other in zip(found.batches(8, **view), held.batches(8, **view), strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    cut = found.divide(10)[1]
    np.testing.assert_array_equal(examples(cut)[1], examples(held.divide(10)[1])[1])


def test_on_disk_at_the_networks_size_no_second_file_is_made(monkeypatch):
    monkeypatch.setattr(verification, "MEMORY_BUDGET", 0)
    found = data.load(dataset())
    monkeypatch.setattr("keras_deepnets.data.pipelines.VIEW_BUDGET", 0)
    monkeypatch.setattr(caching, "on_disk", lambda *a: pytest.fail("a second file"))
    batches = found.batches(60, training=True).as_numpy_iterator()
    assert pairs(*next(batches)) == pairs(images(), targets())


def test_too_large_for_the_disk(monkeypatch):
    monkeypatch.setattr(verification, "MEMORY_BUDGET", 500)
    monkeypatch.setattr(caching, "DISK_BUDGET", 3_000)
    raises("too many .at most 0.0 GB may be stored on disk.*give a folder", dataset())


def test_augmentation_in_a_dataset_is_applied_once():
    noise = tf.random.Generator.from_seed(1)
    source = dataset().map(lambda image, label: (image + tf.cast(noise.uniform([], 0, 9, tf.int32), tf.uint8), label))
    found = data.load(source)
    np.testing.assert_array_equal(*(examples(found)[0] for _ in range(2)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (lambda: dataset().repeat(), r"never ends; remove repeat\(\)"),
        (lambda: dataset().take(0), "no images; check that it is not empty"),
        (lambda: dataset().map(lambda image, _: image), "elements are images without labels"),
        (lambda: dataset().map(lambda image, label: (image, label, 1.0)), "elements have 3 parts"),
        (lambda: dataset().map(lambda image, label: {"image": image, "label": label}), r'example\["image"\]'),
        (lambda: dataset().map(lambda image, label: (tf.RaggedTensor.from_tensor(image), label)), "give dense tensors"),
        (lambda: dataset().map(lambda image, label: (image[:, 0, 0], label)), r"shape \(1, 6\)|shape \(60, 6\)"),
        (lambda: dataset().map(lambda image, label: (image / 255, label)), r"dataset\.map\(lambda image, label"),
        (lambda: dataset().map(lambda image, label: (tf.io.encode_png(image), label)), "shape"),
        (lambda: dataset().map(lambda image, label: (tf.io.decode_png("x"), label)), "fails after 0 images: "),
        (lambda: [dataset(), dataset()], "a list of datasets"),
    ],
)
def test_bad_datasets(source, message):
    raises(message, source())


def test_a_scaled_dataset_is_found_out_early():
    """Nobody waits for the last of many batches to be told."""
    read = []

    def batches():
        for number in range(100):
            read.append(number)
            yield images(64) / np.float32(255), targets(64)

    signature = (tf.TensorSpec([None, 6, 6, 3], tf.float32), tf.TensorSpec([None], tf.int64))
    raises("of the first 256 is above", tf.data.Dataset.from_generator(batches, output_signature=signature))
    assert len(read) < 20


# --- image_dataset_from_directory


@pytest.mark.parametrize("mode", ["int", "categorical", "binary"])
def test_image_dataset_from_directory(tmp_path, mode):
    folder = write_class_folders(tmp_path / "photos", {"cat": 9, "dog": 6})
    source = keras.utils.image_dataset_from_directory(
        folder, label_mode=mode, image_size=(20, 24), batch_size=4, verbose=False
    )
    found = data.load(source)
    assert (found.labels, found.class_counts, found.image_shape) == (("cat", "dog"), (9, 6), (20, 24, 3))
    direct = data.load(folder, "all")
    assert pairs(*examples(found)) == pairs(*examples(direct))
    renamed = data.load(source, labels=["Katze", "Hund"])
    assert renamed.labels == ("Katze", "Hund")


@pytest.mark.integration
def test_another_process_reads_the_same(tmp_path):
    """The order of `image_dataset_from_directory` differs from process to process; the data do not."""
    folder = write_class_folders(tmp_path / "photos", {"cat": 9, "dog": 6})
    code = (
        "import json, sys, keras; from keras_deepnets import data; from keras_deepnets.training.identity import identity;"
        "source = keras.utils.image_dataset_from_directory(sys.argv[1], image_size=(8, 8), batch_size=4, verbose=False);"
        "print(json.dumps(identity(data.load(source))))"
    )
    told = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True).stdout
    source = keras.utils.image_dataset_from_directory(folder, image_size=(8, 8), batch_size=5, verbose=False)
    assert json.loads(told) == json.loads(json.dumps(identity(data.load(source))))
