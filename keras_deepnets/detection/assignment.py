"""Assign true boxes to anchors and proposals, and sample those that a training step uses (Ren et al. 2015, section 3.1.2)."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_deepnets.detection import boxes as box_ops
from keras_deepnets.detection.suppression import sizes_mask

BACKGROUND, IGNORED = 0, -1


class Matches(NamedTuple):
    """The true box of each reference box.

    Attributes:
        index: int32 ``[n, m]``: index of the true box with the largest overlap.
        kind: int32 ``[n, m]``: 1 for a match, `BACKGROUND` or `IGNORED`.
    """

    index: Any
    kind: Any


def match(references: Any, truths: Any, count: Any, high: float, low: float, keep_best: bool = False) -> Matches:
    """Match each reference box with the true box of the largest intersection over union.

    Args:
        references: anchors ``[m, 4]`` or proposals ``[n, m, 4]``.
        truths: true boxes ``[n, t, 4]``, filled up.
        count: number of true boxes of each image, int ``[n]``.
        high: smallest overlap of a match.
        low: references with a smaller overlap are background. Those in between are ignored.
        keep_best: whether the references with the largest overlap with a true box match too, however small it is.
    """
    references = references if len(references.shape) == 3 else references[None]
    overlaps = box_ops.iou(truths, references)
    filled = sizes_mask(count, ops.shape(truths)[1])[:, :, None]
    overlaps = ops.where(filled, overlaps, -1.0)
    largest = ops.max(overlaps, axis=1)
    matched = largest >= high
    if keep_best:
        best = ops.max(overlaps, axis=2, keepdims=True)
        best = ops.logical_and(overlaps == best, best > 0)
        matched = ops.logical_or(matched, ops.any(best, axis=1))
    kind = ops.where(matched, 1, ops.where(largest < low, BACKGROUND, IGNORED))
    return Matches(ops.cast(ops.argmax(overlaps, axis=1), "int32"), ops.cast(kind, "int32"))


def sampled(kind: Any, draws: Any, most: int, positive_share: float) -> tuple[Any, Any]:
    """Choose matches and background boxes at random.

    Args:
        kind: int ``[n, m]``, as in `Matches`.
        draws: random numbers in [0, 1), ``[n, m]``. The boxes with the largest numbers are chosen.
        most: number of boxes to choose for each image.
        positive_share: largest share of matches.

    Returns:
        Two masks ``[n, m]``: chosen matches, and chosen background boxes.
    """
    positive, negative = kind == 1, kind == BACKGROUND
    share = int(most * positive_share)
    chosen = _largest(positive, draws, ops.full_like(kind[:, :1], share), share)
    left = most - ops.sum(ops.cast(chosen, "int32"), axis=1, keepdims=True)
    return chosen, _largest(negative, draws, left, most)


def _largest(mask: Any, draws: Any, count: Any, most: int) -> Any:
    """The part of `mask` with the `count` (int ``[n, 1]``, at most `most`) largest draws."""
    most = max(1, most)
    draws = ops.where(mask, draws, -1.0)
    length = mask.shape[1]
    lacking = most if length is None else max(0, most - length)
    ordered = ops.pad(draws, [(0, 0), (0, lacking)], constant_values=-1.0) if lacking else draws
    ordered = ops.top_k(ordered, most)[0]
    last = ops.take_along_axis(ordered, ops.maximum(ops.cast(count, "int32") - 1, 0), axis=1)
    return ops.logical_and(ops.logical_and(mask, draws >= last), count > 0)


def _one_more(truths: Any) -> Any:
    """One more place in a padded list ``[n, t, …]``, because a maximum over no place at all is an error."""
    return ops.pad(truths, [(0, 0), (0, 1)] + [(0, 0)] * (len(truths.shape) - 2))


class _Sampler(keras.layers.Layer):
    """A layer with its own random numbers.

    Its input may have ``places``, int64 ``[n, 2]``: the epoch and the number of each image. The random numbers are then a function of
    the seed and these, so they do not depend on the batch that the image is in. Other backends than TensorFlow ignore ``places``.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any):
        super().__init__(**{"dtype": "float32", "autocast": False} | kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def draw(self, shape: Any, places: Any = None) -> Any:
        """Random numbers in [0, 1), of the shape ``[n, m]``."""
        if places is None or keras.backend.backend() != "tensorflow":
            return keras.random.uniform(shape, seed=self.seed_generator)
        import tensorflow as tf

        def of_image(place: Any) -> Any:
            seed = tf.random.experimental.stateless_fold_in(
                tf.stack([tf.constant(self.seed or 0, tf.int64), place[0]]), place[1], alg="philox"
            )
            return tf.random.stateless_uniform([shape[1]], seed, alg="philox")

        return tf.map_fn(of_image, tf.cast(places, tf.int64), fn_output_signature=tf.TensorSpec([None], tf.float32))


@keras.saving.register_keras_serializable("keras_deepnets")
class AnchorTargets(_Sampler):
    """Targets of the region proposal network for a random part of the anchors.

    Input: a dictionary with ``anchors`` (list of ``[m, 4]``), ``boxes`` (true boxes ``[n, t, 4]``) and ``count`` (int ``[n]``).

    Output: a dictionary with ``deltas`` (``[n, m, 4]``) and the masks ``positive`` and ``negative`` (float32 ``[n, m]``).
    """

    def __init__(
        self,
        high: float = 0.7,
        low: float = 0.3,
        samples: int = 256,
        positive_share: float = 0.5,
        seed: int | None = None,
        **kwargs: Any,
    ):
        """Create the layer.

        Args:
            high: smallest overlap of a match.
            low: anchors with a smaller overlap are background.
            samples: number of anchors per image.
            positive_share: largest share of matches among them.
            seed: seed of the sampling.
            **kwargs: arguments of `keras.layers.Layer`.
        """
        super().__init__(seed, **kwargs)
        self.high, self.low = high, low
        self.samples, self.positive_share = samples, positive_share

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Anchors and true boxes to targets."""
        from keras_deepnets.detection.proposals import WEIGHTS

        anchors = ops.concatenate(inputs["anchors"], axis=0)
        truths = _one_more(ops.cast(inputs["boxes"], "float32"))
        found = match(anchors, truths, inputs["count"], self.high, self.low, keep_best=True)
        positive, negative = sampled(
            found.kind, self.draw(ops.shape(found.kind), inputs.get("places")), self.samples, self.positive_share
        )
        boxes = ops.take_along_axis(truths, found.index[..., None], axis=1)
        # The other anchors get themselves, so that the logarithms are finite.
        boxes = ops.where(positive[..., None], boxes, anchors[None])
        return {
            "deltas": box_ops.encode(boxes, anchors[None], WEIGHTS),
            "positive": ops.cast(positive, "float32"),
            "negative": ops.cast(negative, "float32"),
        }

    def compute_output_spec(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The symbolic outputs."""
        count = inputs["boxes"].shape[0]
        lengths = [anchors.shape[0] for anchors in inputs["anchors"]]
        length = None if None in lengths else sum(lengths)
        # Each output needs a separate tensor.
        return {
            "deltas": keras.KerasTensor((count, length, 4), "float32"),
            "positive": keras.KerasTensor((count, length), "float32"),
            "negative": keras.KerasTensor((count, length), "float32"),
        }

    def get_config(self) -> dict[str, Any]:
        """Thresholds, numbers and seed."""
        fields = ("high", "low", "samples", "positive_share", "seed")
        return super().get_config() | {name: getattr(self, name) for name in fields}


@keras.saving.register_keras_serializable("keras_deepnets")
class RegionTargets(_Sampler):
    """A random part of the proposals and true boxes, with their labels and regression targets.

    Input: a dictionary with ``proposals`` (``[n, k, 4]``), ``proposal_count`` (int ``[n]``), ``boxes`` (true boxes ``[n, t, 4]``),
    ``labels`` (int ``[n, t]``, from 1) and ``count`` (int ``[n]``).

    Output: a dictionary with ``regions`` (``[n, s, 4]``), ``labels`` (int32 ``[n, s]``: 0 for the background, -1 where there are too few
    regions) and ``deltas`` (``[n, s, 4]``).
    """

    def __init__(
        self,
        high: float = 0.5,
        low: float = 0.5,
        lowest: float = 0.0,
        samples: int = 512,
        positive_share: float = 0.25,
        seed: int | None = None,
        **kwargs: Any,
    ):
        """Create the layer.

        Args:
            high: smallest overlap of a match.
            low: regions with a smaller overlap are background.
            lowest: regions with a smaller overlap are ignored. 0.1 in Fast R-CNN (Girshick 2015, section 2.3).
            samples: s, the number of regions per image.
            positive_share: largest share of matches among them.
            seed: seed of the sampling.
            **kwargs: arguments of `keras.layers.Layer`.
        """
        super().__init__(seed, **kwargs)
        self.high, self.low, self.lowest = high, low, lowest
        self.samples, self.positive_share = samples, positive_share

    def call(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Proposals and true boxes to regions and targets."""
        from keras_deepnets.detection.detections import WEIGHTS

        truths, count = _one_more(ops.cast(inputs["boxes"], "float32")), inputs["count"]
        regions = ops.concatenate([ops.stop_gradient(inputs["proposals"]), truths], axis=1)
        filled = ops.concatenate(
            [
                sizes_mask(inputs["proposal_count"], ops.shape(inputs["proposals"])[1]),
                sizes_mask(count, ops.shape(truths)[1]),
            ],
            axis=1,
        )
        found = match(regions, truths, count, self.high, self.low)
        kind = ops.where(filled, found.kind, IGNORED)
        if self.lowest:
            kind = ops.where(
                ops.logical_and(kind == BACKGROUND, self._overlap(regions, truths, count) < self.lowest), IGNORED, kind
            )
        draws = self.draw(ops.shape(kind), inputs.get("places"))
        positive, negative = sampled(kind, draws, self.samples, self.positive_share)
        order = ops.where(positive, 4.0 + draws, ops.where(negative, 2.0 + draws, 0.0))
        order, places = ops.top_k(ops.pad(order, [(0, 0), (0, self.samples)]), self.samples)
        places = ops.minimum(places, ops.shape(regions)[1] - 1)
        positive = order > 3.5
        regions = ops.take_along_axis(regions, places[..., None], axis=1)
        truth = ops.take_along_axis(found.index, places, axis=1)
        labels = ops.take_along_axis(_one_more(ops.cast(inputs["labels"], "int32")), truth, axis=1)
        labels = ops.where(positive, labels, ops.where(order > 0, BACKGROUND, IGNORED))
        boxes = ops.take_along_axis(truths, truth[..., None], axis=1)
        # The other regions get targets of a fixed pair, so that the logarithms are finite.
        unit = ops.convert_to_tensor([0.0, 0.0, 1.0, 1.0])
        boxes, references = (ops.where(positive[..., None], values, unit) for values in (boxes, regions))
        return {"regions": regions, "labels": labels, "deltas": box_ops.encode(boxes, references, WEIGHTS)}

    def _overlap(self, regions: Any, truths: Any, count: Any) -> Any:
        """The largest overlap of each region with a true box. Without true boxes it counts as `lowest`."""
        filled = sizes_mask(count, ops.shape(truths)[1])[:, :, None]
        largest = ops.max(ops.where(filled, box_ops.iou(truths, regions), 0.0), axis=1)
        return ops.where(ops.cast(count, "int32")[:, None] > 0, largest, self.lowest)

    def compute_output_spec(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """The symbolic outputs."""
        count = inputs["boxes"].shape[0]
        return {
            "regions": keras.KerasTensor((count, self.samples, 4), "float32"),
            "labels": keras.KerasTensor((count, self.samples), "int32"),
            "deltas": keras.KerasTensor((count, self.samples, 4), "float32"),
        }

    def get_config(self) -> dict[str, Any]:
        """Thresholds, numbers and seed."""
        fields = ("high", "low", "lowest", "samples", "positive_share", "seed")
        return super().get_config() | {name: getattr(self, name) for name in fields}
