"""The process that trains runs of a study for `parallel`: `python -m keras_deepnets.studies.worker`.

It reads a task and then runs from standard input, and writes a result or an error for each, all pickled.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_deepnets.studies.results import Result

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG in linux/prctl.h


def main() -> None:
    """Train the runs that the parent sends, until it closes the pipe."""
    tasks = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    # A run records `sys.argv` as its command, which is that of the study.
    study, folder, maps, sys.argv, parent, processors = pickle.load(tasks)
    _prepare(parent, processors)
    from keras_deepnets.studies import runner

    sets = runner.load_sets(study)
    while True:
        try:
            run = pickle.load(tasks)
        except EOFError:
            return
        answer: Result | Exception
        try:
            answer = runner.attempt(run, folder, sets, maps=maps)
        except Exception as error:
            answer = _plain(error)
        pickle.dump(answer, answers)
        answers.flush()


def _prepare(parent: int, processors: Sequence[int]) -> None:
    """Use only some processors, and end when the parent does. Then the state of the run is saved, as with any SIGTERM."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:
            sys.exit(1)


def _plain(error: Exception) -> Exception:
    """Return an error that can be pickled, with the same message."""
    from keras_deepnets.training.errors import is_disk_full

    text = " ".join(str(error).split()) or type(error).__name__
    return OSError(errno.ENOSPC, text) if is_disk_full(error) else RuntimeError(text)


if __name__ == "__main__":
    main()
