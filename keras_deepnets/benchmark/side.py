"""The result of building a job in a worker. This module imports no framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from keras_deepnets.benchmark.process_memory import Meter, ProcessMeter


@dataclass(frozen=True)
class Side:
    """One side of a comparison, ready to run.

    Attributes:
        step: Function that runs one step and returns when all results are available.
        facts: JSON values for the parent process, sent after building.
        meter: Meter of a step's memory.
    """

    step: Callable[[], Any]
    facts: dict[str, Any] = field(default_factory=dict)
    meter: Meter = field(default_factory=ProcessMeter)
