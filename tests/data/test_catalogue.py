import errno

import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from keras_deepnets import data
from keras_deepnets.data import catalogue, records
from keras_deepnets.errors import InputError
from tests.data.conftest import picture

LABELS = ["ant", "bee", "cow"]


def flat(index):
    return np.full((8, 8, 3), [index, 2 * index, 255 - index], np.uint8)


class KdTinyFlat(tfds.core.GeneratorBasedBuilder):
    """Images of one size; 30 to train, 9 to test, 3 of the test kind without labels."""

    VERSION = tfds.core.Version("1.0.0")
    SHAPE = (8, 8, 3)
    SPLITS = {"train": 30, "test": 9, "unlabelled": 3}  # noqa: RUF012

    def _info(self):
        features = {"image": tfds.features.Image(shape=self.SHAPE), "label": tfds.features.ClassLabel(names=LABELS)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {name: self._generate_examples(name, count) for name, count in self.SPLITS.items()}

    def _generate_examples(self, split, count):
        for index in range(count):
            yield index, {"image": flat(index), "label": -1 if split == "unlabelled" else index % 3}


class KdTinyPictures(KdTinyFlat):
    """Images of many sizes, as PNG."""

    SHAPE = (None, None, 3)
    SPLITS = {"train": 40, "test": 4}  # noqa: RUF012

    def _generate_examples(self, split, count):
        for index in range(count):
            yield index, {"image": picture(index, 16 + index % 5, 20), "label": index % 3}


class KdFailing(KdTinyFlat):
    """A set whose download fails half-way."""

    ERROR = OSError(errno.ENOSPC, "No space left on device")

    def _split_generators(self, manager):
        partial = manager.download_dir / "archive.zip.tmp.0123"
        partial.mkdir(parents=True)
        (partial / "archive.zip").write_text("half")
        (manager.download_dir / "labels.txt").write_text("whole")
        raise self.ERROR


class KdByHand(KdTinyFlat):
    """A set that has to be fetched by hand."""

    MANUAL_DOWNLOAD_INSTRUCTIONS = "Sign the licence,\nthen put images.tar there."

    def _split_generators(self, manager):
        return {"train": self._generate_examples("train", len(list(manager.manual_dir.iterdir())))}


class KdSentences(KdTinyFlat):
    """No set of images."""

    def _info(self):
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict({"text": tfds.features.Text()}))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Where the tiny sets were prepared."""
    folder = tmp_path_factory.mktemp("tfds")
    for name in ("kd_tiny_flat", "kd_tiny_pictures"):
        tfds.builder(name, data_dir=folder).download_and_prepare()
    return folder


def raises(message, *arguments, **options):
    with pytest.raises(InputError, match=message) as caught:
        data.load(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_small_set_is_held_in_memory(data_dir):
    train = data.load("kd_tiny_flat", data_dir=data_dir)
    assert (train.name, train.split, train.labels, train.size) == ("kd_tiny_flat", "train", tuple(LABELS), 30)
    assert train.class_counts == (10, 10, 10)
    assert train.image_shape == (8, 8, 3) and train.store.in_memory
    for image, label in train.examples().as_numpy_iterator():
        index = int(image[0, 0, 0])
        np.testing.assert_array_equal(image, flat(index))
        assert label == index % 3
    assert data.load("kd_tiny_flat", "test", data_dir=data_dir).class_counts == (3, 3, 3)
    assert data.load("kd_tiny_flat", "train[:20]", data_dir=data_dir).size == 20


def test_validation_is_cut_out_of_train(data_dir):
    train, cut = (
        data.load("kd_tiny_flat", split, validation=0.2, data_dir=data_dir) for split in ("train", "validation")
    )
    assert (train.class_counts, cut.class_counts) == ((8, 8, 8), (2, 2, 2))
    seen = [int(image[0, 0, 0]) for part in (train, cut) for image, _ in part.examples().as_numpy_iterator()]
    assert sorted(seen) == list(range(30))
    raises("kd_tiny_flat has no validation split of its own", "kd_tiny_flat", "validation", data_dir=data_dir)


def test_splits_are_checked(data_dir):
    raises(
        "split 'dev': kd_tiny_flat has train, test, unlabelled, validation, all",
        "kd_tiny_flat",
        "dev",
        data_dir=data_dir,
    )
    raises("split 'unlabelled' of kd_tiny_flat has no labels", "kd_tiny_flat", "unlabelled", data_dir=data_dir)
    raises("split 'train.9x.' of kd_tiny_flat", "kd_tiny_flat", "train[9x]", data_dir=data_dir)
    assert data.load("kd_tiny_flat", "train+test", data_dir=data_dir).size == 39
    raises("validation=30", "kd_tiny_flat", validation=30, data_dir=data_dir)


def test_a_set_of_many_sizes_is_streamed(data_dir):
    train = data.load("kd_tiny_pictures", data_dir=data_dir)
    assert (train.size, train.image_shape, train.class_counts) == (40, (None, None, 3), (14, 13, 13))
    assert isinstance(train.store, records.RecordStore)
    pictures = {picture(index, 16 + index % 5, 20).tobytes(): index % 3 for index in range(40)}
    for image, label in train.examples().as_numpy_iterator():
        assert pictures.pop(image.tobytes()) == label
    assert not pictures
    images, labels = next(train.batches(40, 12).as_numpy_iterator())
    assert images.shape == (40, 12, 12, 3) and np.bincount(labels).tolist() == [14, 13, 13]


def test_streamed_epochs_depend_on_seed_and_number_alone(data_dir, monkeypatch):
    monkeypatch.setattr("keras_deepnets.data.pipelines.VIEW_BUDGET", 0)
    train = data.load("kd_tiny_pictures", data_dir=data_dir)
    arguments = {"image_size": 12, "training": True, "augment": "random_resized_crop_flip"}
    running = train.batches(40, **arguments)
    epochs = [next(running.as_numpy_iterator()) for _ in range(3)]
    tf.random.set_seed(5)
    resumed = next(train.batches(40, **arguments, first_epoch=2).as_numpy_iterator())
    np.testing.assert_array_equal(resumed[0], epochs[2][0])
    np.testing.assert_array_equal(resumed[1], epochs[2][1])
    assert np.bincount(epochs[0][1]).tolist() == [14, 13, 13]
    assert not np.array_equal(epochs[0][1], epochs[1][1])


def test_a_streamed_set_is_divided_by_records(data_dir):
    train, cut = data.load("kd_tiny_pictures", data_dir=data_dir).divide(0.25)
    assert (train.size, cut.size) == (30, 10)
    images = [image.tobytes() for part in (train, cut) for image, _ in part.examples().as_numpy_iterator()]
    assert len(set(images)) == 40
    assert (
        data.load("kd_tiny_pictures", "validation", validation=10, data_dir=data_dir).store.pieces == cut.store.pieces
    )


def test_pieces_are_cut_across_files():
    pieces = (records.Piece("a", 0, 10), records.Piece("b", 3, 5))
    assert records.cut_pieces(pieces, 8, 12) == (records.Piece("a", 8, 2), records.Piece("b", 3, 2))
    assert records.cut_pieces(pieces, 0, 15) == pieces
    assert records.cut_pieces(pieces, 10, 10) == ()


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("cifar10", (32, 32, 3), 10), ("mnist", (28, 28, 1), 10), ("cifar100", (32, 32, 3), 100)],
)
def test_sets_of_the_catalogue(name, shape, classes, tmp_path):
    with tfds.testing.mock_data(num_examples=20):
        images = data.load(name, "test", data_dir=tmp_path)
        validation = data.load(name, "validation", validation=5, data_dir=tmp_path)
    assert (images.size, images.image_shape, images.classes, validation.size) == (20, shape, classes, 5)


def test_no_network(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise requests.ConnectionError("Name or service not known")

    monkeypatch.setattr(requests, "get", refuse)
    folder = tmp_path / "new" / "data"
    message = raises("cifar10 is not in .*/new/data and cannot be downloaded", "cifar10", data_dir=folder)
    assert "no connection to www.cs.toronto.edu" in message and "data_dir" in message
    assert not (tmp_path / "new").exists()


def test_a_failed_preparation_leaves_nothing_half_written(tmp_path):
    (tmp_path / "downloads" / "kd_failing").mkdir(parents=True)
    (tmp_path / "downloads" / "kd_failing" / "mine.tmp.txt").write_text("was here before")
    assert "No space left on device" in raises("cannot be downloaded", "kd_failing", data_dir=tmp_path)
    left = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert left == ["labels.txt", "mine.tmp.txt"]  # complete, or not ours
    assert not list(tmp_path.rglob("archive*")) and not (tmp_path / "kd_failing").exists()


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue.importlib.util, "find_spec", lambda package: None)
    raises("svhn_cropped: TFDS needs scipy to read it; pip install scipy", "svhn_cropped", data_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_set_that_is_fetched_by_hand(tmp_path):
    message = raises("kd_by_hand: Manual directory", "kd_by_hand", data_dir=tmp_path / "data")
    assert "Sign the licence, then put images.tar there." in message
    assert not (tmp_path / "data").exists()


def test_not_a_classification_set(tmp_path):
    raises("kd_sentences: its examples are not one image and one class each", "kd_sentences", data_dir=tmp_path)


def test_unknown_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cifar_ten").mkdir()
    message = raises("unknown data set 'cifr10'", "cifr10")
    assert "the nearest are cifar10, cifar100" in message
    assert "./cifar_ten" in raises("unknown data set 'cifar_tem'", "cifar_tem")
    assert "the nearest are digits" in raises("unknown data set 'Digits'", "Digits")
    raises("no such folder", "somewhere/else")
    raises("no such folder", "~/no/such/folder")
    raises("the data source is empty", "")
    raises("mnist/bogus: TFDS cannot open it", "mnist/bogus", data_dir=tmp_path)


def test_a_name_goes_before_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("mnist", "digits"):
        (tmp_path / name).mkdir()
        raises("no images", f"./{name}")
        raises("no images", tmp_path / name)
    assert data.load("digits").size == 1437
    monkeypatch.setattr(catalogue, "load", lambda name, *arguments, **options: name)
    assert data.load("mnist") == "mnist"


def test_known_sets(data_dir, monkeypatch):
    """The published statistics stand for the whole training split alone."""
    assert [data.training_split(name) for name in ("svhn_cropped", "cifar10", "photos")] == [
        "train+extra",
        "train",
        "train",
    ]
    assert sum(catalogue.KNOWN["svhn_cropped"].sizes[part] for part in ("train", "extra")) == 604_388
    known = catalogue.KnownSet("train", {"train": 30}, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    monkeypatch.setitem(catalogue.KNOWN, "kd_tiny_flat", known)
    train = data.load("kd_tiny_flat", validation=6, data_dir=data_dir)
    assert train.size == 24 and train.statistics() == (known.mean, known.std)
    part = data.load("kd_tiny_flat", "train[:20]", data_dir=data_dir)
    pixels = [image[0, 0] for image, _ in part.examples().as_numpy_iterator()]
    np.testing.assert_allclose(part.statistics()[0], np.mean(pixels, 0), rtol=1e-12)
    joined = catalogue.KnownSet("train+test", {"train+test": 39}, known.mean, known.std)
    monkeypatch.setitem(catalogue.KNOWN, "kd_tiny_flat", joined)
    train, cut = (
        data.load("kd_tiny_flat", split, validation=9, data_dir=data_dir) for split in ("train+test", "validation")
    )
    assert (train.size, cut.size) == (30, 9) and cut.statistics() == (known.mean, known.std)
