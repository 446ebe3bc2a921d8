"""Class weights: how much the images of each class count in the training loss.

The loss of an image is its unweighted loss times ``sum(t * w)``. ``t`` is the target distribution over the classes
before label smoothing. It is one-hot, or has the shares of a mixed image. ``w`` are the class weights. The loss of a
batch is the mean over its images. It follows that:

* For an image of one class, this equals Keras' ``fit(class_weight=…)``.
* The weights change how much an image counts, not its target. Smoothed and mixed targets are those of a run without
  weights.
* ``"balanced"`` weights average to 1 over the training images, mixed or not. The learning rate and the weight decay
  therefore keep their meaning.

Training batches carry the weights of their images as Keras sample weights. The weights therefore work with any loss and
any precision. Validation batches carry no weights: ``val_loss`` and all accuracies are unweighted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.data import parallel
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

BALANCED = "balanced"
_SHOWN = 6


def resolve(
    asked: str | Mapping[str | int, float] | None, labels: Sequence[str], counts: Sequence[int]
) -> tuple[float, ...] | None:
    """Return the weight of each class.

    Args:
        asked: ``"balanced"``, the weights of some classes by label or index, or None for no weights. ``"balanced"``
            weights are ``images / (classes * images of the class)``, as in scikit-learn. Only classes with images count
            in ``classes``. Classes that a mapping omits have weight 1. A string key that is not a label but a number is
            an index.
        labels: Class names.
        counts: Training images per class.

    Returns:
        One weight per class in the order of `labels`, or None if `asked` is None.

    Raises:
        InputError: A class is unknown, ambiguous or named twice, a weight is negative or not finite, or no image has a
            weight above 0.
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
            raise InputError(f"class_weight names class {labels[index]!r} twice; give one weight per class.")
        found[index] = _checked(key, weight)
    weights = tuple(found.get(index, 1.0) for index in range(len(labels)))
    if not any(weight * count for weight, count in zip(weights, counts, strict=True)):
        raise InputError(
            "class_weight leaves no training image with a weight above 0; give a class with images a positive weight."
        )
    return weights


def _index(key: Any, labels: Sequence[str]) -> int:
    """Return the index of the class that a key names."""
    if isinstance(key, str):
        places = [index for index, label in enumerate(labels) if label == key]
        if len(places) == 1:
            return places[0]
        if places:
            raise InputError(
                f"class_weight: {len(places)} classes are called {key!r}; name one by its index, e.g. {places[0]}."
            )
        if not key.isdecimal():
            raise InputError(f"class_weight names {key!r}, which is not one of the classes ({_few(labels)}).")
    elif isinstance(key, bool) or not isinstance(key, (int, np.integer)):
        raise InputError(f"class_weight names {key!r}; use a label or an index as key ({_few(labels)}).")
    elif str(key) in labels and labels.index(str(key)) != key:
        raise InputError(
            f"class_weight: {key} is the label of class {labels.index(str(key))} and the index of {_label(labels, int(key))}; "
            f"write the label as a string, {str(key)!r}."
        )
    index = int(key)
    if not 0 <= index < len(labels):
        raise InputError(
            f"class_weight names class {index}, and there are {len(labels)} classes, counted from 0 ({_few(labels)})."
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
    """Add the weights of the images to batches as a third component, float32 ``[b]``.

    Args:
        batches: (images, labels). The labels are int ``[b]`` or distributions float32 ``[b, classes]``.
        weights: One weight per class.
    """
    import tensorflow as tf

    def add(images, labels):
        values = tf.constant(weights, tf.float32)
        found = tf.linalg.matvec(labels, values) if labels.shape.rank == 2 else tf.gather(values, labels)
        return images, labels, found

    return batches.map(add, parallel.calls(), deterministic=True)
