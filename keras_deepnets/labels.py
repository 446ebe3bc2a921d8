"""Class names: those of ImageNet, and how two lists of names compare."""

from __future__ import annotations

import collections
import functools
import json
from collections.abc import Sequence
from pathlib import Path


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """WordNet id and name of ImageNet's 1,000 classes, in the order that every published checkpoint has."""
    return tuple(map(tuple, json.loads(Path(__file__).with_name("imagenet_classes.json").read_text())))


def first_difference(labels: Sequence[str], others: Sequence[str]) -> int | None:
    """The first index at which two lists of class names say something else, or None.

    ImageNet's WordNet ids, as folders and TFDS have them, in the order of `imagenet_classes`, are the same as its names.
    """
    if len(labels) != len(others):
        return min(len(labels), len(others))
    labels, others = _imagenet_names(labels), _imagenet_names(others)
    return next((at for at, pair in enumerate(zip(labels, others, strict=True)) if pair[0] != pair[1]), None)


def _imagenet_names(labels: Sequence[str]) -> list[str]:
    classes = imagenet_classes()
    ids = [wordnet for wordnet, _ in classes]
    return [name for _, name in classes] if list(labels) == ids else list(labels)


def distinct(labels: Sequence[str]) -> list[str]:
    """Class names of which no two are the same: those that several classes have get their index (``"crane (134)"``)."""
    counts = collections.Counter(labels)
    return [label if counts[label] == 1 else f"{label} ({index})" for index, label in enumerate(labels)]
