import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from keras_deepnets.errors import InputError
from keras_deepnets.insight import draw_confusion
from keras_deepnets.insight.confusion import _figure


def matrix(classes, per_class=50, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), per_class)
    guesses = np.where(rng.random(len(labels)) < 0.8, labels, rng.integers(0, classes, len(labels)))
    found = np.zeros((classes, classes), int)
    np.add.at(found, (labels, guesses), 1)
    return found


def names(classes):
    return [f"kind {number}" for number in range(classes)]


def texts(axes):
    return {(round(text.get_position()[1]), round(text.get_position()[0])): text for text in axes.texts}


def test_numbers_and_names_of_few_classes():
    found = np.array([[1200, 3, 0], [40, 60, 0], [0, 0, 0]])
    figure = _figure(found, ["cat", "dog", "a creature of the deepest sea"], "resnet20")
    axes, bar = figure.axes
    assert axes.get_title(loc="left") == "resnet20: top-1 96.70 % of 1,303 images"
    cells = texts(axes)
    assert {place: text.get_text() for place, text in cells.items()} == {
        (0, 0): "1,200",
        (0, 1): "3",
        (1, 0): "40",
        (1, 1): "60",
    }
    assert to_rgb(cells[0, 0].get_color()) == (1, 1, 1) and to_rgb(cells[0, 1].get_color()) == (0, 0, 0)
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["cat", "dog", "a creature of the deepe…"]
    shares = axes.images[0].get_array()
    np.testing.assert_allclose(shares[:2], [[1200 / 1203, 3 / 1203, 0], [0.4, 0.6, 0]])
    assert shares.mask[2].all() and not shares.mask[:2].any()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert bar.get_ylabel() == "share of the true class"


@pytest.mark.parametrize(
    ("classes", "numbered", "named"), [(2, 1, 1), (25, 1, 1), (26, 0, 1), (120, 0, 1), (121, 0, 0)]
)
def test_what_is_written_of_how_many_classes(classes, numbered, named):
    axes = _figure(matrix(classes), names(classes), None).axes[0]
    assert len(axes.texts) == numbered * np.count_nonzero(matrix(classes))
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert (labels == names(classes)) == bool(named)


def test_a_single_mistake_among_a_thousand_classes_is_seen(tmp_path):
    found = np.diag(np.full(1000, 50))
    found[700, 200] = 1
    path = draw_confusion(found, names(1000), tmp_path / "confusion.png")
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    height, width = pixels.shape[:2]
    assert 2000 < height < 2400 and 2000 < width < 2500
    below = pixels[height // 2 : int(0.9 * height), int(0.06 * width) : int(0.4 * width)]
    ground = np.bincount(below.reshape(-1, 3) @ (65536, 256, 1)).argmax()
    dots = np.argwhere((below @ (65536, 256, 1)) != ground)
    assert 1 <= len(dots) <= 9 and np.ptp(dots, axis=0).max() <= 2


def test_a_picture_that_is_replaced_whole(tmp_path):
    path = tmp_path / "confusion.svg"
    path.write_text("old")
    assert draw_confusion(matrix(4), names(4), str(path)) == path
    assert path.read_bytes().startswith(b"<?xml")
    assert [file.name for file in tmp_path.iterdir()] == ["confusion.svg"]


def test_bad_paths(tmp_path):
    for path, message in (
        ("confusion.gif", r"must end in \.png, \.svg, \.pdf"),
        ("no/confusion.png", "there is no folder"),
        ("folder.png", "is a folder"),
    ):
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=message):
            draw_confusion(matrix(3), names(3), tmp_path / path)
    assert [file.name for file in tmp_path.iterdir()] == ["folder.png"]


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match="nothing can be written to the folder"):
        draw_confusion(matrix(3), names(3), tmp_path / "confusion.png")


@pytest.mark.parametrize(
    ("confusion", "message"),
    [
        (np.ones((3, 2), int), r"int64 \[3, 2\]; give whole numbers, a row and a column for each of the 3 labels"),
        (np.ones((3, 3)), "float64"),
        (np.zeros((3, 3), int), "not all 0"),
        (np.full((3, 3), -1), "none below 0"),
    ],
)
def test_bad_matrices(tmp_path, confusion, message):
    with pytest.raises(InputError, match=message):
        draw_confusion(confusion, names(3), tmp_path / "confusion.png")
    assert list(tmp_path.iterdir()) == []
