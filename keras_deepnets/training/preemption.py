"""Signals that end a run: a scheduler takes the machine away, and the run saves its state first."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Kubernetes and spot machines send SIGTERM. Slurm sends SIGUSR1 if the job asks for it (`--signal=USR1@120`)."""


class Preempted(SystemExit):
    """A signal ended the program. The state is saved, or the run is finished. A program that does not catch it exits with status 143."""

    def __init__(self, message: str):
        super().__init__(143)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Signals:
    """The signals that this process got.

    Attributes:
        caught: Name of the first signal, e.g. `"SIGTERM"`. None if there was none.
    """

    def __init__(self) -> None:
        self.caught: str | None = None

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """A scope in which the signals are noted. Outside the main thread, they keep their effect.

        Raises:
            Preempted: A signal came after the last step. The scope's work is done, but the program must end.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler or signal.SIG_DFL)
        if self.caught:  # otherwise a program that trains several networks would begin the next one
            raise Preempted(
                f"{self.caught} came after the last step. The run is finished, and the same call returns it."
            )

    def _note(self, number: int, frame: Any) -> None:
        if self.caught is None:
            self.caught = signal.Signals(number).name
            print(f"{self.caught}: the state is saved after this step.", file=sys.stderr, flush=True)
