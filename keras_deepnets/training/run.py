"""The folder of a run: what it was asked to do, and what came out."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.files import write_json, written_aside
from keras_deepnets.insight.metrics import read_metrics
from keras_deepnets.training.recipe import Recipe
from keras_deepnets.versions import version

if TYPE_CHECKING:
    import keras

    from keras_deepnets.evaluation import Evaluation

# What makes two calls the same run. The rest of config.json only tells how it was done.
_IDENTITY = ("model", "data", "validation", "recipe", "precision", "seed")
_LATER = ("pieces", "class_weight")  # what older versions did not know, and None there
_LENGTHS = ("epochs", "steps", "examples")


@dataclass
class Run:
    """A run and its results.

    Attributes:
        path: its folder.
        history: each measured value, one number an epoch: `loss`, `accuracy`, `val_loss`, `learning_rate`, …
        metrics: the values of the epoch whose weights the model has (`keep`), and `epochs`, `steps`, `seconds` and
            `images_per_second` of training.
            `images_per_second` of training.
        evaluation: what the model does on the validation images, where the run has ended in this process.
        warnings: what is wrong with the run, one line each: it diverged, or learnt nothing.
    """

    path: Path
    history: dict[str, list[float]]
    metrics: dict[str, float]
    warnings: tuple[str, ...] = ()
    evaluation: Evaluation | None = field(default=None, repr=False, compare=False)
    _model: keras.Model | None = field(default=None, repr=False)

    @property
    def model(self) -> keras.Model:
        """The trained model; read from `model.keras` where it is not in memory yet."""
        if self._model is None:
            import keras

            import keras_deepnets.models  # noqa: F401  (registers our layers)

            self._model = keras.saving.load_model(self.path / "model.keras")
        return self._model


class RunFolder:
    """The files of a run.

    Args:
        path: of the folder; it need not exist.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.csv"
        self.model = self.path / "model.keras"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.curves = self.path / "curves.png"
        self.inputs = self.path / "inputs.png"
        self._made = False

    def check(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """The folder's configuration, if the run in it is the one asked for; None if there is no run in it yet.

        Raises:
            InputError: it belongs to a run with another configuration (the message names the fields), or holds something else.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"Run folder {self.path} is a file; give a folder.")
        if not self.config.exists():
            if self.path.is_dir() and any(entry.name != self.config.name for entry in _visible(self.path)):
                raise InputError(
                    f"Run folder {self.path} holds other files and no config.json; give a new or empty folder."
                )
            return None
        try:
            config = json.loads(self.config.read_text(encoding="utf-8"))
            there = {name: config[name] for name in _IDENTITY} | {name: config.get(name) for name in _LATER}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self.config} is not the configuration of a run ({error}); give a new folder.") from None
        there, here = _comparable(there), _comparable(identity)
        found = differences(*_recorded(there, here))
        if found and self.finished() and differences(*_recorded(*map(_without_length, (there, here)))) == []:
            return config  # `lengthened` tells whether it may go on
        if found:
            shown = "; ".join(found[:6]) + (f"; and {len(found) - 6} more" if len(found) > 6 else "")
            raise InputError(f"Run folder {self.path} belongs to another configuration: {shown}. Give another folder.")
        return config

    def finished(self) -> bool:
        """Whether the run in it has ended: `model.keras` is the last file written."""
        return self.model.exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Makes the folder, if need be, and keeps other processes out of it during the block.

        The system gives the lock back when a process ends, however it ends.

        Raises:
            InputError: another process has it, or the folder cannot be written.
        """
        from filelock import FileLock, Timeout

        self._made = not self.path.exists()
        lock, holder = FileLock(self.path / ".lock"), self.path / ".pid"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(NotImplementedError):  # a file system without locks
                lock.acquire(timeout=0)
            holder.write_text(str(os.getpid()))
        except Timeout:
            pid = holder.read_text() if holder.exists() else "unknown"
            raise InputError(
                f"Run folder {self.path} is being trained by another process (pid {pid}); wait for its end, or give another folder."
            ) from None
        except OSError as error:
            raise InputError(f"Cannot write run folder {self.path}: {error.strerror or error}.") from error
        try:
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def begin(self, identity: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        """Writes `config.json`, the identity and how it is done, into the locked folder.

        Raises:
            InputError: another process was faster, or there is no space.
        """
        if self.config.exists():
            raise InputError(f"Another process has begun a run in {self.path}; give another folder, or call again.")
        try:
            recorded = {name: identity[name] for name in (*_IDENTITY, *_LATER)}
            write_json(self.config, recorded | dict(details) | surroundings())
        except OSError as error:
            if self._made:
                shutil.rmtree(self.path, ignore_errors=True)
            raise InputError(f"Cannot write run folder {self.path}: {error.strerror or error}.") from error

    def save_model(self, model: keras.Model) -> None:
        """Writes `model.keras`."""
        from keras_deepnets.models import deep_graphs

        with written_aside(self.model) as aside, deep_graphs():
            model.save(aside)

    def asks_for_more(self, config: Mapping[str, Any], recipe: Recipe) -> bool:
        """Whether the recipe asked for has another length than that of the run in the folder."""
        there = Recipe.from_dict(config["recipe"])
        return any(getattr(there, name) != getattr(recipe, name) for name in _LENGTHS)

    def lengthened(self, config: dict[str, Any], recipe: Recipe, resolved: Mapping[str, Any]) -> dict[str, Any]:
        """Makes a finished run one that has not ended, of more epochs; its model stays beside, under another name.

        Args:
            config: as `check` gave it.
            recipe: that is asked for now.
            resolved: its lengths, decided anew.

        Returns:
            The configuration of the longer run.

        Raises:
            InputError: the run asked for is no longer than the one that is there.
        """
        before, after = config["resolved"]["steps"], resolved["steps"]
        rows = read_metrics(self.metrics)
        done = int(rows[-1]["epoch"]) if rows else 0
        if after <= before:
            raise InputError(
                f"Run folder {self.path} holds a finished run of {before:,} steps, and {after:,} are asked for; ask for more epochs to "
                "continue it, or give another folder."
            )
        kept = self.path / f"model-after-epoch-{done}.keras"
        lengths = {name: resolved[name] for name in ("steps", "epochs", "sized") if name in resolved}
        config = config | {"recipe": recipe.to_dict(), "resolved": config["resolved"] | lengths}
        config["lengthened"] = [*config.get("lengthened", []), {"after_epoch": done, "steps": before}]
        self.model.replace(kept)  # first: a folder without model.keras is one that has not ended
        write_json(self.config, config)
        return config

    def results(
        self,
        model: keras.Model | None = None,
        warnings: tuple[str, ...] = (),
        evaluation: Evaluation | None = None,
    ) -> Run:
        """The run as `metrics.csv` has it."""
        rows = read_metrics(self.metrics)
        return Run(self.path, columns(rows), summary(rows, self._kept(rows)), warnings, evaluation, model)

    def _kept(self, rows: list[dict[str, float]]) -> int:
        """The place of the row whose weights the trained model has."""
        from keras_deepnets.training.choosing import best_epoch

        recipe = json.loads(self.config.read_text(encoding="utf-8"))["recipe"]
        return (best_epoch(rows) or len(rows)) - 1 if recipe.get("keep") == "best" else len(rows) - 1


def columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Rows of numbers as one list a name."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row[name] for row in rows if name in row] for name in names}


def summary(rows: list[dict[str, float]], kept: int = -1) -> dict[str, float]:
    """The measured values of the row at `kept` and the totals of the run.

    The speed is that of the last phase. Its first epoch does not count, it compiles.
    """
    if not rows:
        return {}
    values = {name: value for name, value in rows[kept].items() if name not in ("epoch", "phase", "step", "seconds")}
    last = [row for row in rows if row.get("phase") == rows[-1].get("phase")]
    speeds = sorted(row["images_per_second"] for row in last[1:] or last)
    best = {"kept_epoch": rows[kept]["epoch"]} if rows[kept]["epoch"] != rows[-1]["epoch"] else {}
    return values | {
        "epochs": rows[-1]["epoch"],
        "steps": rows[-1]["step"],
        "seconds": round(sum(row["seconds"] for row in rows), 3),
        "images_per_second": speeds[len(speeds) // 2],
        **best,
    }


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """The fields in which two configurations differ, each as `name: value there, value here`."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        names = dict.fromkeys([*there, *here])
        if any(there.get(key) != here.get(key) for key in ("name", "split", "size")):
            names.pop("digests", None)  # of course they differ
        return [
            line
            for key in names
            for line in differences(there.get(key), here.get(key), f"{name}.{key}" if name else str(key))
        ]
    if there == here:
        return []
    of, _, kind = name.partition(".digests.")
    if kind:
        return [f"{of}: the {_DIGESTED.get(kind, kind)} are others than there"]
    return [f"{name} is {_short(there)} there, {_short(here)} here"]


_DIGESTED = {
    "names": "names of the image files",
    "files": "sizes or times of change of the image files",
    "records": "record files",
    "pixels": "pixels of the images",
    "labels": "labels of the images",
}


def surroundings() -> dict[str, Any]:
    """Versions, machine and time."""
    return software() | {
        "platform": platform.platform(),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
    }


def software() -> dict[str, Any]:
    """What may change the numbers of a run beside what it was asked to do."""
    import keras

    packages = ("keras-deepnets", "tensorflow", "keras", "numpy", "tensorflow-datasets")
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    return {"versions": versions, "backend": keras.config.backend(), "deterministic": deterministic()}


def deterministic() -> bool:
    """Whether TensorFlow computes the same to the bit each time (`tf.config.experimental.enable_op_determinism`)."""
    from keras_deepnets.layers.fast import internals

    return internals.is_deterministic()


def changes(config: Mapping[str, Any]) -> str | None:
    """What is other now than when a run was begun, in one line: versions, backend, determinism. None: nothing, as far as recorded."""
    here = software()
    there = {name: config[name] for name in here if name in config}
    found = differences(*_recorded(there, {name: here[name] for name in there}))
    return "; ".join(found) if found else None


def _comparable(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity in the form in which JSON keeps it, without what does not change a run."""
    values = json.loads(json.dumps(dict(identity)))
    if values["validation"]:  # 5,000 or a tenth of 50,000: what was cut out is told by its images
        values["validation"].pop("cut", None)
    # Through `Recipe`, so that a field that a later version adds has its default in older folders.
    recipe = Recipe.from_dict(values["recipe"]).to_dict()
    return values | {"recipe": {name: value for name, value in recipe.items() if name not in _TOLD}}


_TOLD = ("source", "use", "exceptions")
"""Fields of a recipe that do not change a run."""


def _without_length(identity: dict[str, Any]) -> dict[str, Any]:
    recipe = {name: value for name, value in identity["recipe"].items() if name not in _LENGTHS}
    return identity | {"recipe": recipe}


# Of what an older version did not record it cannot be said that it differs.
_ADDED = ("digests", "tensorflow-datasets")


def _recorded(there: dict[str, Any], here: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two configurations, without what only the newer has and the older could not; and what follows from another seed."""
    if there.get("seed") != here.get("seed"):  # it chooses the images of each split
        here = {name: _without_digests(value) for name, value in here.items()}
        there = {name: _without_digests(value) for name, value in there.items()}
    here = {
        name: _recorded(there[name], value)[1]
        if isinstance(value, dict) and isinstance(there.get(name), dict)
        else value
        for name, value in here.items()
        if name in there or name not in _ADDED
    }
    return there, here


def _without_digests(value: Any) -> Any:
    return {key: item for key, item in value.items() if key != "digests"} if isinstance(value, dict) else value


def _visible(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
