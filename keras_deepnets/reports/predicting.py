"""All predictions of a classifier on labelled images, with what is measured on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

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
        InputError: The model's classes are not those of the data, or its outputs are NaN or infinite.
    """
    from keras_deepnets import models
    from keras_deepnets.training import evaluation, losses, networks

    model = models.without_auxiliary(model)
    networks.check_fit(model, data)
    logits = losses.gives_logits(model)
    tally = evaluation.Tally(data.labels, worst)
    found, truths = [], []

    def kept() -> evaluation.Results:
        for outputs, labels, positions in evaluation.central(model, data, batch):
            found.append(outputs.astype(np.float64))
            truths.append(labels)
            yield outputs, labels, positions

    speed = evaluation.add_all(tally, kept(), model.name, data.size, logits)
    probabilities = np.concatenate(found)
    if logits:
        probabilities = np.exp(probabilities - np.logaddexp.reduce(probabilities, axis=1, keepdims=True))
    return Predictions(probabilities, np.concatenate(truths), tally.evaluation(speed))
