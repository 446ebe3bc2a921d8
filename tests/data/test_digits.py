import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from keras_deepnets import data
from keras_deepnets.errors import InputError

ALL = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)  # UCI's documentation of the test set


def arrays(images):
    pairs = list(images.examples().as_numpy_iterator())
    return np.stack([image for image, _ in pairs]), np.array([label for _, label in pairs])


def test_importing_the_package_does_not_import_tensorflow():
    code = (
        "import keras_deepnets.data, sys; sys.exit(any(name in sys.modules for name in ('tensorflow', 'keras', 'PIL')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize(
    ("split", "counts"),
    [
        ("train", (142, 145, 142, 146, 145, 146, 145, 143, 139, 144)),
        ("test", (36, 37, 35, 37, 36, 36, 36, 36, 35, 36)),
        ("all", ALL),
    ],
)
def test_counts(split, counts):
    digits = data.load("digits", split)
    assert (digits.name, digits.split, digits.labels) == ("digits", split, tuple("0123456789"))
    assert digits.size == len(digits) == sum(counts)
    assert digits.class_counts == counts
    assert digits.image_shape == (8, 8, 1)
    assert digits.skipped == ()


def test_pixels_are_those_of_the_source():
    images, labels = arrays(data.load("digits", "all"))
    assert images.dtype == np.uint8 and labels.dtype == np.int64
    # The source's first digit, a nought, in sixteenths; and the sum of all its values.
    first = [[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0]]
    np.testing.assert_array_equal(images[0, :2, :, 0], np.round(np.array(first) * 255 / 16))
    assert labels[:10].tolist() == list(range(10))
    assert int(np.round(images * (16 / 255)).sum()) == 561718
    assert set(np.unique(images)) == {round(value * 255 / 16) for value in range(17)}


def test_the_test_split_is_the_same_for_every_seed_and_apart_from_train():
    test, other = (arrays(data.load("digits", "test", seed=seed))[0] for seed in (0, 1))
    np.testing.assert_array_equal(test, other)
    train = arrays(data.load("digits"))[0]
    both = np.sort([image.tobytes() for image in np.concatenate([train, test])])
    np.testing.assert_array_equal(both, np.sort([image.tobytes() for image in arrays(data.load("digits", "all"))[0]]))


@pytest.mark.parametrize(("validation", "size"), [(0.1, 144), (200, 200)])
def test_validation_is_cut_out_of_train(validation, size):
    train = data.load("digits", validation=validation)
    cut = data.load("digits", "validation", validation=validation)
    assert (train.size, cut.size, cut.split) == (1437 - size, size, "validation")
    assert max(cut.class_counts) - min(cut.class_counts) <= 2
    rows = np.concatenate([train.store.rows, cut.store.rows])
    np.testing.assert_array_equal(np.sort(rows), np.sort(data.load("digits").store.rows))
    other = data.load("digits", "validation", validation=validation, seed=1)
    assert set(other.store.rows) != set(cut.store.rows)


def test_statistics_are_exact():
    digits = data.load("digits")
    images = arrays(digits)[0].astype(np.float64)
    mean, std = digits.statistics()
    np.testing.assert_allclose(mean, [images.mean()], rtol=1e-12)
    np.testing.assert_allclose(std, [images.std()], rtol=1e-12)
    assert digits.statistics() is digits.statistics()


def test_the_data_are_attributed_and_small():
    folder = resources.files("keras_deepnets.data")
    attribution = folder.joinpath("digits.md").read_text(encoding="utf-8")
    assert all(word in attribution for word in ("Alpaydin", "Kaynak", "CC BY 4.0", "1,797"))
    assert len(folder.joinpath("digits.npz").read_bytes()) < 60_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "eval"}, "split 'eval': digits has train, validation, test, all"),
        ({"split": "validation"}, "no validation split of its own: give validation=0.1"),
        ({"validation": 1437}, "whole number of examples below 1,437"),
        ({"validation": "a tenth"}, "validation='a tenth'"),
    ],
)
def test_errors_are_one_line(arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        data.load("digits", **arguments)
    assert "\n" not in str(caught.value)
