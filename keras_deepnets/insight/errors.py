"""A picture of the images that a classifier gets most wrong."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.files import written_aside
from keras_deepnets.insight.confusion import check_path as _check_path
from keras_deepnets.insight.grid import fitting, font_of

if TYPE_CHECKING:
    from PIL import Image

    from keras_deepnets.data import ImageData
    from keras_deepnets.evaluation import Evaluation, Mistake

SUFFIX = ".png"
_CELL, _GAP, _MARGIN = 176, 12, 14  # pixels
_FONT, _LINE = 13, 18
_COLUMNS = (3, 10)  # fewest: the heading needs the width; most: wider pictures fit no screen
_TRUE, _PREDICTED, _GREY, _FRAME = (34, 34, 34), (178, 34, 34), (102, 102, 102), (242, 242, 242)


def check_path(path: str | os.PathLike) -> Path:
    """The path of a picture of errors. Raises InputError where it does not end in .png, or cannot be written."""
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise InputError(f"{str(path)!r} must end in {SUFFIX}: the picture is made of images.")
    return _check_path(path)


def draw_errors(evaluation: Evaluation, data: ImageData, path: str | os.PathLike) -> Path | None:
    """Draws the worst errors of an evaluation: each image with its true class, the predicted class and its probability.

    The images are whole, not the central view that the network saw, and keep their proportions. The highest loss comes first.
    Names that do not fit below an image are cut.

    Args:
        evaluation: what `keras_deepnets.training.evaluate` gave; `Evaluation.worst` says which images are drawn.
        data: the images that it was measured on.
        path: of the picture, ``….png``.

    Returns:
        `path`; None where there is no error: then nothing is written.

    Raises:
        InputError: another suffix, a picture that cannot be written, or data of another size than the evaluation's.
    """
    path = check_path(path)
    if data.size != evaluation.size:
        raise InputError(
            f"The evaluation is of {evaluation.size:,} images and {data.name!r} has {data.size:,}; give the data that was measured."
        )
    if not evaluation.worst:
        return None
    images = data.pick([mistake.index for mistake in evaluation.worst])
    count = len(images)
    heading = (
        f"{count:,} of {evaluation.errors:,} error{'s' if evaluation.errors > 1 else ''} in {evaluation.size:,} images, highest "
        "loss first. Below each image: its true class, then the predicted class and its probability."
    )
    picture = _picture(images, evaluation.worst, heading)
    try:
        with written_aside(path) as aside:
            picture.save(aside)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror or error}.") from error
    return path


def _picture(images: Sequence[np.ndarray], mistakes: Sequence[Mistake], heading: str) -> Image.Image:
    from PIL import Image, ImageDraw

    columns = min(max(math.isqrt(len(images) - 1) + 1, _COLUMNS[0]), _COLUMNS[1])
    across, down = _CELL + _GAP, _CELL + 2 * _LINE + _GAP
    width = 2 * _MARGIN + columns * across - _GAP
    font = font_of(_FONT)
    lines = _wrapped(heading, width - 2 * _MARGIN, font)
    top = _MARGIN + len(lines) * _LINE + _GAP
    picture = Image.new("RGB", (width, top + -(-len(images) // columns) * down - _GAP + _MARGIN), "white")
    pen = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        pen.text((_MARGIN, _MARGIN + number * _LINE), line, _GREY, font)
    for at, (image, mistake) in enumerate(zip(images, mistakes, strict=True)):
        left, upper = _MARGIN + at % columns * across, top + at // columns * down
        pen.rectangle((left, upper, left + _CELL - 1, upper + _CELL - 1), _FRAME)
        shown = _fitted(image)
        picture.paste(shown, (left + (_CELL - shown.width) // 2, upper + (_CELL - shown.height) // 2))
        share = _percent(mistake.probability)
        room = _CELL - font.getlength(f" {share}")
        pen.text((left, upper + _CELL + 3), fitting(mistake.true, _CELL, font), _TRUE, font)
        pen.text((left, upper + _CELL + 3 + _LINE), fitting(f"→ {mistake.predicted}", room, font), _PREDICTED, font)
        pen.text((left + _CELL, upper + _CELL + 3 + _LINE), share, _PREDICTED, font, anchor="ra")
    return picture


def _fitted(image: np.ndarray) -> Image.Image:
    """An image within a cell: smaller ones enlarged by a whole factor, larger ones reduced."""
    from PIL import Image

    shown = Image.fromarray(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))))
    factor = _CELL // max(shown.size)
    if factor > 1:
        return shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST)
    shown.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
    return shown


def _percent(share: float) -> str:
    """A probability without a decimal; what is below 1 is no 100 %."""
    return f"{min(round(100 * share), 99 if share < 0.9995 else 100)} %"


def _wrapped(text: str, width: float, font) -> list[str]:
    """A text in lines of at most so many pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
