"""Callbacks for training. Each one also works on its own in a plain `model.fit`.

Callbacks that read single batches set `async_safe`. Keras then calls them from a separate thread with the metrics as
Python floats. The training loop does not wait for the device after each step.
"""

from __future__ import annotations

import csv
import math
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.files import written_aside
from keras_deepnets.insight.grid import MOST, image_grid
from keras_deepnets.training import feed
from keras_deepnets.training.errors import DivergedError
from keras_deepnets.training.optimizers import last_learning_rate, steps_done


class StopAtStep(keras.callbacks.Callback):
    """End a run after a number of optimizer steps, even in the middle of an epoch.

    Args:
        step: Number of steps of the run, including those before a resume.
        steps_per_epoch: Steps of a full epoch.
        first_epoch: Epoch that contains the first of these steps.
        done: Steps of the epoch that this process starts with that an earlier process did. That epoch ends early.
    """

    def __init__(self, step: int, steps_per_epoch: int, first_epoch: int = 0, done: int = 0):
        super().__init__()
        epochs, self._last_batch = divmod(step - 1, steps_per_epoch)
        self._last_epoch, self._per_epoch = first_epoch + epochs, steps_per_epoch
        self._epoch, self._done, self._cut = 0, done, False

    def on_epoch_begin(self, epoch, logs=None):
        """Store the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Request the end before the last step.

        Keras checks the request after each step, and it never defers this call.
        """
        batch += self._done
        if (self._epoch, batch) >= (self._last_epoch, self._last_batch):
            self.model.stop_training = True
        elif self._done and batch == self._per_epoch - 1:
            self._cut = self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        """Continue after the epoch that ended early. Callbacks that follow may still end the run."""
        self._done = 0
        if self._cut:
            self._cut = self.model.stop_training = False


class StopOnNonFinite(keras.callbacks.Callback):
    """Raise `DivergedError` as soon as the mean loss of an epoch is NaN or infinite.

    At the end of an epoch, the validation loss, the weights, the moving statistics and the optimizer's variables are
    checked too. The last step may have broken them without a trace in the loss. Place this callback before those that
    write checkpoints.

    Args:
        advice: End of the error message, e.g. which checkpoint is good.
    """

    async_safe = True

    def __init__(self, advice: Callable[[], str] | str = ""):
        super().__init__()
        self._advice, self._epoch = advice, 0

    def on_epoch_begin(self, epoch, logs=None):
        """Store the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        """Check the running mean of the loss."""
        self._check("loss", logs, f"epoch {self._epoch + 1}, step {batch + 1}")

    def on_epoch_end(self, epoch, logs=None):
        """Check the mean losses of the epoch and every variable."""
        self._check("loss", logs, f"epoch {epoch + 1}")
        self._check("val_loss", logs, f"epoch {epoch + 1}")
        if spoilt := not_finite([*self.model.weights, *self.model.optimizer.variables]):
            self._stop(f"{spoilt} is not finite after epoch {epoch + 1}")

    def _check(self, name: str, logs: dict[str, float] | None, where: str) -> None:
        loss = (logs or {}).get(name, 0.0)
        if not math.isfinite(loss):
            words = {"loss": "The loss", "val_loss": "The validation loss"}[name]
            self._stop(f"{words} became {loss} in {where}")

    def _stop(self, what: str) -> None:
        advice = self._advice() if callable(self._advice) else self._advice
        raise DivergedError(what, advice)


def not_finite(variables: Sequence[Any]) -> str | None:
    """Return the path of the first variable that contains NaN or an infinity; None if there is none."""
    numbers = [variable for variable in variables if "float" in keras.backend.standardize_dtype(variable.dtype)]
    if not numbers:
        return None
    # One result for all variables, so the host waits for the device once.
    finite = keras.ops.convert_to_numpy(
        keras.ops.stack([keras.ops.all(keras.ops.isfinite(variable)) for variable in numbers])
    )
    return None if finite.all() else numbers[int(finite.argmin())].path


class MetricsFile(keras.callbacks.Callback):
    """Record the metrics of each epoch in a list and in a CSV file that is complete at any moment.

    The columns are `epoch`, `step` (optimizer steps so far), `learning_rate` (of the epoch's last step), `seconds` and
    `images_per_second` (of training, without validation). The metrics that Keras logs follow.

    Args:
        path: Path of the CSV file. `None`: only the list.
        history: Rows of earlier epochs. The list is extended in place.
        batch_size: Images per step.
        first_step: Steps of earlier phases of the run, which the optimizer does not count.
        more: Additional columns with the same values in each row.
        done: Steps of the first epoch that an earlier process did, and the seconds that they took.
    """

    def __init__(
        self,
        path: str | Path | None,
        history: list[dict[str, float]],
        batch_size: int,
        first_step: int = 0,
        more: dict[str, float] | None = None,
        done: tuple[int, float] = (0, 0.0),
    ):
        super().__init__()
        self._done = done
        self._path = None if path is None else Path(path)
        self._history, self._batch_size = history, batch_size
        self._first_step, self._more = first_step, dict(more or {})
        self._begin = self._seconds = 0.0
        self._batches = 0

    def on_train_begin(self, logs=None):
        """Make the file agree with the history.

        A killed process may have written the file but not the checkpoint.
        """
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        self._write()

    def on_epoch_begin(self, epoch, logs=None):
        """Start the timer."""
        self._begin, self._seconds, self._batches = time.perf_counter() - self._done[1], 0.0, self._done[0]

    def on_train_batch_begin(self, batch, logs=None):
        """Count the steps, including those that loss scaling skips."""
        self._batches = self._done[0] + batch + 1

    def on_test_begin(self, logs=None):
        """Stop the timer, because validation follows."""
        self._seconds = self._seconds or time.perf_counter() - self._begin

    def on_epoch_end(self, epoch, logs=None):
        """Add the row of the epoch."""
        seconds = self._seconds or time.perf_counter() - self._begin
        row = {
            "epoch": epoch + 1,
            **self._more,
            "step": self._first_step + steps_done(self.model.optimizer),
            "learning_rate": last_learning_rate(self.model.optimizer),
            "seconds": round(seconds, 3),
            "images_per_second": round(self._batches * self._batch_size / max(seconds, 1e-9), 1),
        }
        self._history.append(row | {name: float(value) for name, value in (logs or {}).items()})
        self._done = (0, 0.0)
        self._write()

    def _write(self) -> None:
        if self._path is None:
            return
        if not self._history:
            self._path.unlink(missing_ok=True)
            return
        with written_aside(self._path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
            names = dict.fromkeys(name for row in self._history for name in row)
            writer = csv.DictWriter(file, list(names))
            writer.writeheader()
            writer.writerows(self._history)


class TensorBoardScalars(keras.callbacks.Callback):
    """Write the metrics of each epoch for TensorBoard, to `train` and `validation` under `folder`.

    Keras' own `TensorBoard` also reads every batch, so the training loop waits for the device.

    Args:
        folder: TensorBoard's `--logdir`.
        history: Rows that `MetricsFile` extends. That callback must come first.
    """

    def __init__(self, folder: str | Path, history: list[dict[str, float]]):
        super().__init__()
        self._folder, self._history = Path(folder), history
        self._writers: dict[str, Any] = {}

    def on_epoch_end(self, epoch, logs=None):
        """Write the newest row."""
        import tensorflow as tf

        row = self._history[-1]
        for name, value in row.items():
            if name in ("epoch", "phase", "seconds"):
                continue
            part, name = ("validation", name[4:]) if name.startswith("val_") else ("train", name)
            if part not in self._writers:
                self._writers[part] = tf.summary.create_file_writer(str(self._folder / part))
            with self._writers[part].as_default(step=int(row["step"])):
                tf.summary.scalar(name, value)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        """Close the files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


class InputGrid(keras.callbacks.Callback):
    """Draw the first images of a batch with their classes in one picture when training begins.

    The images are cropped and augmented as for training, without the network's input scaling; see
    `keras_deepnets.insight.image_grid`.

    Args:
        batches: Pipeline of (images, labels) or (images, labels, weights), as for `fit`. Pass a separate pipeline,
            because a batch is taken from it.
        labels: Class names.
        path: Path of the PNG file.
        folder: TensorBoard's `--logdir`. The picture is written to `train` under it as `inputs`, step 0. `None`: only
            the PNG.
    """

    def __init__(self, batches: Any, labels: Sequence[str], path: str | Path, folder: str | Path | None = None):
        super().__init__()
        self._batches, self._labels = batches, labels
        self._path, self._folder = Path(path), Path(folder) if folder else None

    def on_train_begin(self, logs=None):
        """Take a batch and draw the picture."""
        import tensorflow as tf

        images, targets, *_ = next(self._batches.take(1).as_numpy_iterator())
        images, names = images[:MOST], [self._name(target) for target in targets[:MOST]]
        grid = image_grid(feed.pixels(self.model, images), names)
        if self._folder:
            writer = tf.summary.create_file_writer(str(self._folder / "train"))
            with writer.as_default(step=0):
                tf.summary.image("inputs", grid[np.newaxis])
            writer.close()
        with written_aside(self._path) as aside:
            aside.write_bytes(tf.io.encode_png(grid).numpy())

    def _name(self, target: np.ndarray) -> str:
        """Return the class name of a target.

        For a distribution, these are the classes with a share of at least a tenth, the largest first.
        """
        if target.ndim == 0:
            return self._labels[int(target)]
        ranked = np.argsort(-target, kind="stable")
        return " + ".join(self._labels[int(at)] for at in ranked if at == ranked[0] or target[at] >= 0.1)


class Profile(keras.callbacks.Callback):
    """Record some steps for TensorBoard's profile plugin, in `plugins/profile/steps-FIRST-LAST/` under `folder`.

    The first step of a fit compiles; later steps show the training speed. A resumed run records the requested steps
    that are still to come. A run that an error ends leaves no record.

    Args:
        folder: TensorBoard's `--logdir`.
        first: First step to record, counted from 1 over the whole run.
        last: Last step to record.
        steps_per_epoch: Steps of a full epoch.

    Raises:
        InputError: The steps are not a range, or the Keras backend is not TensorFlow.
    """

    def __init__(self, folder: str | Path, first: int, last: int, steps_per_epoch: int):
        super().__init__()
        check_profile((first, last))
        self._folder, self._first, self._last, self._steps_per_epoch = Path(folder), first, last, steps_per_epoch
        self._epoch = self._step = 0
        self._begun: int | None = None  # the first step of the current recording
        self._session: tempfile.TemporaryDirectory | None = None
        self._mark: Any = None

    def on_train_begin(self, logs=None):
        """Load the profiler, which takes a while, before the recording starts."""
        import tensorflow as tf

        try:
            tf.profiler.experimental.start("")
        except tf.errors.AlreadyExistsError:
            raise InputError("profile: another profiler is running. Stop it, or omit profile.") from None
        tf.profiler.experimental.stop(save=False)

    def on_epoch_begin(self, epoch, logs=None):
        """Store the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch, logs=None):
        """Start and stop the recording, and mark the step in it.

        Keras never defers this call to another thread.
        """
        import tensorflow as tf

        self._end_if_due()
        self._step = self._epoch * self._steps_per_epoch + batch + 1
        if self._begun is None and self._first <= self._step <= self._last:
            self._wait()
            self._session = tempfile.TemporaryDirectory(prefix="profile-")
            tf.profiler.experimental.start(self._session.name)
            self._begun = self._step
        if self._begun is not None:
            self._unmark()
            self._mark = tf.profiler.experimental.Trace("train", step_num=self._step, _r=1)
            self._mark.__enter__()

    def on_test_begin(self, logs=None):
        """End the last step of the epoch, and the recording if that was its last step, because validation follows."""
        self._unmark()
        self._end_if_due()

    def on_epoch_end(self, epoch, logs=None):
        """End the last step of the epoch if there was no validation."""
        self._unmark()
        self._end_if_due()

    def on_train_end(self, logs=None):
        """End the recording, even if the run stopped before its last step."""
        self._end_if_due(early=True)

    def close(self) -> None:
        """Discard a recording that an error interrupted."""
        import tensorflow as tf

        if self._begun is not None:
            assert self._session is not None  # a recording that has begun has a session
            self._begun = None
            self._unmark()
            tf.profiler.experimental.stop(save=False)
            self._session.cleanup()

    def _end_if_due(self, early: bool = False) -> None:
        import tensorflow as tf

        if self._begun is None or not (early or self._step >= self._last):
            return
        assert self._session is not None  # a recording that has begun has a session
        self._wait()
        self._unmark()
        path = self._folder / "plugins" / "profile" / f"steps-{self._begun}-{self._step}"
        self._begun = None
        with self._session as session:
            tf.profiler.experimental.stop()
            path.parent.mkdir(parents=True, exist_ok=True)
            with written_aside(path) as aside:
                shutil.copytree(next(Path(session).glob("plugins/profile/*")), aside)

    def _unmark(self) -> None:
        if self._mark is not None:
            self._mark.__exit__(None, None, None)
            self._mark = None

    def _wait(self) -> None:
        """Wait until the device has done the steps so far. Keras continues when they are only queued."""
        keras.ops.convert_to_numpy(self.model.trainable_variables[-1])


def check_profile(profile: Any, steps: int | None = None) -> None:
    """Raise `InputError` unless `profile` is the first and last of some steps of a run with `steps` steps."""
    whole = isinstance(profile, (tuple, list)) and [type(step) for step in profile] == [int, int]
    if not whole or not 1 <= profile[0] <= profile[1]:
        raise InputError(f"profile={profile!r} must be the first and the last step, counted from 1, e.g. (10, 15).")
    if steps is not None and profile[1] > steps:
        raise InputError(f"profile={tuple(profile)}: the run has {steps:,} steps. Choose steps among them.")
    if keras.config.backend() != "tensorflow":
        raise InputError(
            f"profile={tuple(profile)} needs Keras on TensorFlow, and it runs on {keras.config.backend()}."
        )


class PlateauRate(keras.callbacks.Callback):
    """Multiply the learning rate by `drop` when the error has not fallen for `patience` epochs.

    See He et al. 2015, section 3.4. The rate depends only on the history, so a resumed run has the same rates.

    Args:
        learning_rate: Initial learning rate.
        drop: Factor by which the rate drops.
        patience: Epochs without a lower error before a drop.
        history: Rows that `MetricsFile` extends. That callback must come first.
    """

    def __init__(self, learning_rate: float, drop: float, patience: int, history: list[dict[str, float]]):
        super().__init__()
        self._first, self._drop, self._patience, self._history = learning_rate, drop, patience, history

    def on_epoch_begin(self, epoch, logs=None):
        """Set the learning rate of the epoch."""
        errors = [1.0 - row.get("val_accuracy", row["accuracy"]) for row in self._history]
        self.model.optimizer.learning_rate = self._first * self._drop ** plateaus(errors, self._patience)


def plateaus(errors: list[float], patience: int) -> int:
    """Count how often `errors`, one per epoch, went `patience` epochs without a new minimum.

    The count of epochs starts again after each time.
    """
    count, waited, best = 0, 0, math.inf
    for error in errors:
        waited = 0 if error < best else waited + 1
        best = min(best, error)
        if waited >= patience:
            count, waited = count + 1, 0
    return count
