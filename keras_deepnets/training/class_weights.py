"""Class weights: how much the images of a class count in the loss.

The loss of an image is its loss without weights times the weight of what it shows, ``sum(t * w)``: ``t`` is its distribution over the
classes before label smoothing (one-hot, or of a mixed image its shares), ``w`` the weights. A batch's loss is the mean over its images. So:

* of an image of one class it is Keras' ``fit(class_weight=…)``;
* weights say how much an image counts and not what it shows: its target, smoothed or mixed, is that of a run without weights;
* ``"balanced"`` weights average to 1 over the training images, mixed or not, so the learning rate and the weight decay keep their meaning.

Training batches carry the weights of their images as Keras' sample weights. They therefore hold for any loss and in any precision, and
what a run is validated on has none: ``val_loss`` and all accuracies are unweighted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

BALANCED = "balanced"
_SHOWN = 6


def resolve(
    asked: str | Mapping[str | int, float] | None, labels: Sequence[str], counts: Sequence[int]
) -> tuple[float, ...] | None:
    """The weight of each class.

    Args:
        asked: ``"balanced"``, ``images / (classes * images of the class)`` as in scikit-learn, counting classes that have images; or the
            weights of some classes by label or index, others having 1; or None for none. A text that is no label but a number is an index.
        labels: class names.
        counts: training images of each class.

    Returns:
        A weight a class, in the order of `labels`; None of None.

    Raises:
        InputError: an unknown class, one that is named twice or ambiguously, a weight that is no finite number of at least 0, or no image
            with a weight above 0.
    """
    if asked is None:
        return None
    if isinstance(asked, str) and asked == BALANCED:
        present = sum(count > 0 for count in counts)
        return tuple(sum(counts) / (present * count) if count else 1.0 for count in counts)
    if not isinstance(asked, Mapping):
        raise InputError(f"class_weight={asked!r}: give 'balanced', or weights by class, e.g. {{{labels[0]!r}: 2.0}}.")
    found: dict[int, float] = {}
    for key, weight in asked.items():
        index = _index(key, labels)
        if index in found:
            raise InputError(f"class_weight names class {labels[index]!r} twice; give one weight a class.")
        found[index] = _checked(key, weight)
    weights = tuple(found.get(index, 1.0) for index in range(len(labels)))
    if not any(weight * count for weight, count in zip(weights, counts, strict=True)):
        raise InputError(
            "class_weight leaves no training image with a weight above 0; give one to some class that has images."
        )
    return weights


def _index(key: Any, labels: Sequence[str]) -> int:
    """The class that a key means."""
    if isinstance(key, str):
        places = [index for index, label in enumerate(labels) if label == key]
        if len(places) == 1:
            return places[0]
        if places:
            raise InputError(
                f"class_weight: {len(places)} classes are called {key!r}; name one by its index, e.g. {places[0]}."
            )
        if not key.isdecimal():
            raise InputError(f"class_weight names {key!r}, which is none of the classes ({_few(labels)}).")
    elif isinstance(key, bool) or not isinstance(key, (int, np.integer)):
        raise InputError(f"class_weight names {key!r}; name classes by label or index ({_few(labels)}).")
    elif str(key) in labels and labels.index(str(key)) != key:
        raise InputError(
            f"class_weight: {key} is the label of class {labels.index(str(key))} and the index of {_label(labels, int(key))}; "
            f"write the label as a text, {str(key)!r}."
        )
    index = int(key)
    if not 0 <= index < len(labels):
        raise InputError(
            f"class_weight names class {index}, and there are {len(labels)}, counted from 0 ({_few(labels)})."
        )
    return index


def _label(labels: Sequence[str], index: int) -> str:
    return repr(labels[index]) if 0 <= index < len(labels) else "none"


def _checked(key: Any, weight: Any) -> float:
    if isinstance(weight, bool) or not isinstance(weight, (Real, np.number)) or not math.isfinite(weight) or weight < 0:
        raise InputError(f"class_weight of {key!r} is {weight!r}; give a finite number of at least 0.")
    return float(weight)


def _few(labels: Sequence[str]) -> str:
    return ", ".join(labels[:_SHOWN]) + (f", … {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else "")


def weighted(batches: tf.data.Dataset, weights: Sequence[float]) -> tf.data.Dataset:
    """Batches with the weights of their images, float32 ``[b]``, as a third part.

    Args:
        batches: (images, labels): int ``[b]``, or distributions float32 ``[b, classes]``.
        weights: one a class.
    """
    import tensorflow as tf

    def add(images, labels):
        values = tf.constant(weights, tf.float32)
        found = tf.linalg.matvec(labels, values) if labels.shape.rank == 2 else tf.gather(values, labels)
        return images, labels, found

    return batches.map(add, tf.data.AUTOTUNE, deterministic=True)
