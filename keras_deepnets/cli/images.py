"""Images that a user names: labelled sets, and single files."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from keras_deepnets.cli.quiet import load_tensorflow, native_output_held_back
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    from keras_deepnets.data import ImageData


def images_of(source: str, split: str, seed: int) -> ImageData:
    """A split of a labelled set, as `keras_deepnets.data.load` gives it."""
    from keras_deepnets import data

    with loading(source):
        return data.load(source, split=split, seed=seed)


def loading(source: str) -> contextlib.AbstractContextManager[None]:
    """Around the loading of a source: TensorFlow is set up before it looks for devices, and what it says is held back."""
    load_tensorflow()
    if not Path(source).exists():  # a name: a download shows its progress on stderr
        return contextlib.nullcontext()
    return native_output_held_back()


def image_files(paths: list[Path]) -> list[Path]:
    """The image files that are named, those below a folder in the order of their names.

    Raises:
        InputError: a path that does not exist, or a folder without images.
    """
    from keras_deepnets.data.folders import EXTENSIONS

    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS and file.is_file())
            if not found:
                raise InputError(f"{path} holds no images ({' '.join(EXTENSIONS)}).")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"{path} does not exist; give image files, or folders of them.")
    return files
