"""Save a network's weights together with the information needed to rebuild the network."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.weights.loading import as_record
from keras_deepnets.weights.names import weights_by_name
from keras_deepnets.weights.reading import RECORD

if TYPE_CHECKING:
    import keras

SUFFIXES = (".safetensors", ".weights.h5", ".keras")


_TYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"}
_TYPES |= {f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)} | {
    f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)
}
"""NumPy type names to safetensors type names."""


def check_target(path: Any) -> Path:
    """Return the path of a file to write. Raise InputError if the format is not supported or the folder does not exist."""
    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise InputError(f"weights are saved as {', '.join(SUFFIXES)}; {str(path)!r} has another suffix.")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; name a file.")
    if not path.parent.is_dir():
        raise InputError(f"there is no folder {str(path.parent)!r} to save {path.name} in; create it first.")
    return path


def save(model: keras.Model, path: Any) -> Path:
    """Save the weights of `model`. See `keras_deepnets.save_weights`."""
    from keras_deepnets.files import write_errors, written_aside

    path = check_target(path)
    with write_errors(path), written_aside(path) as aside:
        if path.name.endswith(".safetensors"):
            save_arrays(weights_by_name(model), as_record(model), aside)
        elif path.name.endswith(".keras"):
            model.save(aside)
        else:
            model.save_weights(aside)
            _add_record(aside, as_record(model))
    return path


def save_arrays(arrays: Mapping[str, Any], record: dict[str, Any], path: Path) -> None:
    """Write a safetensors file, one array after the other.

    The writer of the safetensors package needs all arrays at once and holds them in memory twice.

    Args:
        arrays: Name to array or weight.
        record: Record to store in the metadata.
        path: Path of the file.

    Raises:
        InputError: The format does not support the data type of an array.
    """
    header: dict[str, Any] = {"__metadata__": {RECORD: json.dumps(record)}}
    kinds = {name: _type_name(name, array) for name, array in arrays.items()}
    names = sorted(arrays, key=lambda name: (-_bytes(kinds[name]), name))  # largest types first: all arrays are aligned
    end = 0
    for name in names:
        shape = [int(side) for side in arrays[name].shape]
        begin, end = end, end + math.prod(shape) * _bytes(kinds[name])
        header[name] = {"dtype": _TYPES[kinds[name]], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            array = _array(arrays[name])
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            file.write(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)


def _type_name(name: str, array: Any) -> str:
    kind = getattr(array.dtype, "name", array.dtype)
    if kind not in _TYPES:
        raise InputError(f"{name} is of type {kind}, which safetensors files cannot hold; save it as .keras.")
    return kind


def _bytes(kind: str) -> int:
    """Size in bytes of one number of a type."""
    return int("".join(filter(str.isdigit, kind)) or 8) // 8


def _array(weight: Any) -> np.ndarray:
    """The values of a weight, without a copy if the backend exposes its memory."""
    if isinstance(weight, np.ndarray):
        return weight
    from keras import ops

    try:
        return np.ascontiguousarray(memoryview(ops.convert_to_tensor(weight)))
    except (TypeError, ValueError, BufferError):
        return np.ascontiguousarray(ops.convert_to_numpy(weight))


def _add_record(path: Path, record: dict[str, Any]) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        file.attrs[RECORD] = json.dumps(record)
