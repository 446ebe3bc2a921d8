"""Split a labelled data set in two by seed: the same on every machine, with every class in proportion."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from keras_deepnets.errors import InputError

SPLITS = ("train", "validation", "test", "all")


def shuffled(names: Iterable[str], seed: int) -> list[int]:
    """The order of ``names`` by a hash of (seed, name).

    The order does not depend on a library's random numbers. A name added later does not move the others, so test examples do not slip
    into the training set.
    """
    keys = [
        hashlib.blake2b(f"{seed}/{name}".encode("utf-8", "surrogateescape"), digest_size=8).digest() for name in names
    ]
    return sorted(range(len(keys)), key=keys.__getitem__)


def number(seed: int, below: int) -> int:
    """A whole number in ``[0, below)`` from a hash of the seed."""
    return int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "big") % below


def cut_size(size: int | float, total: int, what: str = "validation") -> int:
    """Convert a size to a number of examples. The size is a number of examples, or a fraction of ``total`` in (0, 1).

    Raises:
        InputError: The size is not a number, is negative, or would leave no example.
    """
    valid = isinstance(size, (int, float, np.integer, np.floating)) and not isinstance(size, bool)
    count = round(size * total) if valid and 0 < size < 1 else size
    if not valid or not 0 <= count < total or count != int(count) or (0 < size < 1 and count == 0):
        raise InputError(
            f"{what}={size!r}: give a fraction between 0 and 1, or a whole number of examples below {total:,}."
        )
    return int(count)


def proportional(counts: Sequence[int] | np.ndarray, size: int, leave: int = 1) -> list[int]:
    """Number of examples to take from each class, in proportion, so that they add up to ``size`` (largest remainders).

    At least one example of each class is taken and ``leave`` examples remain, if ``size`` allows.
    """
    available = np.asarray(counts, np.int64)
    quotas = available * (size / max(available.sum(), 1))
    limits = np.maximum(available - leave, 0)
    limits = limits if limits.sum() >= size else available
    least = (limits > 0).astype(np.int64)
    least = least if least.sum() <= size else np.zeros_like(least)
    taken = np.maximum(np.minimum(np.floor(quotas).astype(np.int64), limits), least)
    while taken.sum() > size:
        taken[np.argmax(np.where(taken > least, taken - quotas, -np.inf))] -= 1
    ranking = np.argsort(-(quotas - np.floor(quotas)), kind="stable")
    while taken.sum() < size:
        open_classes = [index for index in ranking if taken[index] < limits[index]]
        taken[open_classes[: size - taken.sum()]] += 1
    return [int(count) for count in taken]


def stratified(labels: np.ndarray, names: Sequence[str], size: int, seed: int, leave: int = 1) -> np.ndarray:
    """Choose ``size`` examples by a hash of (seed, name), each class in proportion.

    Args:
        labels: int ``[n]``.
        names: One stable identity per example, such as a relative path.
        size: Number of examples to choose.
        seed: Chooses the examples.
        leave: Number of examples of each class that are not chosen, if possible.

    Returns:
        bool ``[n]``: True where chosen.
    """
    order = np.asarray(shuffled(names, seed), np.int64)
    counts = np.bincount(labels)
    taken = proportional(counts, size, leave)
    chosen = np.zeros(len(labels), bool)
    for label, take in enumerate(taken):
        chosen[order[labels[order] == label][:take]] = True
    return chosen
