"""What the folder of a run says about it, without loading the model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_deepnets.errors import InputError

CLASSIFICATION, DETECTION = "classification", "detection"


@dataclass(frozen=True)
class RunSummary:
    """A finished or unfinished run.

    Attributes:
        path: Run folder.
        config: Content of `config.json`.
        metrics: Metrics of the epoch whose weights the model has, and totals of the run, as in `Run.metrics`. Empty before the
            first epoch ends.
        evaluation: Content of `evaluation.json`, which detection runs have.
    """

    path: Path
    config: Mapping[str, Any]
    metrics: Mapping[str, float]
    evaluation: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def task(self) -> str:
        """``"classification"`` or ``"detection"``."""
        return DETECTION if "anchors" in self.config["recipe"] else CLASSIFICATION

    @property
    def network(self) -> str:
        """Name of the network."""
        return str(self.config["model"].get("name") or "a given model")

    @property
    def options(self) -> dict[str, Any]:
        """Options of the network."""
        return dict(self.config["model"].get("options") or {})

    @property
    def network_text(self) -> str:
        """Name and options of the network, for people."""
        options = ", ".join(f"{name}={_plain(value)}" for name, value in self.options.items())
        return f"{self.network} ({options})" if options else self.network

    @property
    def recipe(self) -> str:
        """Name of the recipe."""
        return str(self.config["recipe"].get("name") or "own")

    @property
    def data(self) -> str:
        """Name of the training data; of a folder, without the path."""
        return Path(str(self.config["data"]["name"])).name

    @property
    def held(self) -> str | None:
        """Name of the split that was measured during training. None: there is none."""
        return (self.config.get("validation") or {}).get("split")

    @property
    def model(self) -> Path | None:
        """File of the trained model. None: the run has not ended."""
        file = self.path / "model.keras"
        return file if file.is_file() else None

    @property
    def errors(self) -> dict[str, float]:
        """Error rates from 0 to 1: ``"train"``, and ``"held"`` on the other images. Those that are unknown are missing."""
        names = {"train": "accuracy", "held": "val_accuracy"}
        return {part: 1 - self.metrics[name] for part, name in names.items() if name in self.metrics}

    @property
    def command(self) -> str | None:
        """Command line of the run, as it can be typed. None if the run was started from Python code."""
        from keras_deepnets.training.run import command_text

        return command_text([str(word) for word in self.config.get("command") or []])


def _plain(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def read_run(path: str | os.PathLike) -> RunSummary:
    """Read the folder of a run.

    Raises:
        InputError: The path is not the folder of a run.
    """
    from keras_deepnets.training.run import RunFolder

    folder = Path(path)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}; give the folder of a run, as `keras-deepnets train` makes it.")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        for name in ("model", "data", "recipe"):
            if not isinstance(config[name], Mapping):
                raise TypeError(f"{name} is not a mapping")
    except OSError:
        raise InputError(f"{folder} has no config.json; give the folder of a run.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / 'config.json'} is not the configuration of a run ({error}).") from None
    metrics = RunFolder(folder).results().metrics if (folder / "metrics.csv").is_file() else {}
    evaluation = None
    if (folder / "evaluation.json").is_file():
        try:
            evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{folder / 'evaluation.json'} is not JSON ({error}).") from None
    return RunSummary(folder, config, metrics, evaluation)


def find_runs(folder: str | os.PathLike) -> list[RunSummary]:
    """Return the finished runs in a folder and its sub-folders, sorted by path.

    Raises:
        InputError: The folder does not exist.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder; give the folder that contains your run folders.")
    found = []
    for file in sorted(root.rglob("config.json")):
        if (file.parent / "model.keras").is_file() and (file.parent / "metrics.csv").is_file():
            try:
                found.append(read_run(file.parent))
            except InputError:  # a config.json of something else
                continue
    return found
