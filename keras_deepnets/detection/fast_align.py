"""RoIAlign on TensorFlow's kernel for cropping and resizing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


def align(regions: Any, chosen: Any, maps: Sequence[Any], levels: Sequence[int], size: int, samples: int) -> Any:
    """The computation of `RegionAlign.call`.

    The kernel interpolates on a regular grid, and its value outside a map is 0. A border of one repeated pixel around each map gives the
    points up to one pixel outside the value of the map's border.

    Args:
        regions: float32 ``[n, k, 4]``.
        chosen: int32 ``[n, k]``: index of the feature map of each region.
        maps: feature maps ``[n, h, w, c]``.
        levels: level of each map.
        size: side of the output grid.
        samples: sampling points per pixel of the grid along each axis.
    """
    shape = tf.shape(regions)
    images = tf.repeat(tf.range(shape[0]), shape[1])
    regions, chosen = tf.reshape(regions, [-1, 4]), tf.reshape(chosen, [-1])
    parts, places = [], []
    for index, (features, level) in enumerate(zip(maps, levels, strict=True)):
        own = tf.where(tf.equal(chosen, index))[:, 0] if len(maps) > 1 else tf.range(tf.size(chosen), dtype=tf.int64)
        places.append(own)
        parts.append(_crops(features, tf.gather(regions, own) / 2.0**level, tf.gather(images, own), size, samples))
    values = tf.concat(parts, 0) if len(parts) > 1 else parts[0]
    if len(parts) > 1:
        values = tf.gather(values, tf.math.invert_permutation(tf.cast(tf.concat(places, 0), tf.int32)))
    values = tf.reshape(values, [shape[0], shape[1], size, size, maps[0].shape[-1]])
    return tf.cast(values, maps[0].dtype)


def _crops(features: tf.Tensor, regions: tf.Tensor, images: tf.Tensor, size: int, samples: int) -> tf.Tensor:
    """RoIAlign of one map, float32. The regions are in pixels of the map."""
    features = tf.cast(features, tf.float32)
    features = tf.concat([features[:, :1], features, features[:, -1:]], 1)
    features = tf.concat([features[:, :, :1], features, features[:, :, -1:]], 2)
    points = size * samples
    x1, y1, x2, y2 = tf.unstack(regions, axis=1)
    bounds = []
    for start, end, side in ((y1, y2, tf.shape(features)[1]), (x1, x2, tf.shape(features)[2])):
        step = tf.maximum(end - start, 1.0) / points
        last = tf.cast(side - 1, tf.float32)
        first = start + 0.5 * step + 1.0
        bounds.append((first / last, (first + (points - 1) * step) / last))
    (top, bottom), (left, right) = bounds
    boxes = tf.stack([top, left, bottom, right], 1)
    crops = tf.image.crop_and_resize(features, boxes, images, [points, points])
    return tf.nn.avg_pool2d(crops, samples, samples, "VALID")
