"""Class names: those of ImageNet, and the comparison of two lists of names."""

from __future__ import annotations

import collections
import functools
import json
from collections.abc import Sequence
from pathlib import Path


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """WordNet id and name of the 1,000 ImageNet classes, in the order of all published checkpoints."""
    return tuple(map(tuple, json.loads(Path(__file__).with_name("imagenet_classes.json").read_text())))


def first_difference(labels: Sequence[str], others: Sequence[str]) -> int | None:
    """The first index at which two lists of class names differ, or None.

    ImageNet's WordNet ids, as in folders and TFDS, count as equal to its names if they are in the order of `imagenet_classes`.
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
    """Class names without duplicates. Names shared by several classes get their index (``"crane (134)"``)."""
    counts = collections.Counter(labels)
    return [label if counts[label] == 1 else f"{label} ({index})" for index, label in enumerate(labels)]
