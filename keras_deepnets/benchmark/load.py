"""Measure how busy the machine is with other processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from keras_deepnets import processor
from keras_deepnets.benchmark.results import threads

_QUIET = 0.1  # share of the processors that other processes may use without a warning


def is_noise(others: float | None, used: int | None = None) -> bool:
    """Whether `others` processors busy with other processes make measurements with `used` threads unreliable."""
    free = threads() - (used or threads())
    return others is not None and others >= max(free, 0) + _QUIET * threads()


def busy_elsewhere(seconds: float = 0.3) -> bool:
    """Whether the machine is busy with other processes now, measured over `seconds`."""
    bystander = Bystander()
    time.sleep(seconds)
    return is_noise(bystander.others())


class Bystander:
    """Watch the processors from creation on."""

    def __init__(self, pids: Iterable[int] = ()):
        """Start watching. `pids` are the measured processes, which do not count as others."""
        self._pids = tuple(pids)
        self._begin = time.perf_counter(), _busy(), self._own()

    def others(self) -> float | None:
        """Average number of processors busy with other processes. None if the system does not report it."""
        begin, busy, own = self._begin
        now = _busy()
        if busy is None or now is None:
            return None
        elapsed = max(time.perf_counter() - begin, 1e-3)
        return min(float(threads()), max(0.0, (now - busy - (self._own() - own)) / elapsed))

    def _own(self) -> float:
        return time.process_time() + sum(map(_used, self._pids))


def _busy() -> float | None:
    """Total busy seconds of the processors that this process may use."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        usable = {f"cpu{number}" for number in processor.usable()}
        rows = [[int(word) for word in line.split()[1:9]] for line in lines if line.split()[0] in usable]
    except (OSError, ValueError):
        return None
    idle = (3, 4)  # columns: idle, and waiting for a disk
    return sum(sum(row) - sum(row[i] for i in idle) for row in rows) / os.sysconf("SC_CLK_TCK")


def _used(pid: int) -> float:
    """Processor seconds that a process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
