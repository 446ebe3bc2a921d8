"""Check raw annotations against their images and turn them into pixels of the upright images.

The size in an annotation must be that of the image. If the EXIF orientation swaps the sides, either size may be given. The size of
the upright image means that the boxes were drawn on it. The size of the stored image means that they were drawn on the stored
pixels; they are then turned with the image. If both sizes are equal, or no size is given, the boxes belong to the upright image.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from keras_deepnets.detection.data import boxes as box_math
from keras_deepnets.detection.data import images
from keras_deepnets.detection.data.annotations import (
    NO_AREA,
    NOT_FINITE,
    OUTSIDE,
    REASONS,
    UNKNOWN_CLASS,
    Annotation,
    Dropped,
    RawAnnotation,
)
from keras_deepnets.detection.data.images import ImageSize
from keras_deepnets.errors import InputError

BACKGROUND = "background"
"""Class 0: no object."""

SMALL_IMAGE = 16
"""Sides up to which an image may be so small that all of its boxes end at 1 pixel."""

ROUNDING = 0.5
"""Pixels by which a box may reach beyond its image without being counted as clipped: the rounding of its numbers."""

ON_BAD_BOXES = ("drop", "error")


def label_map(
    name: str, texts: Mapping[Hashable, str], classes: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[Hashable, int]]:
    """The class names with the background first, and the label of each of the source's keys.

    Args:
        name: Name of the source, for messages.
        texts: The class name of each key, in the order of the labels.
        classes: The classes to use, in their order. None: those of ``texts``.

    Raises:
        InputError: ``classes`` repeats a name or is empty, or an object has the class of the background.
    """
    if isinstance(classes, str):
        raise InputError(f"classes={classes!r} is one text; give a list of names, such as classes=[{classes!r}].")
    names = list(texts.values()) if classes is None else [str(each) for each in classes]
    if classes is not None and names[:1] == [BACKGROUND]:
        names = names[1:]
    if BACKGROUND in names:
        raise InputError(
            f"{name}: {BACKGROUND!r} is a class of objects, but label 0 is the background, which has no boxes; rename the class "
            "or leave it out with classes=[…]."
        )
    if not names:
        raise InputError(f"{name}: no classes; give their names with classes=[…].")
    if classes is not None and len(set(names)) < len(names):
        raise InputError(f"classes={list(classes)!r} repeats a name; give each class once.")
    if classes is None:
        return (BACKGROUND, *names), {key: label for label, key in enumerate(texts, start=1)}
    label_of = {text: label for label, text in enumerate(names, start=1)}
    return (BACKGROUND, *names), {key: label_of[text] for key, text in texts.items() if text in label_of}


def clean(
    name: str,
    raws: Sequence[RawAnnotation],
    labels: Mapping[Hashable, int],
    texts: Mapping[Hashable, str],
    on_bad_boxes: str = "drop",
) -> tuple[tuple[Annotation, ...], Dropped]:
    """Finished annotations, and the boxes that were left out.

    Args:
        name: Name of the source, for messages.
        raws: One per image.
        labels: The label of each class key. Objects with other keys are of an unknown class.
        texts: The class name of each key, for messages.
        on_bad_boxes: ``"drop"`` or ``"error"``.

    Raises:
        InputError: A file is missing, sizes differ, pixel boxes look like fractions, or a box is bad and ``on_bad_boxes`` is ``"error"``.
    """
    if on_bad_boxes not in ON_BAD_BOXES:
        raise InputError(f"on_bad_boxes={on_bad_boxes!r}: choose one of {', '.join(ON_BAD_BOXES)}.")
    sizes = images.sizes([raw.image for raw in raws])
    _check_units(name, raws, sizes)
    dropped: dict[str, list[str]] = {reason: [] for reason in REASONS}
    found, clipped = [], 0
    for raw, size in zip(raws, sizes, strict=True):
        annotation, over = _finish(raw, size, labels, texts, dropped)
        found.append(annotation)
        clipped += over
    names = {reason: tuple(bad) for reason, bad in dropped.items() if bad}
    result = Dropped(names, clipped, sum(len(raw.classes) for raw in raws))
    if result.total and on_bad_boxes == "error":
        raise InputError(
            f"{name}: {result.report().replace('dropped', 'bad boxes are')}; repair them, or use on_bad_boxes='drop'."
        )
    return tuple(found), result


def _check_units(name: str, raws: Sequence[RawAnnotation], sizes: Sequence[ImageSize]) -> None:
    """Raise `InputError` if all pixel boxes end within one pixel: they are then fractions."""
    large = [
        (raw, size)
        for raw, size in zip(raws, sizes, strict=True)
        if len(raw.boxes) and not raw.relative and min(size.width, size.height) > SMALL_IMAGE
    ]
    if not large or any(np.nanmax(np.abs(raw.boxes), initial=0) > 1 for raw, _ in large):
        return
    raw, size = large[0]
    numbers = ", ".join(f"{value:g}" for value in raw.boxes[0])
    raise InputError(
        f"{name}: the box ({numbers}) of {raw.image_id}, an image of {size.width}x{size.height} pixels, looks like fractions, as all "
        "others do; this format gives boxes in pixels: multiply by the image's width and height."
    )


def _finish(
    raw: RawAnnotation,
    size: ImageSize,
    labels: Mapping[Hashable, int],
    texts: Mapping[Hashable, str],
    dropped: dict[str, list[str]],
) -> tuple[Annotation, int]:
    """The annotation of one image, and the number of clipped boxes. Names of bad boxes are added to ``dropped``."""
    count = len(raw.classes)
    corners = _in_pixels(raw, size).astype(np.float32).reshape(count, 4)
    known = np.array([key in labels for key in raw.classes], bool)
    x1, y1, x2, y2 = corners.T
    # In the file's own numbers: the offset of VOC would give equal corners an area.
    own = raw.boxes.reshape(count, 4)
    flat = (own[:, 2] <= own[:, 0]) | (own[:, 3] <= own[:, 1])
    tests = {
        NOT_FINITE: ~np.isfinite(corners).all(axis=1),
        NO_AREA: flat | (x2 <= x1) | (y2 <= y1),
        OUTSIDE: (x2 <= 0) | (y2 <= 0) | (x1 >= size.width) | (y1 >= size.height),
        UNKNOWN_CLASS: ~known,
    }
    good = np.ones(count, bool)
    for reason, bad in tests.items():
        for index in np.flatnonzero(bad & good):
            key = raw.classes[index]
            numbers = ", ".join(f"{value:g}" for value in own[index])
            dropped[reason].append(f"{raw.image_id}: {texts.get(key, key)} ({numbers})")
        good &= ~bad
    kept = corners[good]
    inside = box_math.clip(kept, size.width, size.height)
    areas = box_math.area(inside)
    if raw.area is not None:
        given = raw.area[good].astype(np.float32)
        areas = np.where(np.isfinite(given), given, areas)
    annotation = Annotation(
        raw.image,
        raw.image_id,
        size.width,
        size.height,
        inside,
        np.array([labels[key] for key, keep in zip(raw.classes, good, strict=True) if keep], np.int64),
        _flags(raw.crowd, good),
        _flags(raw.difficult, good),
        areas,
    )
    return annotation, int((np.abs(kept - inside) > ROUNDING).any(axis=1).sum())


def _flags(values: np.ndarray | None, good: np.ndarray) -> np.ndarray:
    return np.zeros(int(good.sum()), bool) if values is None else np.asarray(values, bool)[good]


def _in_pixels(raw: RawAnnotation, size: ImageSize) -> np.ndarray:
    """The boxes in pixels of the upright image.

    Raises:
        InputError: The annotation gives another size than the image has.
    """
    scale = [size.width, size.height, size.width, size.height] if raw.relative else [1, 1, 1, 1]
    boxes = raw.boxes * scale - [raw.offset, raw.offset, 0, 0]
    if raw.relative or raw.size is None or raw.size == (size.width, size.height):
        return boxes
    if raw.size == size.stored:
        return box_math.turn(boxes, size.orientation, *size.stored)
    raise InputError(
        f"{raw.file or raw.image_id} is for an image of {raw.size[0]}x{raw.size[1]} pixels, but {raw.image.path} has "
        f"{size.width}x{size.height}; use the image that was annotated, or scale the boxes and correct the size."
    )
