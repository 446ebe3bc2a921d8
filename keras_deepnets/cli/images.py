"""Load the images that a user names: labelled data sets and single files."""

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
    """Load a split of a labelled data set with `keras_deepnets.data.load`."""
    from keras_deepnets import data

    with loading(source):
        return data.load(source, split=split, seed=seed)


@contextlib.contextmanager
def loading(source: str) -> Iterator[None]:
    """Context for loading a source: set up TensorFlow before it looks for devices, and hold back its output.

    Messages about skipped files are printed at the end.
    """
    load_tensorflow()
    from keras_deepnets.data import files

    # Loading a TFDS name may download data and show progress on stderr, so its output is not held back.
    quiet = native_output_held_back() if Path(source).exists() else contextlib.nullcontext()
    with files.lines_held_back(), quiet:
        yield


def image_files(paths: list[Path]) -> list[Path]:
    """Return the named image files. A folder gives all its images, sorted by name. Print a note about skipped files.

    Raises:
        InputError: A path does not exist, or a folder holds no images.
    """
    from keras_deepnets.data import files

    named: list[Path] = []
    left_out: dict[Path, Counter[str]] = {}
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
            raise InputError(f"{path} does not exist; give image files or folders of images.")
    for folder, counts in left_out.items():
        files.say_left_out(folder, counts)
    return named
