"""How a run shows itself: a live line on a terminal, one plain line an epoch elsewhere, or nothing."""

from __future__ import annotations

import threading
import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from keras_deepnets.training.callbacks import last_learning_rate


def progress_callback(
    verbose: str | int,
    total_steps: int,
    batch_size: int,
    history: list[dict[str, float]],
    console: Console | None = None,
) -> keras.callbacks.Callback | None:
    """The callback for Keras' `verbose`: 0 none, 1 a bar, 2 a line an epoch, `"auto"` a bar on a terminal and else lines."""
    console = console or Console()
    if verbose == "auto":
        verbose = 1 if console.is_terminal else 2
    if not int(verbose):
        return None
    kind = Bar if int(verbose) == 1 else EpochLines
    return kind(console, total_steps, batch_size, history)


class EpochLines(keras.callbacks.Callback):
    """Prints one line an epoch.

    Args:
        console: where to.
        total_steps: optimiser steps of the whole run.
        batch_size: images a step.
        history: the rows that `MetricsFile` extends, which must come before.
    """

    def __init__(self, console: Console, total_steps: int, batch_size: int, history: list[dict[str, float]]):
        super().__init__()
        self.console, self.total_steps, self.batch_size, self.history = console, total_steps, batch_size, history

    def on_epoch_end(self, epoch, logs=None):
        """Prints the epoch's numbers."""
        line = epoch_line(self.history[-1], self.params.get("epochs", epoch + 1))
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)


class Bar(EpochLines):
    """A live bar: epoch, step, images a second, loss, accuracy, learning rate, time left; an epoch's line stays above it."""

    async_safe = True

    def __init__(self, console: Console, total_steps: int, batch_size: int, history: list[dict[str, float]]):
        super().__init__(console, total_steps, batch_size, history)
        self._bar: Progress | None = None
        self._task: Any = None
        self._lock = threading.Lock()
        self._recent = _Rate()
        self._epoch = self._done = self._shown = 0
        self._rate = self._rate_read = self._moved = 0.0

    def on_train_begin(self, logs=None):
        """Opens the bar, at the step where a resumed run stands."""
        self._done = int(self.history[-1]["step"]) if self.history else 0
        columns = (
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            _Speed(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        self._bar = Progress(*columns, console=self.console, refresh_per_second=4, expand=True)
        self._task = self._bar.add_task(
            "preparing", total=self.total_steps, completed=self._done, numbers="", speed=None
        )
        self._bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        """Names the epoch."""
        self._epoch, self._shown = epoch, 0
        self._recent.clear()
        self._update(
            description=f"epoch {epoch + 1}/{self.params.get('epochs', '?')}", numbers="" if epoch else "compiling"
        )
        self._bar.refresh()  # the first step of all may take minutes, or less than the bar's own period

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar; called from another thread, and perhaps out of order."""
        logs = logs or {}
        with self._lock:
            if batch + 1 <= self._shown:
                return
            self._done += batch + 1 - self._shown
            self._shown = batch + 1
            now = time.monotonic()
            if now - self._moved < 0.1 and self._done < self.total_steps:
                return
            self._moved = now
            speed = self._recent.add(self._shown * self.batch_size)
            if now - self._rate_read > 1:  # reading it waits for the device
                self._rate, self._rate_read = last_learning_rate(self.model.optimizer), now
        numbers = [f"{name} {logs[name]:.4f}" for name in ("loss", "accuracy") if name in logs]
        self._update(completed=self._done, numbers="  ".join([*numbers, f"lr {self._rate:.3g}"]), speed=speed)

    def on_test_begin(self, logs=None):
        """Says that the images seen now are not trained on."""
        self._update(description=f"epoch {self._epoch + 1}, validating")

    def on_epoch_end(self, epoch, logs=None):
        """Leaves the epoch's line above the bar."""
        super().on_epoch_end(epoch, logs)
        self._done = int(self.history[-1]["step"])
        self._update(completed=self._done)

    def on_train_end(self, logs=None):
        """Closes the bar."""
        self._update(description="trained", completed=self._done)
        self.close()

    def close(self) -> None:
        """Closes the bar, after an error too."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _update(self, **fields: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, **fields)


class _Speed(ProgressColumn):
    """Images a second of the last few seconds."""

    def render(self, task: Any) -> Text:
        speed = task.fields.get("speed")
        return Text(f"{speed:,.0f} img/s" if speed else "", style="progress.data.speed")


class _Rate:
    """A count's growth a second over a sliding window of ten seconds."""

    def __init__(self):
        self._points: list[tuple[float, float]] = []

    def clear(self) -> None:
        self._points = []

    def add(self, count: float) -> float | None:
        now = time.perf_counter()
        self._points = [point for point in self._points if now - point[0] < 10] + [(now, count)]
        (begin, first), (end, last) = self._points[0], self._points[-1]
        return (last - first) / (end - begin) if end > begin else None


def epoch_line(row: dict[str, float], epochs: int | str) -> str:
    """An epoch's numbers as one line of text."""
    parts = [f"epoch {int(row['epoch']):>{len(str(epochs))}}/{epochs}"]
    for name, form in (("loss", ".4f"), ("accuracy", ".4f"), ("val_loss", ".4f"), ("val_accuracy", ".4f")):
        if name in row:
            parts.append(f"{name} {row[name]:{form}}")
    parts += [f"lr {row['learning_rate']:.3g}", f"{row['images_per_second']:,.0f} img/s", f"{row['seconds']:.1f} s"]
    return "  ".join(parts)
