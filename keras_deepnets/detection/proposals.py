"""Region proposals: the best boxes of the region proposal network (Ren et al. 2015, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_deepnets.detection import boxes as box_ops
from keras_deepnets.detection.suppression import INVALID, suppress

WEIGHTS = (1.0, 1.0, 1.0, 1.0)
"""Factors of the regression targets of anchors."""

SMALLEST_SIDE = 1e-3


@keras.saving.register_keras_serializable("keras_deepnets")
class Proposals(keras.layers.Layer):
    """The best proposals of all feature maps after non-maximum suppression within each map.

    Input: a dictionary with ``sizes`` (height and width of each image, int ``[n, 2]``) and three lists with one entry per map. The lists
    are ``objectness`` (logits, ``[n, h, w, a]``), ``deltas`` (``[n, h, w, 4·a]``) and ``anchors`` (``[h·w·a, 4]``).

    Output: a dictionary with ``boxes`` (float32 ``[n, k, 4]`` in pixels, best first, filled up with zeros), ``scores`` (``[n, k]``) and
    ``count`` (int32 ``[n]``). Gradients do not flow through it.
    """

    suppress = staticmethod(suppress)
    """Non-maximum suppression. Exports replace it."""

    def __init__(
        self,
        candidates: int = 1000,
        proposals: int = 1000,
        training_candidates: int = 2000,
        training_proposals: int = 2000,
        nms_threshold: float = 0.7,
        **kwargs: Any,
    ):
        """Create the layer.

        Args:
            candidates: best anchors of each map that suppression sees, at inference.
            proposals: k at inference.
            training_candidates: the same in training.
            training_proposals: k in training.
            nms_threshold: largest intersection over union of two proposals of a map.
            **kwargs: arguments of `keras.layers.Layer`.
        """
        super().__init__(**{"dtype": "float32", "autocast": False} | kwargs)
        self.candidates = candidates
        self.proposals = proposals
        self.training_candidates = training_candidates
        self.training_proposals = training_proposals
        self.nms_threshold = nms_threshold

    def call(self, inputs: dict[str, Any], sampled: bool = False) -> dict[str, Any]:
        """Outputs of the region proposal network to proposals. `sampled` chooses the numbers for training.

        It is not Keras' argument `training`, which a call of the whole model sets in all layers. The heads need a fixed number.
        """
        candidates = self.training_candidates if sampled else self.candidates
        sizes = inputs["sizes"]
        found = [
            self._best(objectness, deltas, anchors, sizes, candidates)
            for objectness, deltas, anchors in zip(
                inputs["objectness"], inputs["deltas"], inputs["anchors"], strict=True
            )
        ]
        boxes = ops.stack([boxes for boxes, _ in found], axis=2)
        scores = ops.stack([scores for _, scores in found], axis=2)
        most = self.training_proposals if sampled else self.proposals
        selected = self.suppress(boxes, scores, self.nms_threshold, most)
        return {"boxes": selected.boxes, "scores": selected.scores, "count": selected.count}

    def _best(self, objectness: Any, deltas: Any, anchors: Any, sizes: Any, most: int) -> tuple[Any, Any]:
        """The best boxes of one map, ``[n, most, 4]``, and their scores. The score of invalid boxes is `INVALID`."""
        count = ops.shape(objectness)[0]
        objectness = ops.cast(ops.reshape(objectness, (count, -1)), "float32")
        deltas = ops.reshape(deltas, (count, -1, 4))
        known = objectness.shape[1]
        lacking = most if known is None else max(0, most - known)
        if lacking:
            objectness = ops.pad(objectness, [(0, 0), (0, lacking)], constant_values=-float("inf"))
        logits, places = ops.top_k(objectness, most)
        logits = ops.stop_gradient(logits)
        places = ops.minimum(places, ops.shape(anchors)[0] - 1)
        deltas = ops.cast(ops.take_along_axis(ops.stop_gradient(deltas), places[..., None], axis=1), "float32")
        boxes = box_ops.clip(box_ops.decode(deltas, ops.take(anchors, places, axis=0), WEIGHTS), sizes)
        valid = ops.logical_and(logits > -float("inf"), box_ops.has_sides(boxes, SMALLEST_SIDE))
        return boxes, ops.where(valid, ops.sigmoid(logits), INVALID)

    def compute_output_spec(self, inputs: dict[str, Any], sampled: bool = False) -> dict[str, Any]:
        """The symbolic outputs. Their length depends on `sampled`."""
        most = self.training_proposals if sampled else self.proposals
        count = inputs["sizes"].shape[0]
        return {
            "boxes": keras.KerasTensor((count, most, 4), "float32"),
            "scores": keras.KerasTensor((count, most), "float32"),
            "count": keras.KerasTensor((count,), "int32"),
        }

    def get_config(self) -> dict[str, Any]:
        """Numbers and thresholds."""
        fields: Sequence[str] = (
            "candidates",
            "proposals",
            "training_candidates",
            "training_proposals",
            "nms_threshold",
        )
        return super().get_config() | {name: getattr(self, name) for name in fields}
