"""Means and sums over the replicas that train one network together. How the replicas communicate is not known here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol


class Replicas(Protocol):
    """A group of replicas: processes, or devices of one process."""

    @property
    def size(self) -> int:
        """Number of replicas."""
        ...

    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        """The sums of tensors over all replicas. Gradients do not pass."""
        ...


_training: list[Replicas] = []
_normalizing: list[Replicas] = []


def synchronizes() -> bool:
    """Whether batch normalisation uses the statistics of all replicas."""
    return bool(_normalizing)


@contextlib.contextmanager
def together(replicas: Replicas) -> Iterator[None]:
    """A scope in which losses count the objects of all replicas. Functions that are traced in it keep to that."""
    _training.append(replicas)
    try:
        yield
    finally:
        _training.pop()


@contextlib.contextmanager
def synchronized(replicas: Replicas) -> Iterator[None]:
    """A scope in which batch normalisation uses the statistics of all replicas' images. Functions that are traced in it keep to that."""
    _normalizing.append(replicas)
    try:
        yield
    finally:
        _normalizing.pop()


def mean(tensors: Sequence[Any]) -> list[Any]:
    """The means of tensors over the replicas. Gradients pass: each replica gets the mean of all replicas' gradients."""
    import tensorflow as tf

    group = _normalizing[-1]

    @tf.custom_gradient
    def averaged(*values: Any) -> Any:
        def gradient(*upstream: Any) -> Any:
            return [each / group.size for each in group.sum(upstream)]

        return [each / group.size for each in group.sum(values)], gradient

    return list(averaged(*tensors))


def normalizer(count: Any) -> Any:
    """The number by which a replica divides its sum of losses, so that the mean over the replicas is that of the whole batch.

    Without replicas, it is the count itself. It is at least 1 over all replicas.

    Args:
        count: Number of objects of this replica, a float scalar. It has no gradient.
    """
    from keras import ops

    if not _training:
        return ops.maximum(count, 1.0)
    group = _training[-1]
    return ops.maximum(group.sum([ops.stop_gradient(count)])[0], 1.0) / group.size
