"""The parent's side of a worker process. This module imports no framework."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from keras_deepnets.benchmark.jobs import TORCH, Job
from keras_deepnets.benchmark.load import busy_elsewhere
from keras_deepnets.errors import InputError

_COMMAND = (sys.executable, "-m", "keras_deepnets.benchmark.worker")
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "GRPC_VERBOSITY": "NONE",
    "TF_ENABLE_ONEDNN_OPTS": "1",  # for all sides, as in the other commands
    # Two processes share the GPU. By default, each framework would reserve all of its memory.
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
# PyTorch's threads spin for milliseconds while they wait for each other. If another process is busy, it may occupy the processor that
# the other thread needs. Then spinning makes a step ten times slower. On an idle machine, spinning is a little faster.
_WHERE_OTHERS_ARE_BUSY = {"GOMP_SPINCOUNT": "3000"}
_PATIENCE = 10.0  # seconds that a worker gets to exit by itself


class WorkerError(RuntimeError):
    """A worker could not do its job. The message is one line."""


class Worker:
    """A process that builds one side and runs its steps. Use it as a context manager, which always ends the process.

    Attributes:
        name: Name of the side for messages.
        facts: Facts that the worker sent after building its side.
    """

    def __init__(self, job: Job, name: str, command: Sequence[str] = _COMMAND):
        """Start the process and send the job, without waiting for an answer."""
        self.name = name
        self.facts: dict[str, Any] = {}
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        environment = _ENVIRONMENT | dict(os.environ)
        if job.threads is not None:
            environment |= dict.fromkeys(_THREADS, str(job.threads))
        if job.library in TORCH and busy_elsewhere():
            environment = _WHERE_OTHERS_ARE_BUSY | environment
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            bufsize=1,
            env=environment,
        )
        self._say(job.to_json())

    @property
    def pid(self) -> int:
        """ID of the process."""
        return self._process.pid

    def built(self) -> dict[str, Any]:
        """Wait until the side is built, and return its facts."""
        self.facts = self._answer()
        return self.facts

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command to the worker and return its answer."""
        self._say(command)
        return self._answer()

    def step(self) -> float:
        """Run one step and return its seconds."""
        return self.ask("step")["seconds"]

    def quit(self) -> dict[str, Any]:
        """End the worker and return its last answer."""
        answer = self.ask("quit")
        self.close()
        return answer

    def close(self) -> None:
        """End the process if it still runs."""
        with contextlib.suppress(OSError):  # the reader of buffered data may be gone
            self._process.stdin.close()  # type: ignore[union-attr]
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_PATIENCE)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._stderr.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        if kind is not None and self._process.poll() is None:
            self._process.kill()
        self.close()

    def _say(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # the process has died; `_answer` reports it
            self._process.stdin.write(f"{line}\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise WorkerError(self._obituary())
        answer = json.loads(line)
        if "bad_input" in answer:
            raise InputError(answer["bad_input"])
        if "error" in answer:
            raise WorkerError(f"{self.name}: {answer['error']}")
        return answer

    def _obituary(self) -> str:
        """How the process ended, and the last line of its stderr."""
        status = self._process.wait()
        how = f"ended with status {status}"
        if status < 0:
            how = f"was killed by {signal.Signals(-status).name}"
            if -status == signal.SIGKILL:
                how += ", as the system does when memory runs out"
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f"{self.name} {how}{f': {lines[-1].strip()}' if lines else ''}"
