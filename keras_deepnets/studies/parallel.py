"""Train several runs of a study at once, each in a separate process on its share of the processors.

In a step of a small network, processors wait for each other. On two x86 cores, two steps side by side took 0.6 to 0.9 of the
time that they take one after the other, each on both cores. Of a whole study it was 0.8.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from keras_deepnets import distribution, processor
from keras_deepnets.studies.definition import Study
from keras_deepnets.studies.plan import PlannedRun
from keras_deepnets.studies.results import Result

_COMMAND = (sys.executable, "-m", "keras_deepnets.studies.worker")
_MOST = 8
_MEMORY = 2.5e9
"""Bytes that a run of a short study needs, with room to spare. `ResNeXt` with 16 groups takes 1.7 GB."""
_SHORT, _LONG = 120.0, 6 * 3600.0
"""Seconds of training. The start of processes costs more than it saves below, and above the runs may need more than `_MEMORY`."""
_POLL = 0.2
_PATIENCE = 120.0
"""Seconds that a process gets to save its state."""


def automatic(seconds: float, waiting: int) -> int:
    """Return how many runs to train at once: 1 on a GPU, for a study of seconds, and for one of days.

    Args:
        seconds: Estimated time of all runs, one after the other.
        waiting: Number of runs to train.
    """
    if not _SHORT <= seconds <= _LONG or distribution.gpus():
        return 1
    return max(1, min(len(processor.usable()), waiting, int(_free_memory() / _MEMORY), _MOST))


def gain(jobs: int) -> float:
    """Return about how much faster the runs of a study end if `jobs` of them run at once. Measured for two only: 1.2."""
    return jobs**0.26


def together(
    study: Study, folder: Path, runs: Sequence[tuple[int, PlannedRun]], jobs: int, *, maps: bool, verbose: int = 0
) -> Generator[tuple[int, Result | Exception], None, None]:
    """Train runs, `jobs` of them at once. Yield the place and the result or the error of each, as they end.

    If the caller stops early, the states of the current runs are saved.

    Args:
        study: The study.
        folder: Its folder.
        runs: Place and plan of the runs.
        jobs: Number of processes.
        maps: As in `measuring.measure`.
        verbose: 0: do not print why the study ended.

    Raises:
        Preempted: SIGTERM or SIGUSR1 ended the study. The states of the current runs are saved.
    """
    from keras_deepnets.training.preemption import Preempted, Signals

    jobs = min(jobs, len(runs))
    if not jobs:
        return
    waiting, answers = deque(runs), queue.Queue[tuple[int, Any] | None]()
    workers = [_Worker((study, folder, maps, list(sys.argv), os.getpid(), cores)) for cores in _shares(jobs)]
    signals = Signals()
    with signals.noted():
        threads = [threading.Thread(target=worker.work, args=(waiting, answers), daemon=True) for worker in workers]
        try:
            for thread in threads:
                thread.start()
            ended = 0
            while ended < jobs:
                if signals.caught:
                    stop = Preempted(f"{signals.caught} ended the study. The states of its runs are saved.")
                    if verbose != 0:
                        print(stop, file=sys.stderr, flush=True)
                    raise stop
                with contextlib.suppress(queue.Empty):
                    answer = answers.get(timeout=_POLL)
                    if answer is None:
                        ended += 1
                    else:
                        yield answer
        finally:
            waiting.clear()
            for worker in workers:
                worker.stop()
            for thread in threads:
                thread.join(_PATIENCE)
            for worker in workers:
                worker.kill()


class _Worker:
    """A process that trains one run after the other, and the thread that talks to it."""

    def __init__(self, task: tuple[Any, ...]):
        self._task = task
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False
        self._lock = threading.Lock()

    def work(self, waiting: deque[tuple[int, PlannedRun]], answers: queue.Queue[tuple[int, Any] | None]) -> None:
        """Train waiting runs until there are none, and put the results into `answers`, and None at the end."""
        try:
            with tempfile.TemporaryFile() as messages:
                while not self._stopped:
                    try:
                        place, run = waiting.popleft()
                    except IndexError:
                        break
                    answers.put((place, self._train(run, messages)))
                self._end()
        finally:
            answers.put(None)

    def stop(self) -> None:
        """Let the process save the state of its run and end."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.terminate()

    def kill(self) -> None:
        """End the process, however it hangs."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _train(self, run: PlannedRun, messages: Any) -> Result | Exception:
        process = self._started(messages)
        if process is None:
            return RuntimeError("The study ended before this run.")
        try:
            pickle.dump(run, process.stdin)  # type: ignore[arg-type]
            process.stdin.flush()  # type: ignore[union-attr]
            return pickle.load(process.stdout)  # type: ignore[arg-type]
        except (EOFError, OSError, pickle.UnpicklingError):
            self._process = None
            _close(process)
            return RuntimeError(_obituary(process.wait(), messages))

    def _started(self, messages: Any) -> subprocess.Popen[bytes] | None:
        with self._lock:
            if self._process is None and not self._stopped:
                self._process = subprocess.Popen(
                    _COMMAND,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=messages,
                    env=_environment(len(self._task[-1])),
                    start_new_session=True,  # Ctrl-C reaches only this process, which then ends the others
                )
                with contextlib.suppress(BrokenPipeError):  # it has died; the answer is missing then
                    pickle.dump(self._task, self._process.stdin)  # type: ignore[arg-type]
            return self._process

    def _end(self) -> None:
        if self._process is not None:
            _close(self._process)
            self._process.wait()


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):  # the reader of buffered data may be gone
            pipe.close()  # type: ignore[union-attr]


def _obituary(status: int, messages: Any) -> str:
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    if status == -signal.SIGKILL:
        how += ", as the system does when memory runs out; --jobs 1 needs less"
    messages.seek(0)
    lines = messages.read().decode(errors="replace").strip().splitlines()
    return f"The process of the run {how}{f': {lines[-1].strip()}' if lines else '.'}"


def _environment(processors: int) -> dict[str, str]:
    found = {"TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    if not hasattr(os, "sched_setaffinity"):
        found |= dict.fromkeys(("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS"), str(processors))
    return found


def _shares(jobs: int) -> list[list[int]]:
    """Divide the processors among `jobs` processes. If there are too few, some processes share one."""
    all_of_them = processor.usable()
    if jobs >= len(all_of_them):
        return [[all_of_them[job % len(all_of_them)]] for job in range(jobs)]
    bounds = [job * len(all_of_them) // jobs for job in range(jobs + 1)]
    return [all_of_them[first:last] for first, last in itertools.pairwise(bounds)]


def _free_memory() -> float:
    """Return the free memory in bytes; infinite if the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return float("inf")
