"""Detections: the outputs of the box heads after class-wise non-maximum suppression (Girshick 2015, Fast R-CNN, section 2)."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.detection import boxes as box_ops
from keras_deepnets.detection.suppression import INVALID, sizes_mask, suppress

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Factors of the regression targets of proposals."""

SMALLEST_SIDE = 1e-2


@keras.saving.register_keras_serializable("keras_deepnets")
class Detections(keras.layers.Layer):
    """The best boxes of all classes.

    Input, a dictionary: ``logits`` (``[n, k, classes]``, the background first), ``deltas`` (``[n, k, 4·classes]``), ``proposals``
    (``[n, k, 4]``), ``count`` (int ``[n]``) and ``sizes`` (int ``[n, 2]``). `count` is the number of valid proposals. `sizes` are the
    heights and widths of the images.

    Output: a dictionary with ``boxes`` (float32 ``[n, d, 4]`` in pixels, best first, filled up with zeros), ``scores`` (``[n, d]``),
    ``labels`` (int32 ``[n, d]``, from 1) and ``count`` (int32 ``[n]``).
    """

    suppress = staticmethod(suppress)
    """Non-maximum suppression. Exports replace it."""

    def __init__(self, detections: int = 100, score_threshold: float = 0.05, nms_threshold: float = 0.5, **kwargs: Any):
        """Create the layer.

        Args:
            detections: d, the largest number of detections of an image.
            score_threshold: detections have a larger score.
            nms_threshold: largest intersection over union of two detections of a class.
            **kwargs: arguments of `keras.layers.Layer`.
        """
        super().__init__(**{"dtype": "float32", "autocast": False} | kwargs)
        self.detections = detections
        self.score_threshold = score_threshold
        self.nms_threshold = nms_threshold

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs of the heads to detections."""
        logits, proposals = inputs["logits"], inputs["proposals"]
        count, regions, classes = ops.shape(logits)[0], proposals.shape[1], logits.shape[-1]
        scores = ops.softmax(ops.cast(logits, "float32"), axis=-1)[..., 1:]
        deltas = ops.reshape(ops.cast(inputs["deltas"], "float32"), (count, regions, classes, 4))[:, :, 1:]
        boxes = box_ops.decode(deltas, proposals[:, :, None, :], WEIGHTS)
        boxes = box_ops.clip(ops.reshape(boxes, (count, -1, 4)), inputs["sizes"])
        boxes = ops.reshape(boxes, (count, regions, classes - 1, 4))
        valid = ops.logical_and(scores > self.score_threshold, box_ops.has_sides(boxes, SMALLEST_SIDE))
        valid = ops.logical_and(valid, sizes_mask(inputs["count"], regions)[:, :, None])
        selected = self.suppress(boxes, ops.where(valid, scores, INVALID), self.nms_threshold, self.detections)
        labels = ops.where(sizes_mask(selected.count, self.detections), selected.groups + 1, 0)
        return {"boxes": selected.boxes, "scores": selected.scores, "labels": labels, "count": selected.count}

    def compute_output_spec(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The symbolic outputs."""
        count, most = inputs["sizes"].shape[0], self.detections
        return {
            "boxes": keras.KerasTensor((count, most, 4), "float32"),
            "scores": keras.KerasTensor((count, most), "float32"),
            "labels": keras.KerasTensor((count, most), "int32"),
            "count": keras.KerasTensor((count,), "int32"),
        }

    def get_config(self) -> dict[str, Any]:
        """Number and thresholds."""
        fields = ("detections", "score_threshold", "nms_threshold")
        return super().get_config() | {name: getattr(self, name) for name in fields}
