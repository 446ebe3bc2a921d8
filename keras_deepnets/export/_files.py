"""Writing aside and renaming: a reader sees the whole artifact or none of it."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_deepnets.errors import InputError


@contextlib.contextmanager
def folder_aside(directory: Path) -> Iterator[Path]:
    """An empty folder inside `directory`, to be filled and moved away; it is gone afterwards in any case.

    Its name starts with a dot and is no number, so that a server polling `directory` for versions passes it by. Parents are made,
    and unmade if the block fails.

    Raises:
        InputError: in place of an OSError or TensorFlow's file errors (no space, no permission, not a folder).
    """
    made = _missing_parents(directory)
    aside = None
    try:
        with write_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            aside = directory / f".writing-{uuid.uuid4().hex}"
            aside.mkdir()  # not tempfile.mkdtemp: its mode 0700 would keep a server of another user out
            yield aside
    except BaseException:
        _remove(aside)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
    _remove(aside)


@contextlib.contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Turns what goes wrong while writing to `target` into a one-line InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write to {target}: {error.strerror or error}; give a writable place with enough space."
        ) from error
    except Exception as error:
        if not type(error).__module__.startswith("tensorflow.python.framework.errors"):
            raise
        # TensorFlow puts the device, the file and the op around what the system said.
        reason = str(error).splitlines()[0].split("; ")[-1].split(" [Op:")[0]
        raise InputError(f"cannot write to {target}: {reason}; give a writable place with enough space.") from error


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes readable JSON, UTF-8."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def move_to_free_version(aside: Path, directory: Path, version: int | None) -> Path:
    """Renames a finished folder to ``directory/<version>``: an explicit version, or the next one that is free.

    Renaming onto a folder that is there fails, also if another process made it a moment ago; the next number is tried then.

    Raises:
        InputError: the explicit version exists.
    """
    while True:
        target = directory / str(newest_version(directory) + 1 if version is None else version)
        # rename() would replace an *empty* folder without a word.
        if not target.exists():
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                return _rename(aside, target)
        if version is not None:
            raise version_exists(target)


def version_exists(target: Path) -> InputError:
    """The error for a version that is there already."""
    return InputError(
        f"version {target.name} exists in {target.parent}; give another version, or none for the next free one."
    )


def newest_version(directory: Path, is_version: Callable[[Path], bool] = lambda path: True) -> int:
    """The largest integer name in a folder, 0 if there is none; `is_version` says which folders count."""
    if not directory.is_dir():
        return 0
    # isdigit() alone would take "²", and a server reads ASCII digits only.
    names = [
        path.name for path in directory.iterdir() if path.name.isascii() and path.name.isdigit() and is_version(path)
    ]
    return max(map(int, names), default=0)


def _rename(source: Path, target: Path) -> Path:
    try:
        return source.rename(target)
    except OSError as error:
        # POSIX reports a folder that is not empty as ENOTEMPTY, which Python does not count as FileExistsError.
        if target.exists():
            raise FileExistsError(error.errno, error.strerror, str(target)) from error
        raise


def _missing_parents(directory: Path) -> list[Path]:
    """`directory` and its parents that do not exist, innermost first."""
    missing = []
    for path in (directory, *directory.parents):
        if path.exists():
            break
        missing.append(path)
    return missing


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
