"""Progress output of a run: a live bar on a terminal, one line per epoch elsewhere, or nothing."""

from __future__ import annotations

import threading
import time
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from keras_deepnets.training.optimizers import last_learning_rate


def progress_callback(
    verbose: str | int,
    total_steps: int,
    batch_size: int,
    history: list[dict[str, float]],
    console: Console | None = None,
) -> keras.callbacks.Callback | None:
    """Return the callback for Keras' `verbose`.

    0: no callback, 1: a bar, 2: one line per epoch, `"auto"`: a bar on a terminal and lines elsewhere.
    """
    terminal = console or Console()
    if verbose == "auto":
        verbose = 1 if terminal.is_terminal else 2
    if not int(verbose):
        return None
    kind = Bar if int(verbose) == 1 else EpochLines
    return kind(terminal, total_steps, batch_size, history)


class EpochLines(keras.callbacks.Callback):
    """Print one line per epoch.

    Args:
        console: Console to print to.
        total_steps: Optimizer steps of the whole run.
        batch_size: Images per step.
        history: Rows that `MetricsFile` extends. That callback must come first.
    """

    def __init__(self, console: Console, total_steps: int, batch_size: int, history: list[dict[str, float]]):
        super().__init__()
        self.console, self.total_steps, self.batch_size, self.history = console, total_steps, batch_size, history

    def on_epoch_end(self, epoch, logs=None):
        """Print the metrics of the epoch."""
        line = epoch_line(self.history[-1], self.params.get("epochs", epoch + 1))
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)


class Bar(EpochLines):
    """Show a live progress bar, and print one line per epoch above it.

    The bar shows the epoch, step, images per second, loss, accuracy, learning rate and remaining time.
    """

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
        """Open the bar at the first step of this process, which may be a resumed run."""
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
        self._bar = bar = Progress(*columns, console=self.console, refresh_per_second=4, expand=True)
        self._task = bar.add_task("preparing", total=self.total_steps, completed=self._done, numbers="", speed=None)
        bar.start()

    def on_epoch_begin(self, epoch, logs=None):
        """Show the epoch."""
        self._epoch, self._shown = epoch, 0
        self._recent.clear()
        self._update(
            description=f"epoch {epoch + 1}/{self.params.get('epochs', '?')}", numbers="" if epoch else "compiling"
        )
        if self._bar is not None:
            self._bar.refresh()  # the first step may take minutes, or less than the refresh period of the bar

    def on_train_batch_end(self, batch, logs=None):
        """Advance the bar. Keras calls this from another thread, and perhaps out of order."""
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
            if now - self._rate_read > 1:  # reading the rate waits for the device
                self._rate, self._rate_read = last_learning_rate(self.model.optimizer), now
        numbers = [f"{name} {logs[name]:.4f}" for name in ("loss", "accuracy") if name in logs]
        self._update(completed=self._done, numbers="  ".join([*numbers, f"lr {self._rate:.3g}"]), speed=speed)

    def on_test_begin(self, logs=None):
        """Show that validation is running."""
        self._update(description=f"epoch {self._epoch + 1}, validating")

    def on_epoch_end(self, epoch, logs=None):
        """Print the line of the epoch above the bar."""
        super().on_epoch_end(epoch, logs)
        self._done = int(self.history[-1]["step"])
        self._update(completed=self._done)

    def on_train_end(self, logs=None):
        """Close the bar."""
        self._update(description="trained", completed=self._done)
        self.close()

    def close(self) -> None:
        """Close the bar, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _update(self, **fields: Any) -> None:
        if self._bar is not None:
            self._bar.update(self._task, **fields)


class _Speed(ProgressColumn):
    """Images per second over the last few seconds."""

    def render(self, task: Any) -> Text:
        speed = task.fields.get("speed")
        return Text(f"{speed:,.0f} img/s" if speed else "", style="progress.data.speed")


class _Rate:
    """Growth of a count per second over a sliding window of ten seconds."""

    def __init__(self) -> None:
        self._points: list[tuple[float, float]] = []

    def clear(self) -> None:
        self._points = []

    def add(self, count: float) -> float | None:
        now = time.perf_counter()
        self._points = [point for point in self._points if now - point[0] < 10] + [(now, count)]
        (begin, first), (end, last) = self._points[0], self._points[-1]
        return (last - first) / (end - begin) if end > begin else None


_SHOWN = tuple((name, ".4f") for name in ("loss", "accuracy", "val_loss", "val_accuracy", "val_ap", "val_ap50"))
"""Metrics in an epoch's line, with their formats."""


def epoch_line(row: dict[str, float], epochs: int | str) -> str:
    """Format the metrics of an epoch as one line of text."""
    parts = [f"epoch {int(row['epoch']):>{len(str(epochs))}}/{epochs}"]
    for name, form in _SHOWN:
        if name in row:
            parts.append(f"{name} {row[name]:{form}}")
    parts += [
        f"lr {row['learning_rate']:.3g}",
        f"{row['images_per_second']:,.{0 if row['images_per_second'] >= 10 else 1}f} img/s",
        f"{row['seconds']:.1f} s",
    ]
    return "  ".join(parts)
