import numpy as np
import pytest

from keras_deepnets.errors import InputError
from keras_deepnets.insight import image_grid


def noise(count, height, width, channels=3):
    return np.random.default_rng(0).integers(0, 255, (count, height, width, channels)).astype("uint8")


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (5, 2, 3), (15, 4, 4), (16, 4, 4), (24, 4, 4), (64, 5, 5)]
)
def test_rows_and_columns(count, rows, columns):
    assert image_grid(noise(count, 100, 120)).shape == (4 + rows * 104, 4 + columns * 124, 3)


def test_images_between_are_shown_pixel_by_pixel():
    pictures = noise(5, 100, 120)
    grid = image_grid(pictures)
    for at, (row, column) in enumerate([(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]):
        top, left = 4 + 104 * row, 4 + 124 * column
        np.testing.assert_array_equal(grid[top : top + 100, left : left + 120], pictures[at])
    assert (grid[:4] == 255).all() and (grid[:, :4] == 255).all() and (grid[108:, 252:] == 255).all()


def test_small_ones_grow_and_large_ones_shrink():
    small, large = noise(1, 32, 32), np.full((1, 600, 300, 1), 77, "uint8")
    np.testing.assert_array_equal(image_grid(small)[4:-4, 4:-4], small[0].repeat(3, 0).repeat(3, 1))
    reduced = image_grid(large)
    assert reduced.shape == (8 + 200, 8 + 100, 3) and (reduced[4:-4, 4:-4] == 77).all()


def test_long_names_are_cut():
    """The line below an image is 96 pixels wide, and so are names: the gap beside it stays white."""
    names = ["short", "a very long name of a class, as ImageNet has them", "Ναυαγός", "two\nlines"]
    grid = image_grid(noise(4, 8, 8), names)
    assert grid.shape == (4 + 2 * 118, 4 + 2 * 100, 3)
    lines = [grid[top : top + 18, left : left + 96] for top in (100, 218) for left in (4, 104)]
    assert all((line < 128).any() for line in lines)
    assert (grid[:, 100:104] == 255).all()
    assert (lines[0][:, 60:] == 255).all() and (lines[1][:, 80:] < 255).any()


@pytest.mark.parametrize(
    "wrong", [noise(0, 8, 8), noise(1, 8, 8, 2), noise(1, 8, 8).astype("float32"), noise(1, 8, 8)[0]]
)
def test_what_are_no_images(wrong):
    with pytest.raises(InputError, match=r"give uint8 \[n, height, width, 1 or 3\]"):
        image_grid(wrong)
