"""All predictions of a classifier on labelled images, with what is measured on them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import keras

    from keras_deepnets.data import ImageData
    from keras_deepnets.evaluation import Evaluation


@dataclass(frozen=True)
class Predictions:
    """Predictions on labelled images.

    Attributes:
        probabilities: float64 ``[n, classes]``.
        truths: int64 ``[n]``.
        evaluation: What `keras_deepnets.training.evaluate` gives.
    """

    probabilities: np.ndarray
    truths: np.ndarray
    evaluation: Evaluation

    @property
    def best(self) -> np.ndarray:
        """Positions of the correctly classified images, the most certain first."""
        sure, right = self.probabilities.max(1), self.probabilities.argmax(1) == self.truths
        order = np.argsort(-sure, kind="stable")
        return order[right[order]]


def predictions_on(model: keras.Model, data: ImageData, batch: int = 128, worst: int = 12) -> Predictions:
    """Classify all images once.

    Args:
        model: Classifier that ends in a softmax or in logits.
        data: Labelled images with the classes of the model.
        batch: Maximum images per step.
        worst: Number of errors to keep in the evaluation.

    Raises:
        InputError: The model's classes are not those of the data, or its outputs are not numbers.
    """
    from keras_deepnets import models
    from keras_deepnets.training import evaluation, feed, losses, networks

    model = models.without_auxiliary(model)
    networks.check_fit(model, data)
    logits = losses.gives_logits(model)
    tally = evaluation.Tally(data.labels, worst)
    found, truths = [], []
    begin, seen = time.perf_counter(), 0
    for images, labels in feed.evaluation(model, data, batch).as_numpy_iterator():
        outputs = np.asarray(model.predict_on_batch(images), np.float64)
        if not np.isfinite(outputs).all():
            raise InputError(f"Model {model.name!r} gives outputs that are not numbers. Its training has diverged.")
        tally.add(outputs, labels, logits)
        if logits:
            outputs = np.exp(outputs - np.logaddexp.reduce(outputs, axis=1, keepdims=True))
        found.append(outputs)
        truths.append(labels)
        if len(found) == 1 and len(labels) < data.size:  # the first step compiles
            begin, seen = time.perf_counter(), -len(labels)
        seen += len(labels)
    speed = seen / max(time.perf_counter() - begin, 1e-9)
    return Predictions(np.concatenate(found), np.concatenate(truths), tally.evaluation(speed))
