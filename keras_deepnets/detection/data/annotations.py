"""The annotation of one image, and the record of the boxes that were left out."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import numpy as np

from keras_deepnets.detection.data.images import ImageSource

_SHOWN = 3

NOT_FINITE, NO_AREA, OUTSIDE, UNKNOWN_CLASS = "not a number", "without area", "outside the image", "of an unknown class"
REASONS = (NOT_FINITE, NO_AREA, OUTSIDE, UNKNOWN_CLASS)
"""Reasons to leave a box out, in the order in which they are checked."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """The objects of one image. Coordinates are pixels of the upright image.

    Attributes:
        image: Place of the encoded image.
        image_id: Identity of the image: the file name without ending, or COCO's number as text.
        width: Width of the upright image.
        height: Height of the upright image.
        boxes: float32 ``[n, 4]``: x1, y1, x2, y2. Each box is inside the image and has an area.
        labels: int64 ``[n]`` from 1.
        crowd: bool ``[n]``: the box surrounds a group of objects.
        difficult: bool ``[n]``: the object is hard to recognise and does not count in VOC's evaluation.
        area: float32 ``[n]``: area of the object's mask if the source gives it, otherwise of the box.
    """

    image: ImageSource
    image_id: str
    width: int
    height: int
    boxes: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    crowd: np.ndarray = field(repr=False)
    difficult: np.ndarray = field(repr=False)
    area: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class RawAnnotation:
    """The objects of one image as their file gives them.

    Attributes:
        image: Place of the encoded image.
        image_id: See `Annotation`.
        boxes: float64 ``[n, 4]``: x1, y1, x2, y2.
        classes: The source's key of each object's class: a name or a number.
        size: Width and height in the annotation. None: it gives none.
        relative: Whether the boxes are fractions of the upright image.
        crowd: See `Annotation`. None: all False.
        difficult: See `Annotation`. None: all False.
        area: float64 ``[n]``. None, or a NaN: the area of the box.
        offset: The number of the first pixel in ``boxes``, subtracted from x1 and y1.
        file: The file of the annotation, for messages.
    """

    image: ImageSource
    image_id: str
    boxes: np.ndarray
    classes: tuple[Hashable, ...]
    size: tuple[int, int] | None = None
    relative: bool = False
    crowd: np.ndarray | None = None
    difficult: np.ndarray | None = None
    area: np.ndarray | None = None
    offset: int = 0
    file: str = ""


@dataclass(frozen=True)
class Dropped:
    """The boxes of a data set that were left out.

    Attributes:
        names: For each reason the boxes: image, class and coordinates.
        clipped: Number of kept boxes that reached beyond the image and were clipped to it.
        boxes: Number of boxes in the files.
    """

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    clipped: int = 0
    boxes: int = 0

    @property
    def counts(self) -> dict[str, int]:
        """Number of boxes by reason."""
        return {reason: len(names) for reason, names in self.names.items()}

    @property
    def total(self) -> int:
        """Number of boxes that were left out."""
        return sum(self.counts.values())

    def report(self) -> str:
        """One line that counts the boxes by reason and names the first of each."""
        clipped = f"; {self.clipped:,} clipped to the image" if self.clipped else ""
        if not self.total:
            return f"all {self.boxes:,} boxes kept{clipped}"
        parts = ", ".join(f"{len(names):,} {reason} ({some(names)})" for reason, names in self.names.items())
        return f"dropped {self.total:,} of {self.boxes:,} boxes: {parts}{clipped}"


def some(names: tuple[str, ...] | list[str]) -> str:
    """The first few names, for a one-line message."""
    more = f"; … {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + more
