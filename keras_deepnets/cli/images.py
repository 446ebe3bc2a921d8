"""Images that a user names: labelled sets, and single files."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
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


@contextlib.contextmanager
def loading(source: str) -> Iterator[None]:
    """Around the loading of a source: TensorFlow is set up before it looks for devices, and what it says is held back.

    Which files were left out is said at the end.
    """
    load_tensorflow()
    from keras_deepnets.data import files

    # A name: a download shows its progress on stderr.
    quiet = native_output_held_back() if Path(source).exists() else contextlib.nullcontext()
    with files.lines_held_back(), quiet:
        yield


def image_files(paths: list[Path]) -> list[Path]:
    """The image files that are named, those below a folder in the order of their names; says which others were left out.

    Raises:
        InputError: a path that does not exist, or a folder without images.
    """
    from keras_deepnets.data import files

    named: list[Path] = []
    left_out = {}
    for path in paths:
        if path.is_dir():
            left_out[path] = Counter()
            found = sorted(Path(entry.path) for entry in files.images(path, left_out[path]))
            if not found:
                raise InputError(f"{path} holds no images ({' '.join(files.EXTENSIONS)}).")
            named += found
        elif path.is_file():
            named.append(path)
        else:
            raise InputError(f"{path} does not exist; give image files, or folders of them.")
    for folder, counts in left_out.items():
        files.say_left_out(folder, counts)
    return named
