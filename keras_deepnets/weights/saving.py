"""Writing a network's numbers with what is needed to make it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.weights.loading import as_record, weights_by_name
from keras_deepnets.weights.reading import RECORD

if TYPE_CHECKING:
    import keras

SUFFIXES = (".safetensors", ".weights.h5", ".keras")


def check_target(path: Any) -> Path:
    """The path of a file to write. Raises InputError for another format, or where it cannot be written."""
    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"weights are saved as {', '.join(SUFFIXES)}; {str(path)!r} is none of these.")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; name a file.")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {str(path.parent)!r} to save {path.name} in; make it first.")
    return path


def save(model: keras.Model, path: Any) -> Path:
    """Writes the weights of `model`; see `keras_deepnets.save_weights`."""
    from keras_deepnets.export._files import write_errors
    from keras_deepnets.training.files import written_aside

    path = check_target(path)
    with write_errors(path), written_aside(path) as aside:
        if path.name.endswith(".safetensors"):
            save_arrays(_arrays(model), as_record(model), aside)
        elif path.name.endswith(".keras"):
            model.save(aside)
        else:
            model.save_weights(aside)
            _add_record(aside, as_record(model))
    return path


def save_arrays(arrays: dict[str, np.ndarray], record: dict[str, Any], path: Path) -> None:
    """Writes a safetensors file of ours."""
    from safetensors.numpy import save_file

    path.touch()
    mode = path.stat().st_mode
    save_file(arrays, path, metadata={RECORD: json.dumps(record)})
    path.chmod(mode)  # safetensors makes files that only their owner may read


def _arrays(model: keras.Model) -> dict[str, np.ndarray]:
    return {name: _array(weight) for name, weight in weights_by_name(model).items()}


def _array(weight: Any) -> np.ndarray:
    """The numbers of a weight, without a copy where its backend shows its memory."""
    from keras import ops

    try:
        return np.ascontiguousarray(memoryview(ops.convert_to_tensor(weight)))
    except (TypeError, ValueError, BufferError):
        return np.ascontiguousarray(ops.convert_to_numpy(weight))


def _add_record(path: Path, record: dict[str, Any]) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        file.attrs[RECORD] = json.dumps(record)
