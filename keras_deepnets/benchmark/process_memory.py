"""Memory of this process and of one step."""

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
    """Measures what a step takes.

    Attributes:
        source: what the numbers are from, for tables.
    """

    source: str

    def measure(self, step: Callable[[], Any]) -> int | None:
        """Takes a step; the bytes held at its peak beyond those held before it. None where that cannot be known."""


class ProcessMeter:
    """The resident memory of the process: for allocators that give back what they do not need."""

    source = "resident memory"

    def measure(self, step: Callable[[], Any]) -> int | None:
        """As `Meter.measure`; None where the system has no high-water mark that can be reset."""
        trim()
        if not _reset_peak():
            step()
            return None
        before = _status("VmRSS")
        step()
        return max(0, _status("VmHWM") - before)


class AllocatorMeter:
    """A framework's own statistics of the device's memory."""

    def __init__(
        self,
        source: str,
        reset: Callable[[], Any],
        current: Callable[[], int],
        peak: Callable[[], int],
        *,
        with_process: bool = False,
    ):
        """What the numbers are from, and how they are had.

        Args:
            source: who says so.
            reset: sets the peak to what is held now.
            current: bytes held now.
            peak: bytes held at the peak.
            with_process: whether what the allocator does not see is added: growth of the process. Only right where the allocator's
                own memory does not grow any more.
        """
        self.source = f"{source}{f' and {ProcessMeter.source}' if with_process else ''}"
        self._reset, self._current, self._peak = reset, current, peak
        self._with_process = with_process

    def measure(self, step: Callable[[], Any]) -> int | None:
        """As `Meter.measure`."""
        self._reset()
        before = self._current()
        beside = None
        if self._with_process:
            beside = ProcessMeter().measure(step)
        else:
            step()
        return max(0, self._peak() - before) + (beside or 0)


def lifetime_peak() -> int:
    """Bytes of resident memory at the peak of the process' life."""
    if _STATUS.exists():
        return max(_earlier_peak, _status("VmHWM"))
    import resource  # POSIX only

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def trim() -> None:
    """Gives free memory back to the system, so that it is not taken for used; glibc alone can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _reset_peak() -> bool:
    """Sets the high-water mark to what is resident now; whether that worked. The peak of before is kept for `lifetime_peak`."""
    global _earlier_peak
    if not _STATUS.exists():
        return False
    _earlier_peak = lifetime_peak()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    # Some kernels and sandboxes take the write and do nothing.
    return _status("VmHWM") <= _status("VmRSS") * 1.02 + (1 << 20)


def _status(key: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0
