"""What a classifier does on a set of images: the figures of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from keras_deepnets.errors import InputError


class Mistake(NamedTuple):
    """A misclassified image.

    Attributes:
        index: its position in the data, as in `ImageData.examples`.
        true: its label.
        predicted: the label of the class with the highest probability.
        probability: of the predicted class.
        loss: cross entropy of the image, in nats.
    """

    index: int
    true: str
    predicted: str
    probability: float
    loss: float


class ConfusedPair(NamedTuple):
    """A class that is taken for another.

    Attributes:
        true: label of the images.
        predicted: label that they were given.
        count: number of images.
        share: `count` as a share of the true class's images.
    """

    true: str
    predicted: str
    count: int
    share: float


@dataclass(frozen=True)
class Evaluation:
    """What a classifier does on a set of images.

    Attributes:
        top1: share of the images whose class has the highest probability.
        top5: share of those whose class is among the five highest.
        loss: mean cross entropy, in nats, without label smoothing.
        size: how many images.
        per_class: `top1` of each class's images, by label (with its index where two classes have one: ImageNet's "crane (134)");
            classes without an image are left out.
        images_per_second: input pipeline included, first batch (which compiles) left out if there are more. An image counts once,
            however many crops and scales of it are classified.
        confusion: int64 ``[classes, classes]``: how many images of the class of the row were taken for that of the column.
        labels: class names, in the order of `confusion`; distinct as in `per_class`.
        worst: the misclassified images with the highest loss, the highest first; as many as `evaluate` was asked to keep.
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
        """Mean of the classes' accuracies (recalls); classes without an image are left out."""
        return float(np.mean(list(self.per_class.values())))

    @property
    def errors(self) -> int:
        """Number of misclassified images."""
        return int(self.confusion.sum() - self.confusion.trace())

    def confused_pairs(self, top: int = 5) -> list[ConfusedPair]:
        """The pairs of classes with the most errors, the largest number first; of equal ones the larger share first.

        Args:
            top: number of pairs, at most. Pairs without an error are left out.

        Raises:
            InputError: `top` is no positive whole number.
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
        """The values as plain JSON values; `confusion` as a list of its rows, with `balanced_accuracy` and `confused_pairs`."""
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
    """Raises InputError unless an argument is a positive whole number."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise InputError(f"{name}={value!r} must be a whole number of at least 1.")
