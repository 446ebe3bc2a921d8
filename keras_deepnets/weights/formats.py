"""Check from a file's first bytes and its length whether it matches its suffix. Nothing is loaded."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

_HDF5 = b"\x89HDF\r\n\x1a\n"
_PICKLE = b"\x80"


def check(path: Path, name: str) -> None:
    """Raise ValueError unless `path` has the form of a complete weights file called `name`.

    The text of the error completes a sentence that begins with "the file".
    """
    if name.endswith(".safetensors"):
        _check_safetensors(path)
    elif name.endswith((".h5", ".hdf5")):
        _check_hdf5(path)
    elif not zipfile.is_zipfile(path) and (name.endswith(".keras") or _head(path, 1) != _PICKLE):
        raise ValueError(f"is not a complete zip archive, as {_kind(name)} files are")


def _check_safetensors(path: Path) -> None:
    size = path.stat().st_size
    length = int.from_bytes(_head(path, 8), "little")
    try:
        if not 2 <= length <= size - 8:
            raise ValueError("no header")
        header = json.loads(_head(path, 8 + length)[8:])
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError("does not begin as safetensors files do") from error
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise ValueError(f"has {size:,} bytes, but {expected:,} according to its header")


def _check_hdf5(path: Path) -> None:
    import h5py

    if _head(path, len(_HDF5)) != _HDF5:
        raise ValueError("does not begin as HDF5 files do")
    try:
        h5py.File(path, "r").close()
    except OSError as error:
        raise ValueError(f"is not a complete HDF5 file ({error})") from error


def _head(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)


def _kind(name: str) -> str:
    return ".keras" if name.endswith(".keras") else "torch's"
