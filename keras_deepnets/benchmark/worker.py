"""The process that builds one side and takes its steps when it is told to.

``python -m keras_deepnets.benchmark.worker`` reads a `Job` as JSON from its first line of stdin and answers with a line of JSON when
the side is built. Then it obeys, a line of JSON for a line of text:

* ``step``: takes one step, ``{"seconds": …}``;
* ``memory``: takes one step, ``{"activation_bytes": …, "activation_source": …}``;
* ``quit``: ``{"process_peak_bytes": …}``, and ends.

What goes wrong is answered too, ``{"error": …}`` or ``{"bad_input": …}``. Between commands it sleeps.
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

from keras_deepnets.benchmark.jobs import TORCH, Job
from keras_deepnets.benchmark.process_memory import lifetime_peak
from keras_deepnets.benchmark.side import Side


def build(job: Job) -> Side:
    """The side of a job; the framework is imported here."""
    if job.library in TORCH:
        from keras_deepnets.benchmark import torch_side

        return torch_side.build(job)
    from keras_deepnets.benchmark import keras_side

    return keras_side.build(job)


def serve(builder: Callable[[Job], Side] = build) -> int:
    """Obeys stdin until it ends or says ``quit``."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # frameworks print to stdout, which belongs to the answers
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
    """The lines of stdin as they come. When it ends the parent is gone, and so is this process, even in the middle of a step."""
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
    os._exit(status)  # nothing is left to tidy, and frameworks take seconds to
