"""The processes that train one network together, as the rest of the library sees them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from keras_deepnets.distribution import meeting
from keras_deepnets.distribution.cluster import Cluster
from keras_deepnets.errors import InputError

Value = TypeVar("Value")
SILENCE = 20.0
"""Seconds without a sign of life after which a worker counts as hung."""


class Group(Protocol):
    """The processes that train one network. A single process is a group too."""

    index: int
    size: int
    one_program: bool
    """Whether all processes compute one program over the whole batch. Gradients, statistics and metrics of training are then those of
    all processes already."""

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        ...

    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        """The sums of tensors over all processes, inside or outside a graph."""
        ...

    def gather(self, text: str) -> list[str]:
        """The texts of all processes, in their order."""
        ...

    def from_chief(self, compute: Callable[[], Value]) -> Value:
        """What `compute` returns on the chief: a plain JSON value. The others do not call it."""
        ...

    def abandon(self) -> None:
        """Leave the job without the others, one of which is lost."""
        ...

    def name_of(self, index: int) -> str:
        """A process in words, for messages."""
        ...


class _Alone:
    """A process that trains alone."""

    index, size, is_chief, one_program = 0, 1, True, False

    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        return list(tensors)

    def gather(self, text: str) -> list[str]:
        return [text]

    def from_chief(self, compute: Callable[[], Value]) -> Value:
        return compute()

    def abandon(self) -> None:
        pass

    def name_of(self, index: int) -> str:
        return "this process"


ALONE: Group = _Alone()
"""The group of a process that trains alone."""


class Connected(ABC):
    """Processes that can add up tensors.

    Args:
        cluster: The workers.
    """

    one_program = False

    def __init__(self, cluster: Cluster):
        self.cluster, self.index, self.size = cluster, cluster.index, cluster.size

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.index == 0

    @abstractmethod
    def sum(self, tensors: Sequence[Any]) -> list[Any]:
        """The sums of tensors over all workers. All workers must call it in the same order."""

    def gather(self, text: str) -> list[str]:
        """The texts of all workers, in their order."""
        own = np.frombuffer(text.encode(), np.uint8)
        lengths = np.zeros(self.size, np.int32)
        lengths[self.index] = len(own)
        lengths = self._total(lengths)
        rows = np.zeros((self.size, _rounded(int(lengths.max()))), np.int32)
        rows[self.index, : len(own)] = own
        rows = self._total(rows)
        return [bytes(row[:length].astype(np.uint8)).decode() for row, length in zip(rows, lengths, strict=True)]

    def _total(self, values: np.ndarray) -> np.ndarray:
        return np.asarray(self.sum([values])[0])

    def from_chief(self, compute: Callable[[], Value]) -> Value:
        """What `compute` returns on the chief: a plain JSON value. The others do not call it.

        Raises:
            InputError: `compute` raised it on the chief. All workers then raise it.
        """
        answer: dict[str, Any] = {}
        failure: InputError | None = None
        if self.is_chief:
            try:
                answer = {"value": compute()}
            except InputError as error:
                failure, answer = error, {"error": str(error)}
        answer = json.loads(self.gather(json.dumps(answer))[0])
        if failure is not None:
            raise failure
        if "error" in answer:
            raise InputError(f"{self.name_of(0)}: {answer['error']}")
        return answer["value"]

    @abstractmethod
    def abandon(self) -> None:
        """Leave the job without the others, one of which is lost."""

    def name_of(self, index: int) -> str:
        """A worker in words, for messages."""
        return meeting.name_of(self.cluster, index)


def _rounded(length: int) -> int:
    """A length of which there are few, because each one is traced: the next power of two."""
    return 1 << max(length - 1, 1).bit_length()
