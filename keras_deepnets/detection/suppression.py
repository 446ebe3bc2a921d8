"""Non-maximum suppression in groups: boxes of different classes, or of different feature maps, do not suppress each other."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_deepnets.detection import boxes as box_ops
from keras_deepnets.layers import fast

INVALID = -1.0
"""Score of candidates that are never selected. Valid scores are at least 0."""


class Selection(NamedTuple):
    """Selected boxes, best first, filled up with zeros.

    Attributes:
        boxes: float32 ``[n, k, 4]``.
        scores: float32 ``[n, k]``.
        groups: int32 ``[n, k]``: the group of each box, from 0.
        count: int32 ``[n]``: number of selected boxes.
    """

    boxes: Any
    scores: Any
    groups: Any
    count: Any


def suppress(boxes: Any, scores: Any, threshold: float, most: int) -> Selection:
    """Greedy non-maximum suppression within each group, then the best boxes of all groups.

    A box is dropped if its intersection over union with a better selected box of its group exceeds the threshold. Of equal scores,
    that of the smaller group counts as better, and within a group the first. Scores close to 1 are often equal in float32.

    Args:
        boxes: float32 ``[n, m, g, 4]``: m candidates of each of g groups.
        scores: float32 ``[n, m, g]``. Candidates with a negative score are ignored.
        threshold: largest intersection over union of two selected boxes of a group.
        most: number of boxes to return.
    """
    if fast.on("combined_suppression"):
        return _combined(boxes, scores, threshold, most)
    return plain_suppress(boxes, scores, threshold, most)


def _combined(boxes: Any, scores: Any, threshold: float, most: int) -> Selection:
    """`suppress` on TensorFlow's kernel. It gets ranks in the place of scores, because its order of equal scores is arbitrary."""
    import tensorflow as tf

    shape = tf.shape(scores)
    flat = tf.reshape(tf.transpose(scores, (0, 2, 1)), [shape[0], -1])
    total = shape[1] * shape[2]
    order = tf.argsort(flat, direction="DESCENDING", stable=True)
    worth = tf.where(flat >= 0, total - tf.argsort(order), -1)  # exact in float32 up to 2²⁴ candidates
    worth = tf.transpose(tf.reshape(tf.cast(worth, tf.float32), [shape[0], shape[2], shape[1]]), (0, 2, 1))
    found = tf.image.combined_non_max_suppression(
        boxes,
        tf.ensure_shape(worth, scores.shape),
        max_output_size_per_class=most,
        max_total_size=most,
        iou_threshold=threshold,
        score_threshold=INVALID / 2,
        clip_boxes=False,
    )
    places = total - tf.cast(found.nmsed_scores, tf.int32)
    best = tf.gather(tf.gather(flat, order, batch_dims=1), tf.minimum(places, total - 1), batch_dims=1)
    best = tf.ensure_shape(tf.where(found.nmsed_scores > 0, best, 0.0), [boxes.shape[0], most])
    chosen = tf.ensure_shape(found.nmsed_boxes, [boxes.shape[0], most, 4])
    return Selection(chosen, best, tf.cast(found.nmsed_classes, tf.int32), found.valid_detections)


def plain_suppress(boxes: Any, scores: Any, threshold: float, most: int) -> Selection:
    """`suppress` in operations that every backend has.

    The memory grows with the square of the number of candidates.
    """
    candidates, groups = int(boxes.shape[1]), int(boxes.shape[2])
    boxes, scores = ops.transpose(boxes, (0, 2, 1, 3)), ops.transpose(scores, (0, 2, 1))
    order = ops.argsort(-scores, axis=-1)  # stable
    scores = ops.take_along_axis(scores, order, axis=-1)
    boxes = ops.take_along_axis(boxes, order[..., None], axis=2)
    overlaps = box_ops.iou(boxes, boxes) > threshold
    places = ops.arange(candidates)
    later = places[None, :] > places[:, None]

    def visit(place: Any, alive: Any) -> Any:
        row = ops.squeeze(ops.take(overlaps, ops.reshape(place, (1,)), axis=2), axis=2)
        row = ops.logical_and(row, ops.take(later, place, axis=0))
        own = ops.take(alive, ops.reshape(place, (1,)), axis=2)
        return ops.logical_and(alive, ops.logical_not(ops.logical_and(row, own)))

    alive = ops.fori_loop(0, candidates, visit, scores >= 0)
    scores = ops.where(alive, scores, INVALID)
    flat = ops.reshape(scores, (-1, groups * candidates))
    lacking = max(0, most - groups * candidates)
    flat = ops.pad(flat, [(0, 0), (0, lacking)], constant_values=INVALID)
    order = ops.argsort(-flat, axis=-1)[:, :most]
    scores = ops.take_along_axis(flat, order, axis=-1)
    chosen = ops.minimum(order, groups * candidates - 1)
    boxes = ops.take_along_axis(ops.reshape(boxes, (-1, groups * candidates, 4)), chosen[..., None], axis=1)
    valid = scores >= 0
    return Selection(
        ops.where(valid[..., None], boxes, 0.0),
        ops.where(valid, scores, 0.0),
        ops.cast(ops.where(valid, chosen // candidates, 0), "int32"),
        ops.sum(ops.cast(valid, "int32"), axis=-1),
    )


def sizes_mask(count: Any, length: int) -> Any:
    """Whether each place of a padded list is filled: int ``[n]`` to bool ``[n, length]``."""
    return keras.ops.arange(length)[None, :] < ops.cast(count, "int32")[:, None]
