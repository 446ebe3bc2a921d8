"""Boxes with labels on a Pillow image."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.insight.grid import fitting
from keras_deepnets.insight.lettering import font_for

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]

WHITE, GREY, DARK = (255, 255, 255), (190, 190, 190), (24, 24, 24)
# Bright, far apart, and away from the browns and greys of photos. The order is that of labels 1, 2, ….
_PALETTE: tuple[Colour, ...] = (
    *((255, 90, 60), (64, 176, 255), (120, 220, 70), (255, 222, 30), (225, 110, 255), (0, 215, 190)),
    *((255, 130, 180), (150, 150, 255), (200, 230, 60), (255, 150, 50), (40, 110, 245), (210, 60, 120)),
)
_DARKEST = 100  # luma
_GOLDEN = 0.618034  # of the circle of hues: no later hue repeats an earlier one
_DASH, _GAP = 7, 5  # pixels
_PAD = 3  # pixels around the text of a tag
_COVERED = 0.12  # largest share of a picture below tags


@dataclass(frozen=True)
class Mark:
    """A box to draw.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the picture, as edges.
        colour: Colour of the line and of the tag.
        text: Text of the tag; empty for no tag.
        short: Text of the tag in a crowded picture; empty for no tag.
        dashed: Whether the line is dashed, and the tag dark.
        width: Width of the line in pixels.
    """

    box: tuple[float, float, float, float]
    colour: Colour
    text: str = ""
    short: str = ""
    dashed: bool = False
    width: int = 2


def colour_of(label: int) -> Colour:
    """The colour of a class, the same in every picture. The first 12 labels have colours that are easy to tell apart."""
    if 1 <= label <= len(_PALETTE):
        return _PALETTE[label - 1]
    colour = 255 * np.array(colorsys.hsv_to_rgb(label * _GOLDEN % 1, 0.55 + 0.3 * (label % 2), 1.0))
    # Blue is dark: white is added, so that it is readable on the dark tags of missed objects.
    white = max(0.0, (_DARKEST - _luma(colour)) / (255 - _luma(colour)))
    red, green, blue = (round(float(value)) for value in colour + white * (255 - colour))
    return red, green, blue


def _luma(colour: Sequence[int] | np.ndarray) -> float:
    """Luma of Rec. 601, from 0 to 255."""
    return float(np.dot(colour, (0.299, 0.587, 0.114)))


def draw_marks(picture: Image.Image, marks: Sequence[Mark]) -> None:
    """Draw boxes, then their tags, so that no line crosses a text. The first tags get the best places.

    Tags that would cover too much of the picture become short. Short tags that would cover too much are left out, and lines
    have no dark edges.

    Args:
        picture: RGB image, changed in place.
        marks: Boxes, the most important first.
    """
    from PIL import ImageDraw

    pen = ImageDraw.Draw(picture)
    side = max(picture.size)
    font, letters = font_for([mark.text for mark in marks], max(11, round(side / 45)))
    marks = [replace(mark, text=letters(mark.text)) for mark in marks]
    edges = [_edges(mark.box, picture.size) for mark in marks]
    texts = _texts(marks, font, picture.width * picture.height)
    crowded = any(mark.text for mark in marks) and not any(texts)
    for mark, box in reversed([*zip(marks, edges, strict=True)]):
        _outline(pen, box, mark, max(mark.width, round(side / 400)), edged=not crowded)
    taken: list[Box] = []
    for mark, box, text in zip(marks, edges, texts, strict=True):
        if text:
            taken.append(_tag(pen, box, mark, text, font, picture.size, taken))


def _texts(marks: Sequence[Mark], font: ImageFont.FreeTypeFont, area: int) -> list[str]:
    """The text of each tag: all long, all short or all empty, so that the tags cover at most a part of the picture."""
    for texts in ([mark.text for mark in marks], [mark.short for mark in marks]):
        sizes = [_size(text, font) for text in texts if text]
        if sum(width * height for width, height in sizes) <= _COVERED * area:
            return texts
    return [""] * len(marks)


def _size(text: str, font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Width and height of a tag in pixels."""
    return round(font.getlength(text)) + 2 * _PAD, sum(font.getmetrics()) + 2


def _edges(box: tuple[float, float, float, float], size: tuple[int, int]) -> Box:
    """The first and last pixels of a box, inside the picture, so that every side is visible."""
    right, bottom = size[0] - 1, size[1] - 1
    x1, y1, x2, y2 = (int(value) for value in np.round(box))
    x1, y1 = min(max(x1, 0), right), min(max(y1, 0), bottom)
    return x1, y1, max(x1, min(x2 - 1, right)), max(y1, min(y2 - 1, bottom))


def _outline(pen: ImageDraw.ImageDraw, box: Box, mark: Mark, width: int, edged: bool) -> None:
    """Draw a line. With dark edges, it is visible on bright and on dark images."""
    x1, y1, x2, y2 = box
    if mark.dashed:
        for x, y, horizontal, length in _dashes(box):
            across, down = (length, width) if horizontal else (width, length)
            # On the right and at the bottom, the line grows inwards.
            left = x if x < x2 or horizontal else x - width + 1
            top = y if y < y2 or not horizontal else y - width + 1
            if edged:
                pen.rectangle((left - 1, top - 1, left + across, top + down), DARK)
            pen.rectangle((left, top, left + across - 1, top + down - 1), mark.colour)
        return
    inner = (x1 + width, y1 + width, x2 - width, y2 - width)
    if edged:
        pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=DARK)
    if edged and inner[0] < inner[2] and inner[1] < inner[3]:
        pen.rectangle(inner, outline=DARK)
    pen.rectangle(box, outline=mark.colour, width=width)


def _dashes(box: Box) -> Iterator[tuple[int, int, bool, int]]:
    """Yield x, y, whether the dash is horizontal, and its length."""
    x1, y1, x2, y2 = box
    for start, end, horizontal in ((x1, x2, True), (y1, y2, False)):
        for at in range(start, end + 1, _DASH + _GAP):
            length = min(_DASH, end + 1 - at)
            for other in (y1, y2) if horizontal else (x1, x2):
                yield (at, other, True, length) if horizontal else (other, at, False, length)


def _tag(
    pen: ImageDraw.ImageDraw,
    box: Box,
    mark: Mark,
    text: str,
    font: ImageFont.FreeTypeFont,
    size: tuple[int, int],
    taken: Sequence[Box],
) -> Box:
    """Write the text of a mark next to its box. Return the place of the tag."""
    text = fitting(text, size[0] - 2 * _PAD, font)
    place = _place(box, _size(text, font), size, taken)
    paper, ink = mark.colour, DARK if _luma(mark.colour) > 120 else WHITE
    if mark.dashed:
        paper, ink = DARK, mark.colour
    pen.rectangle((place[0], place[1], place[2] - 1, place[3] - 1), paper, outline=DARK)
    pen.text((place[0] + _PAD, place[1] + 1), text, ink, font)
    return place


def _place(box: Box, tag: tuple[int, int], size: tuple[int, int], taken: Sequence[Box]) -> Box:
    """The first free place: above the box, inside at the top, below, inside at the bottom; at the left, then at the right.

    Without a free place, the tag covers as little of other tags as possible.
    """
    width, height = tag
    x1, y1, x2, y2 = box
    tops = (y1 - height, y1, y2 + 1, y2 + 1 - height)
    places = []
    for left in (x1, x2 + 1 - width):
        left = min(max(left, 0), max(size[0] - width, 0))
        places += [(left, top, left + width, top + height) for top in tops if 0 <= top <= size[1] - height]
    if not places:  # the picture is lower than a line
        places = [(min(max(x1, 0), max(size[0] - width, 0)), 0, x1 + width, height)]
    return min(places, key=lambda place: sum(_shared(place, other) for other in taken))


def _shared(place: Box, other: Box) -> int:
    across = min(place[2], other[2]) - max(place[0], other[0])
    down = min(place[3], other[3]) - max(place[1], other[1])
    return max(across, 0) * max(down, 0)
