"""Pictures of detections: boxes on images, the best and the worst images, precision-recall curves."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.detection.curves import precision_recall
from keras_deepnets.detection.marks import GREY, WHITE, Mark, colour_of, draw_marks
from keras_deepnets.detection.metrics.images import ImageScore, image_score, ranked_images
from keras_deepnets.detection.metrics.inputs import Detection, Truth, checked_classes, checked_detection, checked_truth
from keras_deepnets.detection.metrics.matching import IOU, by_score, same_class_overlaps
from keras_deepnets.errors import InputError
from keras_deepnets.files import written_aside
from keras_deepnets.insight.errors import check_path as check_image_path
from keras_deepnets.insight.grid import fitting
from keras_deepnets.insight.lettering import font_for, font_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["MOST", "best_and_worst", "detections_grid", "draw_boxes", "precision_recall", "save_detections"]

MOST = 24
"""Largest number of images in a grid."""
_LEGEND = 3  # lines of the legend
_SMALL = 320  # images below this side in pixels are enlarged
_CELL, _SPACE, _MARGIN, _FONT, _LINE = 360, 12, 14, 13, 19  # pixels
_TEXT, _FAINT, _FRAME = (34, 34, 34), (102, 102, 102), (242, 242, 242)
_ANY = 1 << 31  # number of classes without names

Row = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class _Cell:
    """An image of a grid with its boxes and a line of text below."""

    image: np.ndarray
    detection: Detection
    truth: Truth | None
    caption: str


def draw_boxes(
    image: np.ndarray,
    boxes: Any,
    labels: Any,
    scores: Any = None,
    classes: Sequence[str] | None = None,
) -> np.ndarray:
    """Draw boxes with class names and scores on an image.

    Images with both sides of at most 160 pixels are enlarged by a whole factor, to at most 320 pixels. Otherwise the text would hide
    the image. A class has the same colour in all pictures.

    Args:
        image: uint8 ``[h, w, c]`` with 1 or 3 channels.
        boxes: float ``[n, 4]`` as x1, y1, x2, y2 in pixels of the image.
        labels: int ``[n]``, from 1.
        scores: float ``[n]``. The highest is on top. Default: no scores.
        classes: Class names, with the background first. Default: the labels are shown as numbers.

    Returns:
        uint8 ``[factor * h, factor * w, 3]``, a copy.

    Raises:
        InputError: The image, a box, a label or a score is wrong.
    """
    from PIL import Image

    names = None if classes is None else checked_classes(classes)
    shown = scores is not None
    row = {"boxes": boxes, "labels": labels, "scores": scores if shown else np.zeros(len(boxes))}
    found = checked_detection(row, _ANY if names is None else len(names), 0)
    picture = _rgb(image)
    factor = max(1, _SMALL // max(picture.size))
    if factor > 1:
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    draw_marks(picture, _solid(by_score(found), names, factor, with_scores=shown))
    return np.array(picture)


def save_detections(
    path: str | os.PathLike,
    images: Sequence[np.ndarray],
    detections: Sequence[Row],
    truths: Sequence[Row] | None = None,
    classes: Sequence[str] | None = None,
    min_score: float = 0.5,
    captions: Sequence[str] | None = None,
    key: str | None = None,
) -> Path:
    """Draw a grid of images with their detections (solid) and true boxes (dashed). At most 24 images are drawn.

    A true box is white if a drawn detection of its class has an IoU of 0.5 with it. Otherwise it has the colour of the class. Crowds
    and difficult objects are grey. In crowded images, tags have only scores or are left out. The legend above the images names the colours.

    Args:
        path: Path of the picture, ``….png``.
        images: uint8 ``[h, w, c]`` each, with 1 or 3 channels. Sizes may differ.
        detections: One mapping per image, as in `evaluate_detections`.
        truths: One mapping per image, as in `evaluate_detections`. Default: no true boxes.
        classes: Class names, with the background first. Default: the labels are shown as numbers.
        min_score: Detections below it are not drawn.
        captions: A line of text per image. Text that does not fit is cut.
        key: Line above the images. Default: what solid and dashed boxes mean.

    Returns:
        `path`.

    Raises:
        InputError: The lengths differ, or no image is given. A value is wrong. The picture cannot be written.
    """
    path = check_image_path(path)
    return _write(_detections_grid(images, detections, truths, classes, min_score, captions, key), path)


def detections_grid(
    images: Sequence[np.ndarray],
    detections: Sequence[Row],
    truths: Sequence[Row] | None = None,
    classes: Sequence[str] | None = None,
    min_score: float = 0.5,
    captions: Sequence[str] | None = None,
) -> np.ndarray:
    """Return the picture of `save_detections` as uint8 ``[h, w, 3]``. The arguments and errors are the same."""
    return np.array(_detections_grid(images, detections, truths, classes, min_score, captions))


def _detections_grid(
    images: Sequence[np.ndarray],
    detections: Sequence[Row],
    truths: Sequence[Row] | None,
    classes: Sequence[str] | None,
    min_score: float,
    captions: Sequence[str] | None,
    key: str | None = None,
) -> Image.Image:
    names = None if classes is None else checked_classes(classes)
    for name, rows in (("detections", detections), ("truths", truths), ("captions", captions)):
        if rows is not None and len(rows) != len(images):
            raise InputError(f"There are {len(images):,} images and {len(rows):,} {name}; give one per image.")
    if not len(images):
        raise InputError("There are no images to draw; give at least one.")
    count = min(len(images), MOST)
    cells = [
        _cell(
            images[at],
            detections[at],
            None if truths is None else truths[at],
            names,
            min_score,
            captions[at] if captions else "",
            at,
        )
        for at in range(count)
    ]
    columns = min(math.isqrt(count - 1) + 1, 6)
    return _grid([("", cells)], columns, min_score, names, key)


def best_and_worst(
    path: str | os.PathLike,
    images: Sequence[np.ndarray],
    truths: Sequence[Row],
    detections: Sequence[Row],
    classes: Sequence[str],
    count: int = 4,
    min_score: float = 0.5,
) -> Path | None:
    """Draw the images with the best and the worst F1 score at IoU 0.5.

    `image_score` defines the score, and `ranked_images` the order of equal scores. Images without objects and detections have no score.

    Args:
        path: Path of the picture, ``….png``.
        images: uint8 ``[h, w, c]`` each. Only the images of the picture are read by index.
        truths: One mapping per image, as in `evaluate_detections`.
        detections: One mapping per image, as in `evaluate_detections`.
        classes: Class names, with the background first.
        count: Number of best and of worst images, 1 to 12. An image is drawn once, so there may be fewer.
        min_score: Detections below it do not count and are not drawn.

    Returns:
        `path`, or None if no image has a score. Nothing is written in that case.

    Raises:
        InputError: The lengths differ. A value is wrong. The picture cannot be written.
    """
    path = check_image_path(path)
    names = checked_classes(classes)
    if not len(images) == len(truths) == len(detections):
        raise InputError(
            f"There are {len(images):,} images, {len(truths):,} truths and {len(detections):,} detections; give one per image."
        )
    if not 1 <= count <= MOST // 2:
        raise InputError(f"count is {count}; give 1 to {MOST // 2} images.")
    pairs = enumerate(zip(truths, detections, strict=True))
    ranked = ranked_images([image_score(*pair, names, min_score, image) for image, pair in pairs])
    if not ranked:
        return None
    best = ranked[:count]
    worst = ranked[len(best) :][-count:][::-1]
    sections = []
    for title, scores in (("Best images", best), ("Worst images", worst)):
        cells = [
            _cell(
                images[each.image],
                detections[each.image],
                truths[each.image],
                names,
                min_score,
                _caption(each),
                each.image,
            )
            for each in scores
        ]
        sections += [(title, cells)] if cells else []
    return _write(_grid(sections, min(max(len(best), 2), 4), min_score, names), path)


def _rgb(image: np.ndarray) -> Image.Image:
    from PIL import Image

    image = np.asarray(image)
    if image.ndim != 3 or image.dtype != np.uint8 or image.shape[-1] not in (1, 3) or image.size == 0:
        raise InputError(f"image is {image.dtype} {list(image.shape)}; give uint8 [height, width, 1 or 3].")
    return Image.fromarray(np.array(np.broadcast_to(image, (*image.shape[:2], 3))))


def _name(names: Sequence[str] | None, label: int) -> str:
    return str(label) if names is None else names[label]


def _solid(found: Detection, names: Sequence[str] | None, scale: float, with_scores: bool = True) -> list[Mark]:
    """The marks of detections."""
    marks = []
    for box, score, label in zip(found.boxes, found.scores, found.labels.tolist(), strict=True):
        name, number = _name(names, label), f"{score:.2f}" if with_scores else ""
        marks.append(Mark(tuple((box * scale).tolist()), colour_of(label), f"{name} {number}".rstrip(), number))
    return marks


def _dashed(truth: Truth, found: Detection, names: Sequence[str] | None, scale: float) -> list[Mark]:
    """The marks of true boxes: thin and white for objects found, in the colour of the class for those missed.

    Objects that do not count are grey, found or not. Only missed objects have tags, because the others would repeat the detection's.
    """
    hit: np.ndarray = np.max(same_class_overlaps(truth, found), axis=0, initial=0.0) >= IOU
    marks = []
    for at, label in enumerate(truth.labels.tolist()):
        ignored = bool(truth.crowd[at] or truth.difficult[at])
        colour = GREY if ignored else WHITE if hit[at] else colour_of(label)
        box = tuple((truth.boxes[at] * scale).tolist())
        thin = ignored or bool(hit[at])
        marks.append(Mark(box, colour, "" if hit[at] else _name(names, label), dashed=True, width=1 if thin else 2))
    return marks


def _cell(
    image: np.ndarray,
    detection: Row,
    truth: Row | None,
    names: Sequence[str] | None,
    min_score: float,
    caption: str,
    at: int,
) -> _Cell:
    classes = _ANY if names is None else len(names)
    found = by_score(checked_detection(detection, classes, at))
    kept = found.scores >= min_score
    found = Detection(found.boxes[kept], found.scores[kept], found.labels[kept])
    return _Cell(image, found, None if truth is None else checked_truth(truth, classes, at), caption)


def _caption(score: ImageScore) -> str:
    return (
        f"image {score.image:,}: F1 {score.f1:.2f}; {score.true_positives} found, {score.false_negatives} missed, "
        f"{score.false_positives} false"
    )


def _key(min_score: float, cells: Sequence[_Cell]) -> str:
    text = f"Solid: detections with a score of {min_score:g} or more."
    truths = [cell.truth for cell in cells if cell.truth is not None]
    if truths:
        text += " Dashes: true boxes, white if found, coloured if missed"
        text += (
            ", grey if difficult or a crowd." if any((each.crowd | each.difficult).any() for each in truths) else "."
        )
    return text


def _drawn(cell: _Cell, names: Sequence[str] | None) -> Image.Image:
    """An image scaled to a cell, with its boxes. The lines are drawn after scaling, so that they stay sharp."""
    from PIL import Image

    picture = _rgb(cell.image)
    scale = _CELL / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.LANCZOS)
    dashed = [] if cell.truth is None else _dashed(cell.truth, cell.detection, names, scale)
    # Of true boxes and detections at the same place, the dashes are on top, because they do not hide the line below.
    draw_marks(picture, [*dashed, *_solid(cell.detection, names, scale)])
    return picture


def _grid(
    sections: Sequence[tuple[str, Sequence[_Cell]]],
    columns: int,
    min_score: float,
    names: Sequence[str] | None,
    key: str | None = None,
) -> Image.Image:
    """Draw sections of cells below each other, each with a title. A row is as high as its highest image."""
    from PIL import Image, ImageDraw

    cells = [cell for _, section in sections for cell in section]
    drawn = {id(cell): _drawn(cell, names) for cell in cells}
    line = _LINE if any(cell.caption for cell in cells) else 0
    width = 2 * _MARGIN + columns * (_CELL + _SPACE) - _SPACE
    rows = sum(-(-len(section) // columns) for _, section in sections)
    highest = 2 * _MARGIN + (1 + _LEGEND + len(sections)) * (_LINE + 6) + rows * (_CELL + line + _SPACE)
    picture = Image.new("RGB", (width, highest), "white")
    pen, font = ImageDraw.Draw(picture), font_of(_FONT)
    pen.text((_MARGIN, _MARGIN), fitting(key or _key(min_score, cells), width - 2 * _MARGIN, font), _FAINT, font)
    top = _legend(pen, cells, names, _MARGIN + _LINE + 4, width)
    for title, section in sections:
        if title:
            pen.text((_MARGIN, top), title, _TEXT, font_of(_FONT + 2))
            top += _LINE + 4
        for row in (section[at : at + columns] for at in range(0, len(section), columns)):
            height = max(drawn[id(cell)].height for cell in row)
            for left, cell in zip(range(_MARGIN, width, _CELL + _SPACE), row, strict=False):
                shown = drawn[id(cell)]
                pen.rectangle((left, top, left + _CELL - 1, top + height - 1), _FRAME)
                picture.paste(shown, (left + (_CELL - shown.width) // 2, top + (height - shown.height) // 2))
                pen.text((left, top + height + 2), fitting(cell.caption, _CELL, font), _TEXT, font)
            top += height + line + _SPACE
    return picture.crop((0, 0, width, top - _SPACE + _MARGIN))


def _legend(pen: Any, cells: Sequence[_Cell], names: Sequence[str] | None, top: int, width: int) -> int:
    """Draw the colours of the classes on the images in at most three lines. Return the row of pixels below them."""
    left, lines = _MARGIN, 1
    truths = [cell.truth.labels for cell in cells if cell.truth is not None]
    labels, counts = np.unique(
        np.concatenate([*(cell.detection.labels for cell in cells), *truths]), return_counts=True
    )
    if not len(labels):
        return top
    font, letters = font_for((_name(names, label) for label in labels.tolist()), _FONT)
    # The most frequent classes come first, because the lines may be too short for all.
    for label in labels[np.argsort(-counts, kind="stable")].tolist():
        name = fitting(letters(_name(names, label)), 160, font)
        end = left + 18 + round(font.getlength(name))
        if end > width - _MARGIN - 20:
            if lines == _LEGEND:
                pen.text((left, top), "…", _FAINT, font)
                break
            lines, top, end, left = lines + 1, top + _LINE, _MARGIN + end - left, _MARGIN
        pen.rectangle((left, top + 2, left + 12, top + 14), colour_of(label), outline=_FAINT)
        pen.text((left + 18, top), name, _FAINT, font)
        left = end + 16
    return top + _LINE + 6


def _write(picture: Image.Image, path: Path) -> Path:
    try:
        with written_aside(path) as aside:
            picture.save(aside)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror or error}.") from error
    return path
