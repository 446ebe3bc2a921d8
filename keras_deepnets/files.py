"""Files that are either whole or not there: written aside, then renamed; and the folder of Keras' own."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_deepnets.errors import InputError

# What a file system may say to somebody who writes.
_REFUSALS = (
    *("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EPERM", "EROFS", "EIO", "ESTALE"),
    *("ENOENT", "ENOTDIR", "EISDIR", "EMFILE", "ENFILE", "ENAMETOOLONG"),
)
_WORDS = tuple(os.strerror(getattr(errno, name)) for name in _REFUSALS if hasattr(errno, name))


def keras_home() -> Path:
    """Keras' folder: ``$KERAS_HOME``, by default ``~/.keras``."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path to write to (a file, or a folder that the caller makes) which becomes `path` when the block ends well.

    What stood at `path` is replaced only then. If the block fails, nothing of it stays behind.
    The name keeps the ending of `path`, which some writers go by.
    """
    aside = path.with_name(f".partial-{path.name}")
    _remove(aside)
    try:
        yield aside
        flush(aside)
        if path.is_dir():
            shutil.rmtree(path)
        aside.replace(path)
        flush_entry(path.parent)
    except BaseException:
        _remove(aside)
        raise


def write_json(path: Path, values: Any) -> None:
    """Writes plain values as JSON, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def digest(path: Path, kind: str = "sha256") -> str:
    """The digest of a file, in hexadecimal; `kind` as for `hashlib.new`."""
    found = hashlib.new(kind)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Brings a file, or a folder and all in it, to the disk: a rename may otherwise survive a power cut that the data does not."""
    if path.is_dir():
        for entry in path.iterdir():
            flush(entry)
        flush_entry(path)
        return
    with path.open("r+b") as stream:
        os.fsync(stream.fileno())


def flush_entry(folder: Path) -> None:
    """Brings to the disk which names a folder holds."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


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
        if not _is_of_writing(error, target):
            raise
        # TensorFlow puts the device, the file and the op around what the system said.
        reason = str(error).splitlines()[0].split("; ")[-1].split(" [Op:")[0]
        raise InputError(f"cannot write to {target}: {reason}; give a writable place with enough space.") from error


def _is_of_writing(error: Exception, target: Path) -> bool:
    """Whether an error of TensorFlow comes from the file system: of the others, running out of memory has the same class."""
    if not type(error).__module__.startswith("tensorflow.python.framework.errors"):
        return False
    return str(target) in str(error) or any(words in str(error) for words in _WORDS)
