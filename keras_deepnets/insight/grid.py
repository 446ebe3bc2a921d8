"""A grid of images in one picture, each with a line of text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    from PIL import ImageFont

MOST = 25
_FULL = 16  # number of images from which every row of the grid is full
_GAP, _LINE = 4, 18
_SMALL, _LARGE = 96, 256  # side of a cell in pixels: smaller images are enlarged, larger ones reduced
_TEXT = (51, 51, 51)


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
    pen, font = ImageDraw.Draw(picture), font_of(11) if names else None
    for at, cell in enumerate(cells):
        left, top = _GAP + at % columns * across, _GAP + at // columns * down
        picture.paste(Image.fromarray(cell), (left, top))
        if names and font is not None:
            pen.text((left, top + height + 2), fitting(names[at], width, font), _TEXT, font)
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


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Load Matplotlib's font in a size in pixels.

    It comes with the package and has Greek, Cyrillic and accented letters, which Pillow's font lacks.
    """
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


def fitting(text: str, width: float, font: ImageFont.FreeTypeFont) -> str:
    """Return the text on one line, cut at the end if it is wider than `width` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"
