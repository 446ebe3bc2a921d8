"""The exported models in a folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from keras_deepnets.export import single_file

_KINDS = {".tflite": "TFLite", ".onnx": "ONNX", ".xml": "OpenVINO"}
_DEEPEST = 4  # levels of folders: a search must not read a whole disk


@dataclass(frozen=True)
class Exported:
    """An exported model: its path, its kind, and its size in bytes."""

    path: Path
    kind: str
    bytes: int


def exports_in(folders: Iterable[Path]) -> list[Exported]:
    """Return the SavedModels and the TFLite, ONNX and OpenVINO files in some folders, sorted by path."""
    found: dict[Path, Exported] = {}
    for folder in folders:
        for path in _below(folder, _DEEPEST):
            files = single_file.data_files(path)
            if path.suffix in _KINDS and (path.suffix != ".xml" or len(files) == 2):  # XML files are many things
                found[path] = Exported(path, _KINDS[path.suffix], sum(file.stat().st_size for file in files))
            elif path.name == "saved_model.pb":
                size = sum(file.stat().st_size for file in path.parent.rglob("*") if file.is_file())
                found[path.parent] = Exported(path.parent, "SavedModel", size)
    return [found[path] for path in sorted(found)]


def _below(folder: Path, levels: int) -> Iterable[Path]:
    if not folder.is_dir():
        if folder.is_file():
            yield folder
        return
    for entry in sorted(folder.iterdir()):
        if entry.is_file():
            yield entry
        elif entry.is_dir() and levels > 1 and not entry.name.startswith("."):
            yield from _below(entry, levels - 1)
