"""Arithmetic of boxes. A box is (x1, y1, x2, y2) in pixels, and arrays of boxes have the shape ``[..., 4]``."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

LARGEST_LOG_RATIO = math.log(1000 / 16)
"""Bound on the logarithm of the growth of a side in `decode`, as in torchvision and Detectron."""


def area(boxes: Any) -> Any:
    """The areas of boxes: ``[..., 4]`` to ``[...]``."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def clip(boxes: Any, sizes: Any) -> Any:
    """Move boxes into their images.

    Args:
        boxes: ``[n, m, 4]``.
        sizes: height and width of each image, ``[n, 2]``.
    """
    height, width = ops.split(ops.cast(sizes, boxes.dtype)[:, None, :], 2, axis=-1)
    return ops.minimum(ops.maximum(boxes, 0.0), ops.concatenate([width, height, width, height], axis=-1))


def iou(boxes: Any, others: Any) -> Any:
    """Intersection over union of all pairs: ``[..., m, 4]`` and ``[..., k, 4]`` to ``[..., m, k]``. It is 0 where the union is 0."""
    boxes, others = boxes[..., :, None, :], others[..., None, :, :]
    sides = ops.minimum(boxes[..., 2:], others[..., 2:]) - ops.maximum(boxes[..., :2], others[..., :2])
    sides = ops.maximum(sides, 0.0)
    intersection = sides[..., 0] * sides[..., 1]
    union = area(boxes) + area(others) - intersection
    return ops.where(union > 0, intersection / ops.where(union > 0, union, 1.0), 0.0)


def _centres(boxes: Any) -> tuple[Any, Any, Any, Any]:
    x1, y1, x2, y2 = (boxes[..., side] for side in range(4))
    width, height = x2 - x1, y2 - y1
    return x1 + 0.5 * width, y1 + 0.5 * height, width, height


def encode(boxes: Any, references: Any, weights: tuple[float, float, float, float]) -> Any:
    """The regression targets of boxes relative to reference boxes (Girshick et al. 2014, appendix C).

    Args:
        boxes: ``[..., 4]`` with positive sides.
        references: anchors or proposals with positive sides, ``[..., 4]``.
        weights: factors of the four targets (x, y, width, height).

    Returns:
        ``[..., 4]``: offset of the centre in units of the reference's sides, and logarithm of the ratio of the sides.
    """
    x, y, width, height = _centres(boxes)
    reference_x, reference_y, reference_width, reference_height = _centres(references)
    return ops.stack(
        [
            weights[0] * (x - reference_x) / reference_width,
            weights[1] * (y - reference_y) / reference_height,
            weights[2] * ops.log(width / reference_width),
            weights[3] * ops.log(height / reference_height),
        ],
        axis=-1,
    )


def decode(deltas: Any, references: Any, weights: tuple[float, float, float, float]) -> Any:
    """The boxes of regression outputs relative to reference boxes: the inverse of `encode`. Shapes ``[..., 4]``.

    A side grows by a factor of at most 62.5 (`LARGEST_LOG_RATIO`), so that no output overflows.
    """
    x, y, width, height = _centres(references)
    dx, dy, dw, dh = (deltas[..., side] / weights[side] for side in range(4))
    x, y = dx * width + x, dy * height + y
    half_width = 0.5 * ops.exp(ops.minimum(dw, LARGEST_LOG_RATIO)) * width
    half_height = 0.5 * ops.exp(ops.minimum(dh, LARGEST_LOG_RATIO)) * height
    return ops.stack([x - half_width, y - half_height, x + half_width, y + half_height], axis=-1)


def has_sides(boxes: Any, smallest: float) -> Any:
    """Whether both sides of each box have at least a length: ``[..., 4]`` to bool ``[...]``."""
    return ops.logical_and(
        boxes[..., 2] - boxes[..., 0] >= smallest,
        boxes[..., 3] - boxes[..., 1] >= smallest,
    )
