"""The process that builds one side and runs its steps on command.

``python -m keras_deepnets.benchmark.worker`` reads a `Job` as JSON from the first line of stdin. It answers with one line of JSON when
the side is built. Then it answers each command, a line of text, with one line of JSON:

* ``step``: run one step, ``{"seconds": …}``.
* ``memory``: run one step, ``{"activation_bytes": …, "activation_source": …}``.
* ``quit``: answer ``{"process_peak_bytes": …}`` and exit.

The answer to an error is ``{"error": …}`` or ``{"bad_input": …}``. The process sleeps between commands.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from keras_deepnets.benchmark.jobs import ENGINES, TORCH, Job
from keras_deepnets.benchmark.process_memory import lifetime_peak
from keras_deepnets.benchmark.side import Side


def build(job: Job) -> Side:
    """Import the framework and build the side of a job."""
    if job.library in TORCH:
        from keras_deepnets.benchmark import torch_side

        return torch_side.build(job)
    if job.library in ENGINES:
        from keras_deepnets.benchmark import engine_side

        return engine_side.build(job)
    from keras_deepnets.benchmark import keras_side

    return keras_side.build(job)


def serve(builder: Callable[[Job], Side] = build) -> int:
    """Answer commands from stdin until it ends or ``quit`` arrives."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # frameworks print to stdout, which is reserved for answers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    commands = _commands()

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        side = builder(Job.from_json(commands.get()))
        answer(**side.facts)
        while (command := commands.get()) != "quit":
            if command == "step":
                start = time.perf_counter()
                side.step()
                answer(seconds=time.perf_counter() - start)
            elif command == "memory":
                answer(activation_bytes=side.meter.measure(side.step), activation_source=side.meter.source)
            else:
                answer(error=f"no such command: {command!r}")
        answer(process_peak_bytes=lifetime_peak())
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        if type(error).__name__ == "InputError":
            answer(bad_input=text)
        else:
            answer(error=f"{type(error).__name__}: {text}")
            raise
    return 0


def _commands() -> queue.SimpleQueue[str]:
    """A queue of the lines of stdin. When stdin ends, the parent is gone, and this process exits even during a step."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line.strip())
        os._exit(1)

    threading.Thread(target=read, daemon=True).start()
    return lines


if __name__ == "__main__":
    status = serve()
    sys.stderr.flush()
    os._exit(status)  # nothing needs cleanup, and frameworks take seconds to shut down
