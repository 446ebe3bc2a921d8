"""A detector in operators that device runtimes have built in, for one image of fixed size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_deepnets import graphs
from keras_deepnets.detection.detections import Detections
from keras_deepnets.detection.proposals import Proposals
from keras_deepnets.detection.region_align import RegionAlign
from keras_deepnets.detection.suppression import INVALID, Selection


def suppress(boxes: Any, scores: Any, threshold: float, most: int) -> Selection:
    """`suppression.suppress` for one image: one operation per group, then the best boxes of all groups.

    Args:
        boxes: float32 ``[1, m, g, 4]``.
        scores: float32 ``[1, m, g]``.
        threshold: Largest intersection over union of two selected boxes of a group.
        most: Number of boxes to return.
    """
    groups, each = boxes.shape[2], min(most, boxes.shape[1])
    found_boxes, found_scores = [], []
    for group in range(groups):
        own_boxes, own_scores = boxes[0, :, group], scores[0, :, group]
        places, count = tf.raw_ops.NonMaxSuppressionV4(
            boxes=own_boxes,
            scores=own_scores,
            max_output_size=each,
            iou_threshold=threshold,
            score_threshold=INVALID / 2,
            pad_to_max_output_size=True,
        )
        places = tf.reshape(places, [each])
        found_boxes.append(tf.gather(own_boxes, places))
        found_scores.append(tf.where(tf.range(each) < count, tf.gather(own_scores, places), INVALID))
    lacking = max(0, most - groups * each)
    all_scores = tf.pad(tf.concat(found_scores, 0), [[0, lacking]], constant_values=INVALID)
    best, places = tf.math.top_k(all_scores, most)
    places = tf.minimum(places, groups * each - 1)
    valid = best >= 0
    chosen = tf.where(valid[:, None], tf.gather(tf.concat(found_boxes, 0), places), 0.0)
    group_of = tf.gather(tf.repeat(tf.range(groups), each), places)
    return Selection(
        chosen[None],
        tf.where(valid, best, 0.0)[None],
        tf.where(valid, group_of, 0)[None],
        tf.reduce_sum(tf.cast(valid, tf.int32))[None],
    )


class BuiltinProposals(Proposals):
    """`Proposals` with `suppress`."""

    suppress = staticmethod(suppress)


class BuiltinDetections(Detections):
    """`Detections` with `suppress`."""

    suppress = staticmethod(suppress)


class BuiltinRegionAlign(RegionAlign):
    """`RegionAlign` for one image by gathers from one list of the pixels of all maps.

    It sums over the sampling points of each output pixel, one after the other. So no tensor is larger than the output.
    """

    def call(self, inputs: Sequence[Any]) -> Any:
        """Regions ``[1, k, 4]`` and feature maps to the features of the regions."""
        regions, *maps = inputs
        channels = maps[0].shape[-1]
        pixels = tf.concat([tf.reshape(features, [-1, channels]) for features in maps], 0)
        heights = [features.shape[1] for features in maps]
        widths = [features.shape[2] for features in maps]
        areas = [height * width for height, width in zip(heights, widths, strict=True)]
        starts = [sum(areas[:place]) for place in range(len(areas))]
        level = self.chosen(regions)[0]
        regions = tf.cast(regions[0], tf.float32) * tf.gather([2.0**-each for each in self.levels], level)[:, None]
        own_width, start = tf.gather(widths, level), tf.gather(starts, level)
        rows = self._samples(regions[:, 1], regions[:, 3], tf.gather(heights, level))
        columns = self._samples(regions[:, 0], regions[:, 2], own_width)
        total: Any = 0.0
        for own_row in range(self.samples):
            for own_column in range(self.samples):
                for row, row_weight in rows:
                    for column, column_weight in columns:
                        y, y_share = (value[:, own_row :: self.samples] for value in (row, row_weight))
                        x, x_share = (value[:, own_column :: self.samples] for value in (column, column_weight))
                        places = (start[:, None] + y * own_width[:, None])[:, :, None] + x[:, None, :]
                        values = tf.gather(pixels, places) * (y_share[:, :, None] * x_share[:, None, :])[..., None]
                        total = total + values
        return (total / self.samples**2)[None]


_BUILTIN = {Proposals: BuiltinProposals, Detections: BuiltinDetections, RegionAlign: BuiltinRegionAlign}


def builtin(model: keras.Model) -> keras.Model:
    """A copy of a detector that takes one image and computes in float32 with built-in operators."""

    def new_layer(layer: Any) -> Any:
        kind = _BUILTIN.get(type(layer))
        return kind and graphs.same(layer, True, kind)

    return graphs.rebuild(graphs.as_functional(model), full_precision=True, new_layer=new_layer)
