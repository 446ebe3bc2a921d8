"""The training form of a detector: the same layers, with true boxes as inputs and the four losses as outputs."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.detection.assignment import AnchorTargets, RegionTargets
from keras_deepnets.detection.detector import Detector
from keras_deepnets.detection.sampling import BETA, Sampling
from keras_deepnets.errors import InputError
from keras_deepnets.layers import replicas
from keras_deepnets.models import deep_graphs, single_function

LOSSES = ("objectness", "rpn_box", "classifier", "box")
"""The losses: of anchors and of regions, each of classes and of boxes."""


def smooth_l1(differences: Any, beta: float) -> Any:
    """``0.5·d²/beta`` where ``|d| < beta``, and ``|d| - 0.5·beta`` elsewhere (Girshick 2015, equation 3). Elementwise."""
    size = ops.abs(differences)
    return ops.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)


class _Losses(keras.layers.Layer):
    """A layer with two losses as outputs, float32 scalars."""

    def __init__(self, beta: float = BETA, **kwargs: Any):
        """`beta`: see `smooth_l1`."""
        super().__init__(**{"dtype": "float32", "autocast": False} | kwargs)
        self.beta = beta

    def compute_output_spec(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """Two scalars."""
        return keras.KerasTensor((), "float32"), keras.KerasTensor((), "float32")

    def get_config(self) -> dict[str, Any]:
        """The deviation `beta`."""
        return super().get_config() | {"beta": self.beta}


@keras.saving.register_keras_serializable("keras_deepnets")
class ProposalLosses(_Losses):
    """The two losses of the region proposal network, over all images of the batch.

    Input: a dictionary with the lists ``objectness`` and ``deltas`` (outputs per level), and with ``targets`` of `AnchorTargets`.
    Output: two float32 scalars. The first is the mean binary cross entropy of the sampled anchors. The second is the sum of the smooth
    L1 losses of the positive ones over the number of sampled anchors.
    """

    def call(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """Outputs and targets to losses."""
        targets = inputs["targets"]
        count = ops.shape(targets["positive"])[0]
        logits = _joined([ops.reshape(x, (count, -1)) for x in inputs["objectness"]])
        deltas = _joined([ops.reshape(x, (count, -1, 4)) for x in inputs["deltas"]])
        positive, used = targets["positive"], targets["positive"] + targets["negative"]
        number = replicas.normalizer(ops.sum(used))
        entropy = ops.maximum(logits, 0.0) - logits * positive + ops.log1p(ops.exp(-ops.abs(logits)))
        distances = ops.sum(smooth_l1(deltas - targets["deltas"], self.beta), axis=-1)
        return ops.sum(entropy * used) / number, ops.sum(distances * positive) / number


@keras.saving.register_keras_serializable("keras_deepnets")
class RegionLosses(_Losses):
    """The two losses of the heads, over all images of the batch.

    Input: a dictionary with ``logits`` (``[n, s, classes]``), ``deltas`` (``[n, s, 4·classes]``) and ``targets`` of `RegionTargets`.
    Output: two float32 scalars. The first is the mean cross entropy of the sampled regions. The second is the sum of the smooth L1
    losses of the positive ones, for their own class, over the number of sampled regions.
    """

    def call(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """Outputs and targets to losses."""
        targets = inputs["targets"]
        logits = ops.cast(inputs["logits"], "float32")
        classes, labels = logits.shape[-1], targets["labels"]
        used, positive = ops.cast(labels >= 0, "float32"), ops.cast(labels > 0, "float32")
        number = replicas.normalizer(ops.sum(used))
        own = ops.one_hot(ops.maximum(labels, 0), classes, dtype="float32")
        entropy = ops.logsumexp(logits, axis=-1) - ops.sum(own * logits, axis=-1)
        deltas = ops.reshape(ops.cast(inputs["deltas"], "float32"), (*ops.shape(labels), classes, 4))
        deltas = ops.sum(deltas * own[..., None], axis=-2)
        distances = ops.sum(smooth_l1(deltas - targets["deltas"], self.beta), axis=-1)
        return ops.sum(entropy * used) / number, ops.sum(distances * positive) / number


def _joined(parts: list[Any]) -> Any:
    return ops.cast(ops.concatenate(parts, axis=1) if len(parts) > 1 else parts[0], "float32")


@keras.saving.register_keras_serializable("keras_deepnets")
class TrainingDetector(keras.Model):
    """The training form of a detector. It shares all layers with weights.

    Inputs: those of the `Detector`, and the true objects. These are ``boxes`` (float ``[n, t, 4]`` in pixels of the padded image),
    ``labels`` (int ``[n, t]``, from 1) and ``count`` (int ``[n]``). A form that samples by image has the input ``places`` too.
    Outputs: the losses ``objectness``, ``rpn_box``, ``classifier`` and ``box``, float32 scalars.
    The loss of `fit` is their sum. `fit` takes a data set of dictionaries, without targets.
    """

    train_function: Any

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The sum of the four losses and of the layers' own. Several devices of one process share it equally."""
        loss = sum((y_pred[name] for name in LOSSES), start=ops.convert_to_tensor(0.0)) + sum(self.losses)
        return loss / _devices()

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Means of the losses."""
        for tracker in self._loss_trackers():
            tracker.update_state(y_pred[tracker.name])
        return self.get_metrics_result()

    def make_train_function(self, force: bool = False) -> Any:
        """As in Keras, but a step is one function."""
        if force or self.train_function is None:
            self.train_function = single_function(self, self.train_step)
        return self.train_function or super().make_train_function()

    def _loss_trackers(self) -> list[keras.metrics.Metric]:
        if not hasattr(self, "_trackers_of_losses"):
            self._trackers_of_losses = [keras.metrics.Mean(name=name) for name in LOSSES]
        return self._trackers_of_losses

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The means of the loss and of its parts."""
        own = self._loss_trackers()
        return [metric for metric in super().metrics if metric not in own] + own


def _devices() -> int:
    """Number of devices of which each computes a part of the batch. The optimizer adds up their gradients."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def training_form(model: Detector, sampling: Sampling | None = None, by_image: bool = False) -> TrainingDetector:
    """The training form of a detector, on the same layers.

    Args:
        model: detector.
        sampling: which anchors and regions a step uses. None: torchvision's.
        by_image: whether the sampling depends only on the seed, the epoch and the image. The form then has an input ``places``, int64
            ``[n, 2]``: the epoch and the number of each image. Other backends than TensorFlow ignore it.

    Returns:
        A model whose outputs are the four losses. Training it trains `model`.

    Raises:
        ValueError: the model is not a detector.
    """
    if not isinstance(model, Detector) or "proposals" not in [layer.name for layer in model.layers]:
        raise InputError(f"{getattr(model, 'name', model)} is not a detector; build one with keras_deepnets.detection.")
    sampling = sampling or Sampling()
    layer = model.get_layer
    inputs = {
        "images": keras.Input((None, None, 3), name="images"),
        "sizes": keras.Input((2,), dtype="int32", name="sizes"),
        "boxes": keras.Input((None, 4), name="boxes"),
        "labels": keras.Input((None,), dtype="int32", name="labels"),
        "count": keras.Input((), dtype="int32", name="count"),
    }
    if by_image:
        inputs["places"] = keras.Input((2,), dtype="int64", name="places")
    truths: dict[str, Any] = {name: inputs[name] for name in ("boxes", "count", "places") if name in inputs}
    with deep_graphs():
        x = layer("padding_mask")([layer("input_scaling")(inputs["images"]), inputs["sizes"]])
        maps = layer("body")(x)
        features = list(maps.values())
        outputs = [layer("rpn")(level) for level in features]
        objectness, deltas = [each[0] for each in outputs], [each[1] for each in outputs]
        anchors = layer("anchors")([x, *features])
        seeds = [None if sampling.seed is None else sampling.seed + place for place in (0, 1)]
        targets = AnchorTargets(
            sampling.anchor_high,
            sampling.anchor_low,
            sampling.anchors,
            sampling.anchor_share,
            seeds[0],
            name="anchor_targets",
        )({"anchors": anchors, **truths})
        first = ProposalLosses(sampling.beta, name="proposal_losses")(
            {"objectness": objectness, "deltas": deltas, "targets": targets}
        )
        found = layer("proposals")(
            {"sizes": inputs["sizes"], "objectness": objectness, "deltas": deltas, "anchors": anchors}, sampled=True
        )
        targets = RegionTargets(
            sampling.region_high,
            sampling.region_low,
            sampling.region_lowest,
            sampling.regions,
            sampling.region_share,
            seeds[1],
            name="region_targets",
        )({"proposals": found["boxes"], "proposal_count": found["count"], "labels": inputs["labels"], **truths})
        align = layer("region_align")
        regions = align([targets["regions"], *features[: len(align.levels)]])
        logits, deltas = layer("head")(ops.reshape(regions, (-1, *regions.shape[2:])))
        shape = (-1, sampling.regions)
        second = RegionLosses(sampling.beta, name="region_losses")(
            {
                "logits": ops.reshape(logits, (*shape, logits.shape[-1])),
                "deltas": ops.reshape(deltas, (*shape, deltas.shape[-1])),
                "targets": targets,
            }
        )
        losses = dict(zip(LOSSES, (*first, *second), strict=True))
        return TrainingDetector(inputs, losses, name=f"{model.name}_training")
