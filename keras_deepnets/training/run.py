"""The folder of a run: its configuration and its results."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.files import locked as only_one
from keras_deepnets.files import write_errors, write_json, written_aside
from keras_deepnets.insight.metrics import read_metrics
from keras_deepnets.training.recipe import Recipe
from keras_deepnets.versions import version

if TYPE_CHECKING:
    import keras

    from keras_deepnets.evaluation import Evaluation

# Two calls with equal values are the same run. The rest of config.json only documents it.
_IDENTITY = ("model", "data", "validation", "recipe", "precision", "seed")
_LATER = ("pieces", "class_weight")  # missing, so None, in folders of older versions
_LENGTHS = ("epochs", "steps", "examples")


@dataclass
class Run:
    """A run and its results.

    Attributes:
        path: Run folder.
        history: Each metric with one number per epoch: `loss`, `accuracy`, `val_loss`, `learning_rate`, …
        metrics: Metrics of the epoch whose weights the model has (`keep`), plus `epochs`, `steps`, `seconds` and the
            training throughput `images_per_second`.
        warnings: Problems of the run, one line each: training diverged, or the network learnt nothing.
        evaluation: Result on the validation images, if the run ended in this process.
    """

    path: Path
    history: dict[str, list[float]]
    metrics: dict[str, float]
    warnings: tuple[str, ...] = ()
    evaluation: Evaluation | None = field(default=None, repr=False, compare=False)
    _model: keras.Model | None = field(default=None, repr=False)

    @property
    def model(self) -> keras.Model:
        """Return the trained model. It is loaded from `model.keras` if it is not in memory yet."""
        if self._model is None:
            import keras

            import keras_deepnets.models  # noqa: F401  (registers the layers)

            self._model = keras.saving.load_model(self.path / "model.keras")
        return self._model


class RunFolder:
    """The files of a run.

    Args:
        path: Run folder. It need not exist.
        recipe: Class of the recipes. It reads the recipe in the folder's configuration.
    """

    def __init__(self, path: str | Path, recipe: Any = Recipe):
        self.path, self._recipe = Path(path), recipe
        self.config = self.path / "config.json"
        self.metrics = self.path / "metrics.csv"
        self.model = self.path / "model.keras"
        self.checkpoints = self.path / "checkpoints"
        self.tensorboard = self.path / "tensorboard"
        self.curves = self.path / "curves.png"
        self.inputs = self.path / "inputs.png"
        self._made = False

    def check(self, identity: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the configuration in the folder if it matches the requested run; None if the folder holds no run yet.

        Raises:
            InputError: The folder belongs to a run with another configuration (the message names the fields), or holds
                other files.
        """
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"Run folder {self.path} is a file. Choose a folder.")
        if not self.config.exists():
            if self.path.is_dir() and any(entry.name != self.config.name for entry in _visible(self.path)):
                raise InputError(
                    f"Run folder {self.path} holds other files and no config.json. Choose a new or empty folder."
                )
            return None
        try:
            config = json.loads(self.config.read_text(encoding="utf-8"))
            there = {name: config[name] for name in _IDENTITY} | {name: config.get(name) for name in _LATER}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.config} is not the configuration of a run ({error}). Choose a new folder."
            ) from None
        there, here = (self._comparable(values) for values in (there, identity))
        found = differences(*_recorded(there, here))
        if found and self.finished() and differences(*_recorded(*map(_without_length, (there, here)))) == []:
            return config  # `lengthened` checks whether it may continue
        if found:
            shown = "; ".join(found[:6]) + (f"; and {len(found) - 6} more" if len(found) > 6 else "")
            raise InputError(
                f"Run folder {self.path} belongs to another configuration: {shown}. Choose another folder."
            )
        return config

    def _comparable(self, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Return an identity as JSON stores it, without values that do not change a run."""
        values = json.loads(json.dumps(dict(identity)))
        if values["validation"]:  # 5,000 or a tenth of 50,000: its images identify the split
            values["validation"].pop("cut", None)
        # The class fills in the defaults of fields that older versions did not have.
        recipe = json.loads(json.dumps(self._recipe.from_dict(values["recipe"]).to_dict()))
        return values | {"recipe": {name: value for name, value in recipe.items() if name not in _TOLD}}

    def finished(self) -> bool:
        """Return whether the run has ended. `model.keras` is the last file written."""
        return self.model.exists()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder if necessary and lock it for other processes during the block.

        The system releases the lock when the process ends, even after a crash.

        Raises:
            InputError: Another process holds the lock, or the folder is not writable.
        """
        self._made = not self.path.exists()
        holder = self.path / ".pid"

        def busy() -> str:
            pid = holder.read_text() if holder.exists() else "unknown"
            return f"Run folder {self.path} is being trained by another process (pid {pid}). Wait until it ends, or choose another folder."

        with only_one(self.path, busy):
            with write_errors(self.path):
                holder.write_text(str(os.getpid()))
            try:
                yield
            finally:
                holder.unlink(missing_ok=True)

    def begin(self, identity: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        """Write `config.json`, the identity of the run and its details, to the locked folder.

        Raises:
            InputError: Another process started a run first, or the disk is full.
        """
        if self.config.exists():
            raise InputError(f"Another process has started a run in {self.path}. Choose another folder, or call again.")
        try:
            recorded = {name: identity[name] for name in (*_IDENTITY, *_LATER)}
            write_json(self.config, recorded | dict(details) | surroundings())
        except OSError as error:
            if self._made:
                shutil.rmtree(self.path, ignore_errors=True)
            raise InputError(f"Cannot write run folder {self.path}: {error.strerror or error}.") from error

    def save_model(self, model: keras.Model) -> None:
        """Write `model.keras`."""
        from keras_deepnets.models import deep_graphs

        with written_aside(self.model) as aside, deep_graphs():
            model.save(aside)

    def asks_for_more(self, config: Mapping[str, Any], recipe: Any) -> bool:
        """Return whether the requested recipe has another length than the run in the folder."""
        there, here = self._recipe.from_dict(config["recipe"]).to_dict(), recipe.to_dict()
        return any(there[name] != here[name] for name in _LENGTHS)

    def lengthened(self, config: dict[str, Any], recipe: Any, resolved: Mapping[str, Any]) -> dict[str, Any]:
        """Turn a finished run into an unfinished one with more epochs. Its model is kept under another name.

        Args:
            config: Configuration that `check` returned.
            recipe: Requested recipe.
            resolved: Its newly resolved lengths.

        Returns:
            The configuration of the longer run.

        Raises:
            InputError: The requested run is not longer than the existing run.
        """
        before, after = config["resolved"]["steps"], resolved["steps"]
        rows = read_metrics(self.metrics)
        done = int(rows[-1]["epoch"]) if rows else 0
        if after <= before:
            raise InputError(
                f"Run folder {self.path} holds a finished run of {before:,} steps, and {after:,} are requested. Request more epochs to "
                "continue it, or choose another folder."
            )
        kept = self.path / f"model-after-epoch-{done}.keras"
        lengths = {name: resolved[name] for name in ("steps", "epochs", "sized") if name in resolved}
        config = config | {"recipe": recipe.to_dict(), "resolved": config["resolved"] | lengths}
        config["lengthened"] = [*config.get("lengthened", []), {"after_epoch": done, "steps": before}]
        self.model.replace(kept)  # first: a folder without model.keras is unfinished
        write_json(self.config, config)
        return config

    def rows(self) -> list[dict[str, float]]:
        """Return the metrics of the completed epochs."""
        return read_metrics(self.metrics)

    def results(
        self,
        model: keras.Model | None = None,
        warnings: tuple[str, ...] = (),
        evaluation: Evaluation | None = None,
    ) -> Run:
        """Return the run as recorded in `metrics.csv`."""
        rows = read_metrics(self.metrics)
        return Run(self.path, columns(rows), summary(rows, self._kept(rows)), warnings, evaluation, model)

    def _kept(self, rows: list[dict[str, float]]) -> int:
        """Return the index of the row whose weights the trained model has."""
        from keras_deepnets.training.choosing import kept_epoch

        config = json.loads(self.config.read_text(encoding="utf-8"))
        held = config.get("validation") or {}
        return kept_epoch(rows, config["recipe"].get("keep", "last"), held.get("size", 0)) - 1


def columns(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    """Convert rows of numbers to one list per name."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row[name] for row in rows if name in row] for name in names}


def summary(rows: list[dict[str, float]], kept: int = -1) -> dict[str, float]:
    """Return the metrics of the row at `kept` and the totals of the run.

    The throughput is that of the last phase, without its first epoch, which includes compilation.
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
    """Return the fields in which two configurations differ, each as `name is value there, value here`."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        names = dict.fromkeys([*there, *here])
        if any(there.get(key) != here.get(key) for key in ("name", "split", "size")):
            names.pop("digests", None)  # other images always have other digests
        return [
            line
            for key in names
            for line in differences(there.get(key), here.get(key), f"{name}.{key}" if name else str(key))
        ]
    if there == here:
        return []
    of, _, kind = name.partition(".digests.")
    if kind:
        return [f"{of}: the {_DIGESTED.get(kind, kind)} differ"]
    return [f"{name} is {_short(there)} there, {_short(here)} here"]


_DIGESTED = {
    "names": "names of the image files",
    "files": "sizes or modification times of the image files",
    "records": "record files",
    "pixels": "pixels of the images",
    "labels": "labels of the images",
}


def surroundings() -> dict[str, Any]:
    """Return the versions, the platform, the time and the command."""
    return software() | {
        "platform": platform.platform(),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
    }


def command_text(words: Sequence[str]) -> str | None:
    """Return the command line that started a run, as it can be typed. None if it was started from Python code.

    Args:
        words: What `surroundings` recorded.
    """
    if not words:
        return None
    path = Path(words[0])
    if path.name == "keras-deepnets" or path.parts[-3:] == ("keras_deepnets", "cli", "__main__.py"):
        return shlex.join(["keras-deepnets", *words[1:]])
    is_script = path.suffix == ".py" and path.name != "__main__.py"
    return shlex.join(["python", path.name, *words[1:]]) if is_script else None


def software() -> dict[str, Any]:
    """Return the software state that may change the numbers of a run, apart from its configuration."""
    import keras

    packages = ("keras-deepnets", "tensorflow", "keras", "numpy", "tensorflow-datasets")
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    return {"versions": versions, "backend": keras.config.backend(), "deterministic": deterministic()}


def deterministic() -> bool:
    """Return whether TensorFlow runs deterministically (`tf.config.experimental.enable_op_determinism`)."""
    from keras_deepnets.layers.fast import internals

    return internals.is_deterministic()


def changes(config: Mapping[str, Any]) -> str | None:
    """Describe in one line how the software differs from that at the start of a run.

    It covers versions, backend and determinism. None: no recorded value differs.
    """
    here = software()
    there = {name: config[name] for name in here if name in config}
    found = differences(*_recorded(there, {name: here[name] for name in there}))
    return "; ".join(found) if found else None


_TOLD = ("source", "use", "exceptions")
"""Fields of a recipe that do not change a run."""


def _without_length(identity: dict[str, Any]) -> dict[str, Any]:
    recipe = {name: value for name, value in identity["recipe"].items() if name not in _LENGTHS}
    return identity | {"recipe": recipe}


# Older versions did not record these, so they cannot be compared.
_ADDED = ("digests", "tensorflow-datasets")


def _recorded(there: dict[str, Any], here: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return two configurations without fields that only the newer one can have.

    If the seeds differ, the digests are removed too, because they follow from the seed.
    """
    if there.get("seed") != here.get("seed"):  # the seed selects the images of each split
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
