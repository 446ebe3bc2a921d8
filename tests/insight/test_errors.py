import numpy as np
import pytest
from PIL import Image

from keras_deepnets.data import ImageData, stores
from keras_deepnets.errors import InputError
from keras_deepnets.insight import draw_errors
from keras_deepnets.insight.errors import _percent
from keras_deepnets.training.evaluation import Tally

CELL, GAP, MARGIN, LINE = 176, 12, 14, 18
LABELS = ("an extraordinarily long name of a class that no cell could ever hold", "b", "c")


def measured(images, truth, guesses, worst=25, sure=0.9):
    """An evaluation in which image i is wrong with less and less certainty, and its data."""
    outputs = np.full((len(truth), 3), 0.02)
    outputs[np.arange(len(truth)), guesses] = sure - 0.01 * np.arange(len(truth))
    outputs[np.arange(len(truth)), truth] += 0.001 * np.arange(len(truth))
    tally = Tally(LABELS, worst)
    tally.add(outputs, np.asarray(truth))
    same = len({image.shape for image in images}) == 1
    store = stores.from_arrays if same else stores.from_images
    data = ImageData("noise", "test", LABELS, store(np.stack(images) if same else images, np.asarray(truth)))
    return tally.evaluation(1.0), data


def cell(picture, at, columns, lines):
    top, left = (
        MARGIN + lines * LINE + GAP + at // columns * (CELL + 2 * LINE + GAP),
        MARGIN + at % columns * (CELL + GAP),
    )
    return picture[top : top + CELL, left : left + CELL], picture[
        top + CELL : top + CELL + 2 * LINE, left : left + CELL
    ]


def test_images_stand_in_the_order_of_their_loss(tmp_path):
    images = [np.full((8, 8, 3), 20 * at, "uint8") for at in range(6)]
    found, data = measured(images, [0, 1, 2, 0, 1, 2], [1, 2, 0, 0, 2, 0])
    assert [error.index for error in found.worst] == [0, 1, 2, 4, 5]
    assert draw_errors(found, data, tmp_path / "errors.png") == tmp_path / "errors.png"
    picture = np.asarray(Image.open(tmp_path / "errors.png"))
    assert picture.shape == (
        2 * MARGIN + 2 * LINE + GAP + 2 * (CELL + 2 * LINE + GAP) - GAP,
        2 * MARGIN + 3 * CELL + 2 * GAP,
        3,
    )
    for at, error in enumerate(found.worst):
        shown, text = cell(picture, at, 3, 2)
        assert (shown == 20 * error.index).all()
        assert (text[:LINE].min(axis=-1) < 128).any()  # the true class, dark
        red = (text[LINE:, :, 0] > 150) & (text[LINE:, :, 1] < 90)
        assert red[:, :60].any() and red[:, -40:].any()  # the predicted class, and its probability to the right
    assert (cell(picture, 5, 3, 2)[0] == 255).all()
    # A name that is too long ends within its cell.
    assert (picture[:, MARGIN + CELL : MARGIN + CELL + GAP] > 200).all(axis=-1)[MARGIN + 2 * LINE + GAP :].all()


def test_images_of_any_shape_are_whole(tmp_path):
    shapes = [(352, 704, 1), (100, 50, 1), (8, 4, 1)]
    found, data = measured([np.full(shape, 77, "uint8") for shape in shapes], [0, 1, 2], [1, 2, 0])
    draw_errors(found, data, tmp_path / "errors.png")
    picture = np.asarray(Image.open(tmp_path / "errors.png"))
    for at, (height, width) in enumerate([(88, 176), (100, 50), (176, 88)]):
        shown, _ = cell(picture, at, 3, 2)
        assert int((shown == 77).all(axis=-1).sum()) == height * width


def test_many_errors_stand_in_ten_columns_at_most(tmp_path):
    images = [np.zeros((4, 4, 1), "uint8")] * 130
    truth, guesses = np.zeros(130, int), np.ones(130, int)
    outputs = np.tile([0.1, 0.8, 0.1], (130, 1))
    tally = Tally(LABELS, 120)
    tally.add(outputs, truth)
    data = ImageData("noise", "test", LABELS, stores.from_arrays(np.stack(images), truth))
    draw_errors(tally.evaluation(1.0), data, tmp_path / "errors.png")
    width, height = Image.open(tmp_path / "errors.png").size
    assert width == 2 * MARGIN + 10 * CELL + 9 * GAP
    assert height == 2 * MARGIN + LINE + GAP + 12 * (CELL + 2 * LINE + GAP) - GAP
    assert guesses.all()


def test_nothing_is_written_without_errors_or_for_other_data(tmp_path):
    images = [np.zeros((8, 8, 3), "uint8")] * 2
    found, data = measured(images, [0, 1], [0, 1])
    assert draw_errors(found, data, tmp_path / "errors.png") is None
    found, _ = measured(images, [0, 1], [1, 0])
    with pytest.raises(InputError, match=r"The evaluation is of 2 images and 'noise' has 1; give the data"):
        draw_errors(found, data.take(1), tmp_path / "errors.png")
    for wrong in ("errors.svg", "none/errors.png", ""):
        with pytest.raises(InputError, match=r"must end in \.png|there is no folder"):
            draw_errors(found, data, tmp_path / wrong)
    assert list(tmp_path.iterdir()) == []


def test_below_one_is_no_hundred_per_cent():
    assert [_percent(share) for share in (0.0, 0.004, 0.5, 0.994, 0.999, 0.9996, 1.0)] == [
        "0 %", "0 %", "50 %", "99 %", "99 %", "100 %", "100 %",
    ]  # fmt: skip
