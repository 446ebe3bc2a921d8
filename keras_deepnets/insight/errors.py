"""A picture of the images with the worst classification errors."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.files import written_aside
from keras_deepnets.insight import figures
from keras_deepnets.insight.grid import write_fitting
from keras_deepnets.insight.lettering import font_of

if TYPE_CHECKING:
    from PIL import Image

    from keras_deepnets.data import ImageData
    from keras_deepnets.evaluation import Evaluation, Mistake

SUFFIX = ".png"
_CELL, _GAP, _MARGIN = 176, 12, 14  # pixels
_FONT, _LINE = 13, 18
_COLUMNS = (3, 10)  # minimum: the heading needs the width; maximum: wider pictures exceed the screen
_TRUE, _PREDICTED, _GREY, _FRAME = (34, 34, 34), (178, 34, 34), (102, 102, 102), (242, 242, 242)


def check_path(path: str | os.PathLike) -> Path:
    """Return the path of a picture of errors; raise `InputError` if it does not end in .png or cannot be written."""
    path = Path(path)
    if path.suffix.lower() != SUFFIX:
        raise InputError(f"{str(path)!r} must end in {SUFFIX}: the picture is made of images.")
    return figures.check_path(path)


def draw_errors(evaluation: Evaluation, data: ImageData, path: str | os.PathLike) -> Path | None:
    """Draw the worst errors of an evaluation: each image with its true class, predicted class and probability.

    Each image is drawn whole and keeps its aspect ratio, unlike the central view that the network sees. The highest
    loss comes first. Class names that do not fit below an image are cut.

    Args:
        evaluation: Result of `keras_deepnets.training.evaluate`. `Evaluation.worst` selects the images.
        data: Evaluated images.
        path: Path of the picture, ``….png``.

    Returns:
        `path`, or None without errors. Nothing is written in that case.

    Raises:
        InputError: The suffix is wrong, the picture cannot be written, or the sizes of the data and the evaluation
            differ.
    """
    path = check_path(path)
    if data.size != evaluation.size:
        raise InputError(
            f"The evaluation is of {evaluation.size:,} images and {data.name!r} has {data.size:,}; give the data that was evaluated."
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
        write_fitting(pen, (left, upper + _CELL + 3), mistake.true, _CELL, _FONT, _TRUE)
        arrow = font.getlength("→ ")
        pen.text((left, upper + _CELL + 3 + _LINE), "→", _PREDICTED, font)
        place = (left + arrow, upper + _CELL + 3 + _LINE)
        write_fitting(pen, place, mistake.predicted, room - arrow, _FONT, _PREDICTED)
        pen.text((left + _CELL, upper + _CELL + 3 + _LINE), share, _PREDICTED, font, anchor="ra")
    return picture


def _fitted(image: np.ndarray) -> Image.Image:
    """Fit an image in a cell. Smaller images are enlarged by a whole factor, and larger ones are reduced."""
    from PIL import Image

    shown = Image.fromarray(np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3))))
    factor = _CELL // max(shown.size)
    if factor > 1:
        return shown.resize((shown.width * factor, shown.height * factor), Image.Resampling.NEAREST)
    shown.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
    return shown


def _percent(share: float) -> str:
    """Format a probability without decimals; only values of at least 0.9995 are shown as 100 %."""
    return f"{min(round(100 * share), 99 if share < 0.9995 else 100)} %"


def _wrapped(text: str, width: float, font) -> list[str]:
    """Wrap a text into lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
