"""Atomic writes: a file is complete or does not exist. Also Keras' own folder, digests and write errors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_deepnets.errors import InputError

# Reasons for which a file system refuses to write.
_REFUSALS = (
    *("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EPERM", "EROFS", "EIO", "ESTALE"),
    *("ENOENT", "ENOTDIR", "EISDIR", "EMFILE", "ENFILE", "ENAMETOOLONG"),
)
_WORDS = tuple(os.strerror(getattr(errno, name)) for name in _REFUSALS if hasattr(errno, name))


def keras_home() -> Path:
    """Keras' folder: ``$KERAS_HOME``, or ``~/.keras`` by default."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary path (for a file, or a folder that the caller creates) that replaces `path` when the block succeeds.

    Until then, whatever exists at `path` is kept. If the block fails, the temporary path is removed.
    The temporary name keeps the suffix of `path`, because some writers depend on it.
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
    """Writes plain values as JSON, atomically."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def locked(folder: Path, busy: Callable[[], str]) -> Iterator[None]:
    """Creates a folder if it is missing, and keeps other processes out of it during the block.

    The system releases the lock when the process ends, however it ends. A file system without locks is used without one.

    Args:
        folder: The folder.
        busy: Returns the message if another process holds the lock.

    Raises:
        InputError: Another process holds the lock, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    with write_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.suppress(NotImplementedError):
                lock.acquire(timeout=0)
        except Timeout:  # an OSError too
            raise InputError(busy()) from None
    try:
        yield
    finally:
        lock.release()


def digest(path: Path, kind: str = "sha256") -> str:
    """The hexadecimal digest of a file. `kind` is an algorithm of `hashlib.new`."""
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
    """Flushes a file, or a folder with all its content, to the disk.

    Otherwise, a rename may survive a power failure although the data does not.
    """
    if path.is_dir():
        for entry in path.iterdir():
            flush(entry)
        flush_entry(path)
        return
    with path.open("r+b") as stream:
        os.fsync(stream.fileno())


def flush_entry(folder: Path) -> None:
    """Flushes the list of names in a folder to the disk."""
    if os.name == "nt":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Turns errors while writing to `target` into a one-line InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot write to {target}: {error.strerror or error}; give a writable place with enough space."
        ) from error
    except Exception as error:
        if not _is_of_writing(error, target):
            raise
        # TensorFlow adds the device, the file and the op to the system's message.
        reason = str(error).splitlines()[0].split("; ")[-1].split(" [Op:")[0]
        raise InputError(f"cannot write to {target}: {reason}; give a writable place with enough space.") from error


def _is_of_writing(error: Exception, target: Path) -> bool:
    """Whether a TensorFlow error comes from the file system. Running out of memory raises the same class."""
    if not type(error).__module__.startswith("tensorflow.python.framework.errors"):
        return False
    return str(target) in str(error) or any(words in str(error) for words in _WORDS)
