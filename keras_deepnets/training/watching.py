"""What looks at the measured values of a run: which epoch was the best, whether to stop, whether something goes wrong."""

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
from keras_deepnets.training.callbacks import averaged
from keras_deepnets.training.choosing import Rows, best_epoch, stalled

if TYPE_CHECKING:
    from keras_deepnets.data import ImageData

_DIVERGED = 5.0
"""Times the loss of a guess (the logarithm of the number of classes) from which a validation loss says that training diverges."""
_ERRORS = 2.0
"""Standard errors above chance that an accuracy must have to count as learnt."""


class StopEarly(keras.callbacks.Callback):
    """Ends a run when the validation accuracy has not risen for `patience` epochs. A function of the epochs so far.

    Args:
        patience: epochs.
        history: the rows that `MetricsFile` extends, which must come before.
        first_epoch: epochs that do not count, at the start of `history`.
    """

    def __init__(self, patience: int, history: list[dict[str, float]], first_epoch: int = 0):
        super().__init__()
        self._patience, self._history, self._first = patience, history, first_epoch

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the epochs so far."""
        if stalled(self._history[self._first :], self._patience):
            self.model.stop_training = True


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the epoch with the best validation accuracy in a file.

    Args:
        model: whose weights are kept, as they are measured: averaged where the optimizer averages.
        history: the rows that `MetricsFile` extends, which must come before.
        folder: of the file, `best.safetensors`.
    """

    def __init__(self, model: keras.Model, history: list[dict[str, float]], folder: str | Path):
        super().__init__()
        self._whole, self._history = model, history
        self._path = Path(folder) / "best.safetensors"

    @property
    def epoch(self) -> int:
        """The best epoch so far, counted from 1; 0 where there is none."""
        return best_epoch(self._history)

    def on_train_begin(self, logs=None):
        """Keeps the weights of the classifier's last epoch: all layers together may do worse."""
        if self._history and self.epoch == len(self._history) and self._history[-1].get("phase") == 1:
            self._keep()

    def on_epoch_end(self, epoch, logs=None):
        """Keeps the weights, if they are the best so far."""
        if self.epoch == len(self._history):
            self._keep()

    def _keep(self) -> None:
        with averaged(self._whole):
            arrays = {name: keras.ops.convert_to_numpy(weight) for name, weight in self._named()}
        arrays = {name: value.astype("float32") if value.dtype.kind == "V" else value for name, value in arrays.items()}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(self._path) as aside:
            aside.write_bytes(safetensors.numpy.save(arrays, {"epoch": str(self.epoch)}))

    def restore(self) -> None:
        """Gives the model the kept weights."""
        arrays = safetensors.numpy.load_file(self._path)
        for name, weight in self._named():
            weight.assign(arrays[name])

    def _named(self) -> list[tuple[str, Any]]:
        return [(f"{at:05d}", weight) for at, weight in enumerate(self._whole.weights)]


class Diverging(keras.callbacks.Callback):
    """Says on stderr, once, that the validation loss is far above that of a guess in the second half of a run.

    Args:
        history: the rows that `MetricsFile` extends, which must come before.
        classes: how many there are.
        say: is given the line.
    """

    def __init__(self, history: list[dict[str, float]], classes: int, say: Callable[[str], None] | None = None):
        super().__init__()
        self._history, self._classes, self._said = history, classes, False
        self._say = say or (lambda line: print(f"Warning: {line}", file=sys.stderr, flush=True))

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the newest row."""
        found = diverging(self._history[-1], self._classes)
        if found and not self._said and 2 * epoch >= self.params.get("epochs", 0):
            self._said = True
            self._say(found)


def diverging(row: dict[str, float], classes: int) -> str | None:
    """What is wrong with an epoch's validation loss, and what to change; None where nothing is."""
    guess = math.log(max(classes, 2))
    loss = row.get("val_loss", 0.0)
    if loss <= _DIVERGED * guess:
        return None
    return (
        f"the validation loss is {loss:,.1f} after epoch {int(row['epoch'])}, where a guess has {guess:.2f}: training diverges, or batch "
        "normalisation has seen too few steps. Lower the learning rate (--set learning_rate=…) or use smaller batches "
        "(--set batch_size=…)."
    )


def troubles(history: Rows, train: ImageData, held: ImageData | None) -> tuple[str, ...]:
    """What is wrong with a run that has ended, one line each with what to change; empty where nothing is."""
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
                f"the {name} accuracy of {row[measured]:.1%} is that of a guess ({share:.1%} of the images are of one class): nothing was "
                "learnt. Start from weights (--weights imagenet), train longer (--epochs), or lower the learning rate."
            )
    return tuple(found)


def _tells(data: ImageData, share: float) -> bool:
    """Whether so many images can tell learning from chance at all: perfect answers must stand out."""
    return share + _ERRORS * float(np.sqrt(share * (1 - share) / max(data.size, 1))) < 1.0
