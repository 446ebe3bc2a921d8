"""How busy the machine is with other things while something is measured."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

from keras_deepnets.benchmark.results import threads

_QUIET = 0.1  # of the processors that others may use before it is worth a word


def is_noise(others: float | None, used: int | None = None) -> bool:
    """Whether so many processors busy with other processes are too many to trust what `used` threads do meanwhile."""
    free = threads() - (used or threads())
    return others is not None and others >= max(free, 0) + _QUIET * threads()


def busy_elsewhere(seconds: float = 0.3) -> bool:
    """Whether the machine is busy with other processes right now; takes a moment."""
    bystander = Bystander()
    time.sleep(seconds)
    return is_noise(bystander.others())


class Bystander:
    """Watches the processors from its making on."""

    def __init__(self, pids: Iterable[int] = ()):
        """Begins; `pids` are the processes that are measured."""
        self._pids = tuple(pids)
        self._begin = time.perf_counter(), _busy(), self._own()

    def others(self) -> float | None:
        """How many processors were busy with other processes, on average; None where the system does not tell."""
        begin, busy, own = self._begin
        now = _busy()
        if busy is None or now is None:
            return None
        elapsed = max(time.perf_counter() - begin, 1e-3)
        return min(float(threads()), max(0.0, (now - busy - (self._own() - own)) / elapsed))

    def _own(self) -> float:
        return time.process_time() + sum(map(_used, self._pids))


def _busy() -> float | None:
    """Seconds that the processors this process may use have been busy."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        rows = [[int(word) for word in line.split()[1:9]] for line in lines if line.split()[0] in usable]
    except (OSError, AttributeError, ValueError):
        return None
    idle = (3, 4)  # idle and waiting for a disk
    return sum(sum(row) - sum(row[i] for i in idle) for row in rows) / os.sysconf("SC_CLK_TCK")


def _used(pid: int) -> float:
    """Seconds of processor that a process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
