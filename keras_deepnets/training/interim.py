"""Checkpoints inside an epoch: by time or steps, and when a signal ends the run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import keras
import numpy as np

from keras_deepnets.distribution import Group
from keras_deepnets.errors import InputError
from keras_deepnets.training import durations
from keras_deepnets.training.checkpoints import CheckpointStore, State
from keras_deepnets.training.optimizers import steps_done
from keras_deepnets.training.preemption import Preempted, Signals
from keras_deepnets.training.sharing import sum_metrics

DEFAULT = "10 minutes"
"""How often the state is saved inside an epoch unless the caller says otherwise."""
_PULSE = 1.0
"""Seconds between two questions to the other workers whether to stop or save."""


def interval(text: str) -> tuple[int | None, float | None]:
    """Read `"500 steps"` or `"10 minutes"`. Return steps or seconds; the other one is None.

    Raises:
        InputError: The text has another form.
    """
    steps = re.fullmatch(r"\s*(\d+)\s*steps?\s*", str(text))
    if steps and int(steps[1]):
        return int(steps[1]), None
    if not (time_between := durations.seconds(str(text))):
        raise InputError(
            f"checkpoint_every={text!r}: give a number of steps or minutes, e.g. '500 steps' or '10 minutes'."
        )
    return None, time_between


class InterimCheckpoint(keras.callbacks.Callback):
    """Save the state inside an epoch, and end the run after a signal. All workers do both at the same step.

    Args:
        store: Store that writes the checkpoints.
        history: Rows of the epochs so far.
        group: The workers. Only the chief writes.
        signals: Signals that the process got.
        every: Interval between checkpoints, as `interval` reads it.
        resumed: State in the middle of an epoch that this process starts from; None after a whole epoch.
        prepare: Called before a state is saved, on all workers.
        at_epoch: Called to save the state between two epochs.
        inside: Whether a run can resume in the middle of the epoch. Otherwise a signal ends the run after it.
    """

    def __init__(
        self,
        store: CheckpointStore,
        history: list[dict[str, float]],
        group: Group,
        signals: Signals,
        every: str,
        resumed: State | None,
        prepare: Callable[[], None],
        at_epoch: Callable[[], None],
        inside: bool = True,
    ):
        super().__init__()
        self._store, self._history, self._group, self._signals = store, history, group, signals
        self._steps, self._seconds = interval(every)
        self._resumed, self._prepare, self._at_epoch, self._inside = resumed, prepare, at_epoch, inside
        self._batch = self._since = self._quiet = 0
        self._begin = self._saved = time.monotonic()

    def on_epoch_begin(self, epoch, logs=None):
        """Restore the metrics of an epoch that an earlier process began. Keras has just reset them."""
        self._batch, self._begin = 0, time.monotonic()
        self._saved, self._since = self._begin, 0  # the state after the last epoch is saved
        if self._resumed is not None:
            self._batch, self._begin = self._resumed.batch, self._begin - self._resumed.seconds
            if self._group.is_chief or self._group.one_program:
                values = self._known_to_all(self._resumed.metrics)
                for variable, value in zip(self.model.metrics_variables, values, strict=True):
                    variable.assign(value)
            self._resumed = None

    def _known_to_all(self, metrics: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """The metrics' values, which only the chief has read. All workers of one program need them."""
        if not self._group.one_program:
            return metrics
        nothing = [np.zeros(tuple(each.shape), each.dtype) for each in self.model.metrics_variables]
        return self._group.sum(metrics or nothing)

    def on_train_batch_begin(self, batch, logs=None):
        """Save the state before a step if it is time, and end the run if a signal came. Keras never defers this call."""
        done, self._batch, self._since = self._batch, self._batch + 1, self._since + 1
        save, stop = self._decision()
        if stop:
            self._end(done)
        if save and done and self._inside:
            self._save(done)

    def _decision(self) -> tuple[bool, str | None]:
        """Return whether to save, and the signal that ends the run. All workers decide alike."""
        in_steps = self._steps is not None and self._since > self._steps
        due = self._seconds is not None and time.monotonic() - self._saved >= self._seconds
        if self._group.size == 1:
            return in_steps or due, self._signals.caught
        if self._quiet > 0:
            self._quiet -= 1
            return in_steps, None
        # The chief's clock decides. Its pace also tells when to ask again.
        pace = (time.monotonic() - self._begin) / max(self._batch - 1, 1)
        quiet = int(np.clip(_PULSE / max(pace, 1e-6), 1, 100)) - 1 if self._batch > 2 else 0
        chief = self._group.is_chief
        own = np.array([self._signals.caught is not None, chief and due, quiet if chief else 0], np.int32)
        stops, saves, self._quiet = (int(each) for each in np.asarray(self._group.sum([own])[0]))
        return bool(saves) or in_steps, (self._signals.caught or "A signal to another worker") if stops else None

    def _end(self, done: int) -> None:
        epoch = len(self._history)
        if done and not self._inside:
            return
        if done:
            self._save(done)
        else:
            self._at_epoch()
        self._group.gather("saved")  # a scheduler may kill all workers as soon as one has ended
        where = f"epoch {epoch + 1}, step {done}" if done else f"epoch {epoch}"
        name = self._signals.caught or "A signal to another worker"
        raise Preempted(f"{name} ended the run after {where}. The state is saved, and the same call resumes it.")

    def _save(self, done: int) -> None:
        self._prepare()
        begin = time.monotonic()
        variables = self.model.metrics_variables
        kept = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
        if not self._group.one_program:
            sum_metrics(self.model, self._group)
        metrics = tuple(np.array(keras.ops.convert_to_numpy(variable)) for variable in variables)
        for variable, value in zip(variables, kept, strict=True):
            variable.assign(value)
        if self._group.is_chief:
            step = steps_done(self.model.optimizer)
            self._store.save(
                self.model, State(len(self._history), step, list(self._history), done, begin - self._begin, metrics)
            )
        self._saved, self._since = time.monotonic(), 1  # the step that begins now
