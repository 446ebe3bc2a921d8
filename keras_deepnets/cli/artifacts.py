"""Find the trained model that a user names, before TensorFlow is loaded."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets import registry
from keras_deepnets.cli.problems import PROGRAM
from keras_deepnets.errors import InputError
from keras_deepnets.training.measured import RunRecord
from keras_deepnets.weights import cards, reading
from keras_deepnets.weights.cards import networks

if TYPE_CHECKING:
    import keras

KERAS, SAVED_MODEL, TFLITE, ONNX, OPENVINO, WEIGHTS = "keras", "savedmodel", "tflite", "onnx", "openvino", "weights"
_KINDS = "a run folder, a .keras file, a SavedModel folder, a .tflite, .onnx or .xml file"


@dataclass(frozen=True)
class Artifact:
    """A trained model on disk.

    Attributes:
        path: Path for `export.predict`: a file, or the folder of one SavedModel version.
        kind: `KERAS`, `SAVED_MODEL`, `TFLITE`, `ONNX`, `OPENVINO` or, with ``--weights``, `WEIGHTS`.
        network: Network that the weights belong to, if the user named it.
        options: Options of that network.
    """

    path: Path
    kind: str
    network: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def labels(self) -> list[str] | None:
        """The class names stored with the model, in the order of its outputs. None if they are missing or unreadable."""
        try:
            if self.kind == SAVED_MODEL:
                return (self.path / "assets" / "labels.txt").read_text(encoding="utf-8").splitlines()
            if self.kind in (TFLITE, ONNX, OPENVINO):
                return json.loads(self.path.with_name(self.path.name + ".json").read_text(encoding="utf-8"))["labels"]
            with zipfile.ZipFile(self.path) as archive:
                return json.loads(archive.read("config.json"))["config"]["record"]["labels"]
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile):
            return None

    def record(self) -> RunRecord | None:
        """The record of the model's training, from its run or from the card of a SavedModel. None if unknown."""
        if self.kind != SAVED_MODEL:
            return RunRecord.beside(self.path)
        try:
            data = json.loads((self.path / "model_card.json").read_text(encoding="utf-8"))["data"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None if data is None else RunRecord(None, str(data))

    def seed(self) -> int:
        """The seed of the model's run, which chose the images of each split. 0 if the run is unknown."""
        record = self.record()
        return 0 if record is None else record.seed or 0

    def trained_on(self) -> str | None:
        """The data of the model's run; for a folder, only its name. None if the run is unknown."""
        record = self.record()
        return None if record is None else record.data

    def model(self) -> keras.Model:
        """Load the Keras model. Raise InputError if it is not a Keras model or cannot be read."""
        if self.kind == WEIGHTS:
            from keras_deepnets.weights import open_model

            return open_model(self.path.as_posix(), self.network, **self.options)
        if self.kind != KERAS:
            raise InputError(
                f"{self.path} is an exported model; give the run folder or the .keras file that it was made of."
            )
        import keras

        import keras_deepnets.models  # noqa: F401 - registers our layers

        try:
            return keras.saving.load_model(self.path, compile=False)
        except Exception as error:  # Keras raises many types, e.g. for a truncated zip or an invalid config
            raise InputError(f"{self.path} cannot be loaded as a Keras model: {_first_line(error)}") from error


def find(path: Path) -> Artifact:
    """Return the trained model at a path. Raise InputError if there is none."""
    if path.is_dir():
        return _in_folder(path)
    if path.is_file():
        kinds = {".keras": KERAS, ".tflite": TFLITE, ".onnx": ONNX, ".xml": OPENVINO}
        if path.suffix not in kinds:
            raise InputError(f"{path} is not a trained model; give {_KINDS}.")
        return Artifact(path, kinds[path.suffix])
    if str(path).lower() in registry.list_models():
        raise InputError(f"{path} is a network without trained weights; train it first: `{PROGRAM} train {path} DATA`.")
    raise InputError(f"{path} does not exist; give {_KINDS}.")


def weights(source: str, network: str | None, options: Mapping[str, Any]) -> Artifact:
    """Return published weights or a weight file as a trained model of `network`, or of the recognised network.

    Raises:
        InputError: The file, the card or the network does not exist.
    """
    check_weights("--weights", source, network)
    return Artifact(Path(source), WEIGHTS, network, options)


def check_weights(owner: str, source: str, network: str | None) -> None:
    """Raise InputError if the card, the file or the network does not exist."""
    constructor = None if network is None else networks.named(network)[0]
    if cards.is_name(source):
        cards.only(source, constructor)
    else:
        reading.check_path(owner, source)


def _in_folder(path: Path) -> Artifact:
    if (path / "model.keras").is_file():
        return Artifact(path / "model.keras", KERAS)
    if (path / "saved_model.pb").is_file():
        return Artifact(path, SAVED_MODEL)
    # TF Serving reads only ASCII digits. isdigit() alone would accept "²".
    names = (entry.name for entry in path.iterdir() if (entry / "saved_model.pb").is_file())
    versions = [name for name in names if name.isascii() and name.isdigit()]
    if versions:
        return Artifact(path / max(versions, key=int), SAVED_MODEL)
    if (path / "config.json").is_file() and (path / "checkpoints").is_dir():
        raise InputError(f"{path} holds an unfinished run; rerun the same `train` command to finish it.")
    raise InputError(f"{path} holds no trained model; give {_KINDS}.")


def _first_line(error: Any) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
