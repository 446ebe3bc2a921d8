"""Checks on the metrics of a run: the best epoch, early stopping, and warnings when something goes wrong."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import safetensors.numpy

from keras_deepnets.files import written_aside
from keras_deepnets.training.averaging import running_averages
from keras_deepnets.training.choosing import Rows, best_epoch, stalled

if TYPE_CHECKING:
    from keras_deepnets.data import ImageData

_DIVERGED = 5.0
"""A validation loss above this multiple of the chance-level loss, `log(classes)`, counts as diverging."""
_ERRORS = 2.0
"""Number of standard errors above chance from which an accuracy counts as learnt."""


class StopEarly(keras.callbacks.Callback):
    """Stop a run when the validation accuracy has not improved for `patience` epochs.

    The decision depends only on the history, so a resumed run stops at the same epoch.

    Args:
        patience: Number of epochs.
        history: Rows that `MetricsFile` extends. That callback must come first.
        first_epoch: Number of epochs to ignore at the start of `history`.
    """

    def __init__(self, patience: int, history: list[dict[str, float]], first_epoch: int = 0):
        super().__init__()
        self._patience, self._history, self._first = patience, history, first_epoch

    def on_epoch_end(self, epoch, logs=None):
        """Stop training if the accuracy has stalled."""
        if stalled(self._history[self._first :], self._patience):
            self.model.stop_training = True


class BestWeights(keras.callbacks.Callback):
    """Save the weights of the epoch with the best validation accuracy to a file.

    Args:
        model: Model whose weights are saved. They are the averaged weights if the optimizer keeps an average.
        history: Rows that `MetricsFile` extends. That callback must come first.
        folder: Folder of the file `best.safetensors`.
    """

    def __init__(self, model: keras.Model, history: list[dict[str, float]], folder: str | Path):
        super().__init__()
        self._whole, self._history = model, history
        self._path = Path(folder) / "best.safetensors"

    @property
    def epoch(self) -> int:
        """Return the best epoch so far, counted from 1; 0 if there is none."""
        return best_epoch(self._history)

    def on_train_begin(self, logs=None):
        """Save the weights of the classifier's last epoch, because training all layers may make them worse."""
        if self._history and self.epoch == len(self._history) and self._history[-1].get("phase") == 1:
            self._keep()

    def on_epoch_end(self, epoch, logs=None):
        """Save the weights if they are the best so far."""
        if self.epoch == len(self._history):
            self._keep()

    def _keep(self) -> None:
        known = running_averages(self._whole)
        named = [(name, known.get(id(weight), weight)) for name, weight in self._named()]
        arrays = {name: np.asarray(keras.ops.convert_to_numpy(weight)) for name, weight in named}
        arrays = {name: value.astype("float32") if value.dtype.kind == "V" else value for name, value in arrays.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(self._path) as aside:
            aside.write_bytes(safetensors.numpy.save(arrays, {"epoch": str(self.epoch)}))

    def restore(self) -> None:
        """Load the saved weights into the model."""
        arrays = safetensors.numpy.load_file(self._path)
        for name, weight in self._named():
            weight.assign(arrays[name])

    def _named(self) -> list[tuple[str, Any]]:
        return [(f"{at:05d}", weight) for at, weight in enumerate(self._whole.weights)]


class Diverging(keras.callbacks.Callback):
    """Warn on stderr, once, if the validation loss is far above chance level in the second half of a run.

    Args:
        history: Rows that `MetricsFile` extends. That callback must come first.
        classes: Number of classes.
        say: Called with the warning. `None`: print it to stderr.
    """

    def __init__(self, history: list[dict[str, float]], classes: int, say: Callable[[str], None] | None = None):
        super().__init__()
        self._history, self._classes, self._said = history, classes, False
        self._say = say or (lambda line: print(f"Warning: {line}", file=sys.stderr, flush=True))

    def on_epoch_end(self, epoch, logs=None):
        """Check the newest row."""
        found = diverging(self._history[-1], self._classes)
        if found and not self._said and 2 * epoch >= self.params.get("epochs", 0):
            self._said = True
            self._say(found)


def diverging(row: dict[str, float], classes: int) -> str | None:
    """Return a warning if an epoch's validation loss is far above chance level, otherwise None. It says what to change."""
    guess = math.log(max(classes, 2))
    loss = row.get("val_loss", 0.0)
    if loss <= _DIVERGED * guess:
        return None
    return (
        f"the validation loss is {loss:,.1f} after epoch {int(row['epoch'])}, and random guessing has {guess:.2f}. Training diverges, or "
        "batch normalisation has seen too few steps. Lower the learning rate (--set learning_rate=…) or reduce the batch size "
        "(--set batch_size=…)."
    )


def troubles(history: Rows, train: ImageData, held: ImageData | None) -> tuple[str, ...]:
    """Return warnings about a finished run, one line each with what to change; empty if there are none."""
    if not history:
        return ()
    found = []
    row = history[-1]
    if held is not None and (line := diverging(row, train.classes)):
        found.append(line)
    measured, name = ("val_accuracy", "validation") if "val_accuracy" in row else ("accuracy", "training")
    data = held if measured == "val_accuracy" and held is not None else train
    if measured in row and data.class_counts is not None:
        share = max(data.class_counts) / max(data.size, 1)
        error = math.sqrt(share * (1 - share) / max(data.size, 1))
        if max(float(each.get(measured, 0.0)) for each in history) <= share + _ERRORS * error and _tells(data, share):
            found.append(
                f"the {name} accuracy of {row[measured]:.1%} is no better than guessing ({share:.1%} of the images are of one class). The "
                "network learnt nothing. Start from weights (--weights imagenet), train longer (--epochs), or lower the learning rate."
            )
    return tuple(found)


def _tells(data: ImageData, share: float) -> bool:
    """Return whether there are enough images to tell learning from chance.

    Even perfect predictions must stand out from chance.
    """
    return share + _ERRORS * float(np.sqrt(share * (1 - share) / max(data.size, 1))) < 1.0
