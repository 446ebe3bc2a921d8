"""Boxes in pixels (x1, y1, x2, y2) as NumPy arrays: conversion from other formats, and turning with the EXIF orientation.

The converter of keras-cv 0.9 is right under Keras 3.15 to the rounding of float32, as a test shows. It is not used here: importing
keras-cv takes seconds, and a call takes a hundred times longer than NumPy.
"""

from __future__ import annotations

import numpy as np

from keras_deepnets.errors import InputError

FORMATS = ("xyxy", "xywh", "center_xywh", "yxyx")
"""Corner formats and formats of a point with width and height. With the prefix ``rel_`` the numbers are fractions of the image."""

_SWAPPED = (5, 6, 7, 8)
_ROWS_REVERSED = (3, 4, 7, 8)
_COLUMNS_REVERSED = (2, 3, 6, 7)


def to_xyxy(boxes: np.ndarray, source: str, width: float = 1, height: float = 1) -> np.ndarray:
    """Convert boxes to pixels (x1, y1, x2, y2), float64 ``[n, 4]``.

    Args:
        boxes: ``[n, 4]`` in the source's format.
        source: One of `FORMATS`, or one with the prefix ``rel_`` for fractions of the image.
        width: Width of the image in pixels. Only relative formats need it.
        height: Height of the image in pixels.

    Raises:
        InputError: The format is unknown.
    """
    kind = source.removeprefix("rel_")
    if kind not in FORMATS:
        raise InputError(
            f"box format {source!r} is unknown; choose one of {', '.join(FORMATS)}, or rel_ and one of them."
        )
    a, b, c, d = np.asarray(boxes, np.float64).reshape(-1, 4).T
    if kind == "xywh":
        corners = (a, b, a + c, b + d)
    elif kind == "center_xywh":
        corners = (a - c / 2, b - d / 2, a + c / 2, b + d / 2)
    else:
        corners = (b, a, d, c) if kind == "yxyx" else (a, b, c, d)
    found = np.stack(corners, axis=1)
    return found * [width, height, width, height] if source != kind else found


def clip(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """The part of each box that is inside the image."""
    return np.clip(boxes, 0, np.asarray([width, height, width, height], boxes.dtype))


def area(boxes: np.ndarray) -> np.ndarray:
    """Area of each box, in the boxes' dtype ``[n]``."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def turn(boxes: np.ndarray, orientation: int, width: float, height: float) -> np.ndarray:
    """Turn boxes of a stored image into boxes of the upright image, as `orientation.upright` turns its pixels.

    Args:
        boxes: ``[n, 4]`` in pixels of the stored image.
        orientation: EXIF orientation from 1 to 8.
        width: Width of the stored image.
        height: Height of the stored image.
    """
    x1, y1, x2, y2 = boxes.T
    if orientation in _SWAPPED:
        x1, y1, x2, y2 = y1, x1, y2, x2
        width, height = height, width
    if orientation in _ROWS_REVERSED:
        y1, y2 = height - y2, height - y1
    if orientation in _COLUMNS_REVERSED:
        x1, x2 = width - x2, width - x1
    return np.stack([x1, y1, x2, y2], axis=1)
