"""Checkpoints: the whole state of a run after an epoch or inside one. A checkpoint is either complete or absent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import safetensors.numpy

from keras_deepnets.errors import InputError
from keras_deepnets.files import digest, written_aside
from keras_deepnets.training.errors import TrainingError, is_disk_full
from keras_deepnets.training.optimizers import steps_done

_ARRAYS = "state.safetensors"
_RECORD = "state.json"
_METRICS = "metrics/"


@dataclass(frozen=True)
class State:
    """Metadata of a checkpoint, besides the state of the model and the optimizer.

    Attributes:
        epoch: Completed epochs.
        step: Completed optimizer steps.
        history: Metrics of the completed epochs, one row per epoch.
        batch: Completed steps of the epoch that follows. 0: the state is that after an epoch.
        seconds: Seconds that these steps took.
        metrics: Values of the model's metrics after these steps.
    """

    epoch: int
    step: int
    history: list[dict[str, float]]
    batch: int = 0
    seconds: float = 0.0
    metrics: tuple[np.ndarray, ...] = ()

    def record(self) -> dict[str, Any]:
        """Return the state as plain JSON values, without the metrics' values."""
        return {name: getattr(self, name) for name in ("epoch", "step", "history", "batch", "seconds")}


class CheckpointStore:
    """The checkpoints of a run, in `folder/epoch-NNNNN/`, or `folder/epoch-NNNNN-step-NNNNNN/` inside the next epoch.

    Each holds `state.safetensors` and `state.json`. The first has the weights, moving statistics, optimizer state and
    the layers' random generators. The second has the epoch, the step, the history and the SHA-256 of both files. Keras'
    HDF5 format is not used, because the HDF5 library crashes the process when a disk is full.

    Args:
        folder: Folder of the checkpoints.
        keep: Number of newest checkpoints to keep.
        say: Called with each line of text that the user should see. `None`: print it to stderr.
    """

    def __init__(self, folder: str | Path, keep: int = 2, say: Callable[[str], None] | None = None):
        self.folder, self.keep = Path(folder), keep
        self._say = say or (lambda line: print(line, file=sys.stderr))

    def paths(self) -> list[Path]:
        """Return the checkpoints, newest first."""
        return sorted(self.folder.glob("epoch-[0-9]*"), reverse=True) if self.folder.is_dir() else []

    def last_good(self) -> str:
        """Return a sentence that names the checkpoint from which a run can resume."""
        newest = next(iter(self.paths()), None)
        return f"Last good checkpoint: {newest}." if newest else "There is no checkpoint yet."

    def save(self, model: keras.Model, state: State) -> Path:
        """Write a checkpoint, then remove the oldest ones.

        Raises:
            TrainingError: The disk is full. Earlier checkpoints are unchanged.
        """
        inside = f"-step-{state.batch:06d}" if state.batch else ""
        path = self.folder / f"epoch-{state.epoch:05d}{inside}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with written_aside(path) as aside:
                aside.mkdir()
                arrays = _arrays(model) | {f"{_METRICS}{at:05d}": value for at, value in enumerate(state.metrics)}
                (aside / _ARRAYS).write_bytes(safetensors.numpy.save(arrays))
                record = state.record() | {"sha256": digest(aside / _ARRAYS)}
                record["own_sha256"] = _own_digest(record)
                (aside / _RECORD).write_text(json.dumps(record), encoding="utf-8")
        except Exception as error:
            if is_disk_full(error):
                raise TrainingError(f"No space left for checkpoint {path}. {self.last_good()}") from error
            raise
        # Later checkpoints are corrupt: the run was resumed from an earlier one.
        later = [other for other in self.paths() if other.name > path.name]
        earlier = [other for other in self.paths() if other.name <= path.name]
        for old in (*later, *earlier[self.keep :]):
            shutil.rmtree(old, ignore_errors=True)
        return path

    def restore(self, model: keras.Model, prepare: Callable[[State], None] | None = None) -> State | None:
        """Restore a compiled, built model from the newest valid checkpoint, and report corrupt ones.

        Args:
            model: Model to restore.
            prepare: Called with the state before it is restored, to compile the model as it was at that time.

        Returns:
            The checkpoint's state; None if no checkpoint is valid. The model is then unchanged.
        """
        paths = self.paths()
        for path in paths:
            try:
                state, arrays = _read(path)
            except (OSError, ValueError, KeyError, TypeError) as error:
                what_then = (
                    "no sound checkpoint is left; starting again"
                    if path is paths[-1]
                    else "falling back to the previous one"
                )
                self._say(f"Checkpoint {path} is corrupt ({error}); {what_then}.")
                continue
            if prepare is not None:
                prepare(state)
            _assign(model, arrays, path)
            return state
        return None


def _read(path: Path) -> tuple[State, dict[str, np.ndarray]]:
    """Read a checkpoint; raise a Python error if its content is not what was written."""
    record = json.loads((path / _RECORD).read_text(encoding="utf-8"))
    if "own_sha256" in record and record["own_sha256"] != _own_digest(record):  # older checkpoints have none
        raise ValueError(f"{_RECORD} is not what was written")
    if digest(path / _ARRAYS) != record["sha256"]:
        raise ValueError(f"{_ARRAYS} is not what was written")
    arrays = safetensors.numpy.load_file(path / _ARRAYS)
    metrics = tuple(arrays.pop(name) for name in sorted(arrays) if name.startswith(_METRICS))
    values = {name: record[name] for name in ("batch", "seconds") if name in record}  # older checkpoints have neither
    return State(int(record["epoch"]), int(record["step"]), list(record["history"]), metrics=metrics, **values), arrays


def _own_digest(record: dict[str, Any]) -> str:
    content = {name: value for name, value in record.items() if name != "own_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def state_of(model: keras.Model) -> dict[str, Any]:
    """Return every variable that a training step reads, by a name that is independent of Keras' layer numbering."""
    if not model.optimizer.built:
        strategy = getattr(model, "distribute_strategy", None)  # TensorFlow only
        with strategy.scope() if strategy else contextlib.nullcontext():
            model.optimizer.build(model.trainable_variables)
    weights = {id(variable) for variable in (*model.weights, *model.metrics_variables)}
    groups = {
        "model": model.weights,
        "optimizer": model.optimizer.variables,
        # States of random generators (dropout …) are not weights.
        "random": [variable for variable in model.variables if id(variable) not in weights],
    }
    return {f"{name}/{at:05d}": variable for name, group in groups.items() for at, variable in enumerate(group)}


def _arrays(model: keras.Model) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(keras.ops.convert_to_numpy(variable)) for name, variable in state_of(model).items()}
    # NumPy has no bfloat16; float32 holds its values exactly.
    return {name: value.astype("float32") if value.dtype.kind == "V" else value for name, value in arrays.items()}


def _assign(model: keras.Model, arrays: dict[str, np.ndarray], path: Path) -> None:
    state = state_of(model)
    fits = state.keys() == arrays.keys() and all(tuple(state[name].shape) == arrays[name].shape for name in state)
    if not fits:
        raise InputError(f"Checkpoint {path} belongs to another model or optimizer. Choose another run folder.")
    for name, variable in state.items():
        variable.assign(arrays[name])


class Checkpoint(keras.callbacks.Callback):
    """Write a checkpoint at the start of a run and after every epoch.

    Args:
        store: Store that writes the checkpoints.
        history: Rows of the epochs so far, in the list that `MetricsFile` extends. That callback must come first.
        model: Model whose state is saved, if only a part of it is fitted. `None`: the fitted model.
        seconds: Minimum seconds between checkpoints, for epochs that are shorter than writing one. The last state is
            always saved.
        prepare: Called before a state is saved.
        resumed: Whether the run starts from a checkpoint inside the first epoch.
        writes: Whether this process writes. Otherwise, it only takes part in `prepare`.
    """

    def __init__(
        self,
        store: CheckpointStore,
        history: list[dict[str, float]],
        model: keras.Model | None = None,
        seconds: float = 0.0,
        prepare: Callable[[], None] | None = None,
        resumed: bool = False,
        writes: bool = True,
    ):
        super().__init__()
        self._resumed, self._writes = resumed, writes
        self._store, self._history, self._whole, self._seconds = store, history, model, seconds
        self._prepare = prepare
        self._saved, self._at = time.monotonic(), -1

    def on_train_begin(self, logs=None):
        """Save the initial state, so that an interruption in the first epoch resumes from the same weights.

        The state after earlier epochs is saved. It is not saved again, because a new phase has another optimizer.
        """
        if self._history or self._resumed:
            self._at = len(self._history)
        else:
            self._save()

    def on_epoch_end(self, epoch, logs=None):
        """Save the state after an epoch."""
        if time.monotonic() - self._saved >= self._seconds:
            self._save()

    def on_train_end(self, logs=None):
        """Save the last state."""
        self.save_if_new()

    def save_if_new(self) -> None:
        """Save the state unless it is saved."""
        if self._at != len(self._history):
            self._save()

    def _save(self) -> None:
        if self._prepare is not None:
            self._prepare()
        if self._writes:
            state = State(len(self._history), steps_done(self.model.optimizer), list(self._history))
            self._store.save(self._whole or self.model, state)
        self._saved, self._at = time.monotonic(), len(self._history)
