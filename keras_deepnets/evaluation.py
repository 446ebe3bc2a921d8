"""The results of evaluating a classifier on a set of images."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from keras_deepnets.errors import InputError


class Mistake(NamedTuple):
    """A misclassified image.

    Attributes:
        index: position in the data, as in `ImageData.examples`.
        true: label of the image.
        predicted: label of the class with the highest probability.
        probability: probability of the predicted class.
        loss: cross entropy of the image, in nats.
    """

    index: int  # type: ignore[assignment]  # hides the method tuple.index
    true: str
    predicted: str
    probability: float
    loss: float


class ConfusedPair(NamedTuple):
    """A pair of classes in which the first is mistaken for the second.

    Attributes:
        true: true label of the images.
        predicted: label predicted for them.
        count: number of images.
        share: `count` as a share of the images of the true class.
    """

    true: str
    predicted: str
    count: int  # type: ignore[assignment]  # hides the method tuple.count
    share: float


@dataclass(frozen=True)
class Evaluation:
    """The results of a classifier on a set of images.

    Attributes:
        top1: share of images whose true class has the highest probability.
        top5: share of images whose true class is among the five highest probabilities.
        loss: mean cross entropy in nats, without label smoothing.
        size: number of images.
        per_class: top-1 accuracy of each class, by label. Labels shared by several classes get their index (ImageNet's "crane (134)").
            Classes without images are left out.
        images_per_second: throughput, input pipeline included. If there are several batches, the first one, which compiles, is left out.
            Each image counts once, even if several crops and scales of it are classified.
        confusion: int64 ``[classes, classes]``: the number of images of the row's class that were classified as the column's class.
        labels: class names in the order of `confusion`, made distinct as in `per_class`.
        worst: misclassified images with the highest loss, in descending order. `evaluate` limits their number.
    """

    top1: float
    top5: float
    loss: float
    size: int
    per_class: dict[str, float]
    images_per_second: float
    confusion: np.ndarray = field(compare=False, repr=False)
    labels: tuple[str, ...] = field(default=(), repr=False)
    worst: tuple[Mistake, ...] = field(default=(), repr=False)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the per-class accuracies (recalls). Classes without images are left out."""
        return float(np.mean(list(self.per_class.values())))

    @property
    def errors(self) -> int:
        """Number of misclassified images."""
        return int(self.confusion.sum() - self.confusion.trace())

    def confused_pairs(self, top: int = 5) -> list[ConfusedPair]:
        """The pairs of classes with the most errors, by descending count, then by descending share.

        Args:
            top: maximum number of pairs. Pairs without errors are left out.

        Raises:
            InputError: `top` is not a positive whole number.
        """
        check_count("top", top)
        counts = self.confusion.sum(axis=1)
        errors = self.confusion - np.diag(self.confusion.diagonal())
        rows, columns = errors.nonzero()
        found = errors[rows, columns]
        shares = found / counts[rows]
        order = np.lexsort((columns, rows, -shares, -found))[:top]
        return [
            ConfusedPair(self.labels[rows[at]], self.labels[columns[at]], int(found[at]), float(shares[at]))
            for at in order
        ]

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON values, with `confusion` as a list of rows.

        `balanced_accuracy` and `confused_pairs` are included.
        """
        values = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        return values | {
            "per_class": dict(self.per_class),
            "balanced_accuracy": self.balanced_accuracy,
            "confused_pairs": [pair._asdict() for pair in self.confused_pairs()],
            "confusion": self.confusion.tolist(),
            "labels": list(self.labels),
            "worst": [mistake._asdict() for mistake in self.worst],
        }


def check_count(name: str, value: int) -> None:
    """Raises InputError unless an argument is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name}={value!r} must be a whole number of at least 1.")
