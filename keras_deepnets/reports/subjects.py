"""The model and the images that a picture or a report is about."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.reports.runs import RunSummary, read_run

if TYPE_CHECKING:
    import keras

    from keras_deepnets.data import ImageData
    from keras_deepnets.training.measured import Measured

Target = Any
"""A run folder, a ``.keras`` file, the name of a network, or a model."""


@dataclass(frozen=True)
class Subject:
    """A model, and the run that trained it if there is one."""

    name: str
    model: keras.Model
    run: RunSummary | None = None

    def measured(self, source: str | os.PathLike | None = None, split: str | None = None) -> Measured:
        """Load labelled images: those of `source`, or the images that the run held out.

        Raises:
            InputError: The images cannot be loaded, or no data is known.
        """
        from keras_deepnets.training.measured import RunRecord, images_to_measure

        if source is None:
            if self.run is None:
                raise InputError(f"{self.name} is not the folder of a run; give images with data (--data FOLDER).")
            held = self.run.config.get("validation") or self.run.config["data"]
            source = str(held["name"])
            split = split or ((self.run.config.get("validation") or {}).get("split") or None)
        record = None if self.run is None else RunRecord.beside(self.run.path / "model.keras")
        try:
            return images_to_measure(source, split, record)
        except InputError as error:
            raise InputError(
                f"The images of {self.name} cannot be loaded: {error} Or give other data (--data)."
            ) from None


def is_network_name(target: Target) -> bool:
    """Whether a target is the name of a network and not a path."""
    from keras_deepnets import registry

    names = registry.list_models() + registry.list_models(task="detection")
    return isinstance(target, (str, Path)) and not Path(target).exists() and str(target).lower() in names


def run_of(target: Target) -> RunSummary | None:
    """Return the run of a target. None: it is a model, a network or a file outside a run folder."""
    if not isinstance(target, (str, os.PathLike)):
        return None
    path = Path(target)
    if path.is_dir():
        return read_run(path)
    return read_run(path.parent) if path.name == "model.keras" and (path.parent / "config.json").is_file() else None


def open_subject(target: Target, *, trained: bool = True) -> Subject:
    """Load a model.

    Args:
        target: A run folder, a ``.keras`` file, a model, or the name of a network.
        trained: Whether the weights matter, so that the name of a network is an error.

    Raises:
        InputError: The target is not a model, or it cannot be loaded.
    """
    import keras

    from keras_deepnets.export.prediction import load_keras

    if isinstance(target, keras.Model):
        return Subject(target.name, target)
    if is_network_name(target):
        from keras_deepnets import registry

        if trained:
            raise InputError(f"{target} is a network without trained weights; give a run folder or a .keras file.")
        return Subject(str(target).lower(), registry.create_model(str(target)))
    path, run = Path(target), run_of(target)
    file = run.model if run is not None else path
    if file is None:
        raise InputError(f"{path} holds an unfinished run; run the same `train` command again to finish it.")
    if not file.is_file() or file.suffix != ".keras":
        raise InputError(f"{path} is neither the folder of a run nor a .keras file nor the name of a network.")
    return Subject(run.name if run else path.stem, load_keras(file), run)


def is_detector(model: keras.Model) -> bool:
    """Whether a model is a detector."""
    from keras_deepnets.detection.detector import Detector

    return isinstance(model, Detector)


def view_of(model: keras.Model, data: ImageData, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return some images as the network sees them, and their labels.

    Args:
        model: The network.
        data: Images to choose from. Each class keeps its share.
        count: Maximum images.
        seed: Seed of the choice.

    Returns:
        uint8 ``[n, h, w, c]`` and int ``[n]``.
    """
    from keras_deepnets.training import feed, networks

    networks.check_fit(model, data)
    chosen = data.take(min(count, data.size), seed)
    images, labels = [], []
    for batch, truth in feed.evaluation(model, chosen, 64).as_numpy_iterator():
        images.append(feed.pixels(model, batch))
        labels.append(truth)
    return np.concatenate(images), np.concatenate(labels)
