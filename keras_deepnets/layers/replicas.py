"""Means over the replicas that train one network together. How the replicas communicate is not known here."""

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


_active: list[Replicas] = []


def synchronizes() -> bool:
    """Whether batch normalisation uses the statistics of all replicas."""
    return bool(_active)


@contextlib.contextmanager
def synchronized(replicas: Replicas) -> Iterator[None]:
    """A scope in which batch normalisation uses the statistics of all replicas' images. Functions that are traced in it keep to that."""
    _active.append(replicas)
    try:
        yield
    finally:
        _active.pop()


def mean(tensors: Sequence[Any]) -> list[Any]:
    """The means of tensors over the replicas. Gradients pass: each replica gets the mean of all replicas' gradients."""
    import tensorflow as tf

    group = _active[-1]

    @tf.custom_gradient
    def averaged(*values: Any) -> Any:
        def gradient(*upstream: Any) -> Any:
            return [each / group.size for each in group.sum(upstream)]

        return [each / group.size for each in group.sum(values)], gradient

    return list(averaged(*tensors))
