"""Measure the memory of this process and of single steps."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

_STATUS = Path("/proc/self/status")
_earlier_peak = 0


class Meter(Protocol):
    """Measure the memory of a step.

    Attributes:
        source: Source of the numbers, for tables.
    """

    source: str

    def measure(self, step: Callable[[], Any]) -> int | None:
        """Run a step and return its peak bytes minus the bytes held before it. None if they cannot be measured."""


class ProcessMeter:
    """Meter of the process's resident memory, for allocators that return unused memory to the system."""

    source = "resident memory"

    def measure(self, step: Callable[[], Any]) -> int | None:
        """Like `Meter.measure`. None if the system has no high-water mark that can be reset."""
        trim()
        if not _reset_peak():
            step()
            return None
        before = _status("VmRSS")
        step()
        return max(0, _status("VmHWM") - before)


class AllocatorMeter:
    """Meter that reads a framework's statistics of the device memory."""

    def __init__(
        self,
        source: str,
        reset: Callable[[], Any],
        current: Callable[[], int],
        peak: Callable[[], int],
        *,
        with_process: bool = False,
    ):
        """Create the meter.

        Args:
            source: Source of the numbers.
            reset: Function that sets the peak to the current use.
            current: Function that returns the bytes in use.
            peak: Function that returns the peak bytes.
            with_process: Whether to add the growth of the process, which covers memory outside the allocator. This is correct only if
                the allocator's own memory no longer grows.
        """
        self.source = f"{source}{f' and {ProcessMeter.source}' if with_process else ''}"
        self._reset, self._current, self._peak = reset, current, peak
        self._with_process = with_process

    def measure(self, step: Callable[[], Any]) -> int | None:
        """Like `Meter.measure`."""
        self._reset()
        before = self._current()
        beside = None
        if self._with_process:
            beside = ProcessMeter().measure(step)
        else:
            step()
        return max(0, self._peak() - before) + (beside or 0)


def lifetime_peak() -> int:
    """Peak resident memory of the process in bytes, over its whole life."""
    if _STATUS.exists():
        return max(_earlier_peak, _status("VmHWM"))
    import resource  # POSIX only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def trim() -> None:
    """Return free memory to the system, so that it does not count as used. Only glibc supports this."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _reset_peak() -> bool:
    """Reset the high-water mark to the current resident memory, and keep the old peak for `lifetime_peak`. Return success."""
    global _earlier_peak
    if not _STATUS.exists():
        return False
    _earlier_peak = lifetime_peak()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    # Some kernels and sandboxes accept the write and ignore it.
    return _status("VmHWM") <= _status("VmRSS") * 1.02 + (1 << 20)


def _status(key: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0
