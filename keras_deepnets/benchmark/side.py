"""What a worker holds when it has built its job. No framework is imported here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keras_deepnets.benchmark.process_memory import Meter, ProcessMeter


@dataclass(frozen=True)
class Side:
    """One side, built.

    Attributes:
        step: takes a step and returns when all of its results are there.
        facts: what the parent is told when it is built, JSON values.
        meter: of the memory that a step takes.
    """

    step: Callable[[], Any]
    facts: dict[str, Any] = field(default_factory=dict)
    meter: Meter = field(default_factory=ProcessMeter)
