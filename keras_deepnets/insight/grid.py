"""A grid of images in one picture, each with a line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.insight.lettering import font_of, lettered

if TYPE_CHECKING:
    from PIL import ImageFont

MOST = 25
_FULL = 16  # number of images from which every row of the grid is full
_GAP, _LINE = 4, 18
_SMALL, _LARGE = 96, 256  # side of a cell in pixels: smaller images are enlarged, larger ones reduced
_TEXT = (51, 51, 51)
_FONT = 11


def image_grid(images: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
    """Draw the first images side by side, row by row, on white. At most 25 are shown, and from 16 on a full square.

    Images below 96 pixels are enlarged by a whole factor. Images above 256 pixels are reduced by a whole factor. Other
    images are shown unscaled.

    Image ``i`` of ``c`` columns starts at row ``4 + (i // c) * (h + 4)`` and column ``4 + (i % c) * (w + 4)``. ``h``
    and ``w`` are its shown size. With names, ``h`` includes 18 pixels of text.

    Args:
        images: uint8 ``[n, h, w, c]`` with 1 or 3 channels.
        names: One line of text per image. Text that does not fit is cut.

    Returns:
        uint8 ``[height, width, 3]``.

    Raises:
        InputError: `images` is empty, or its dtype or shape is wrong.
    """
    from PIL import Image, ImageDraw

    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3) or not len(images):
        raise InputError(f"images are {images.dtype} {images.shape}; give uint8 [n, height, width, 1 or 3].")
    count, columns = _layout(len(images))
    cells = [_cell(np.broadcast_to(image, (*image.shape[:2], 3))) for image in images[:count]]
    height, width = cells[0].shape[:2]
    across, down = width + _GAP, height + _GAP + (_LINE if names else 0)
    size = (_GAP + columns * across, _GAP + -(-count // columns) * down)
    picture = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(picture)
    for at, cell in enumerate(cells):
        left, top = _GAP + at % columns * across, _GAP + at // columns * down
        picture.paste(Image.fromarray(cell), (left, top))
        if names:
            write_fitting(pen, (left, top + height + 2), names[at], width, _FONT, _TEXT)
    return np.asarray(picture)


def _layout(count: int) -> tuple[int, int]:
    """Return the number of shown images and the number of columns."""
    if count < _FULL:
        return count, math.isqrt(count - 1) + 1
    columns = math.isqrt(min(count, MOST))
    return columns**2, columns


def _cell(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    longest = max(image.shape[:2])
    if longest > _LARGE:
        return np.asarray(Image.fromarray(image).reduce(-(-longest // _LARGE)))
    factor = max(1, _SMALL // longest)
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def write_fitting(pen: Any, place: tuple[float, float], text: str, width: float, size: int, colour: Any) -> None:
    """Write a text in any script, cut at the end if it is wider than `width` pixels.

    Args:
        pen: `ImageDraw` of the picture.
        place: Left and upper edge in pixels.
        text: The text.
        width: Largest width in pixels.
        size: Size of the letters in pixels.
        colour: Colour of the letters.
    """
    text, font = lettered(" ".join(text.split()), size)
    # The anchor is the base line, because fonts differ in their height.
    base = place[1] + font_of(size).getmetrics()[0]
    pen.text((place[0], base), fitting(text, width, font), colour, font, anchor="ls")


def fitting(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """Return the text on one line, cut at the end if it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
