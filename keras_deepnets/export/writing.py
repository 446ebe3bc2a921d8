"""Writing aside and renaming: a reader sees the whole artifact or none of it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_deepnets.errors import InputError
from keras_deepnets.files import flush, flush_entry, write_errors

# Of a process, and of where its number means something; or of before these were in the name.
_ASIDE = re.compile(r"\.writing-(?:(?P<pid>[0-9]+)-(?P<place>[0-9a-f]{8})-)?[0-9a-f]{32}")
_DAY = 24 * 60 * 60


def check_writable(directory: Path) -> None:
    """Raises `InputError` if a folder cannot be written, or made, as far as can be seen without writing.

    For before work that takes minutes; what it passes may still fail.
    """
    with write_errors(directory):
        existing = next(path for path in (directory, *directory.parents) if path.exists())
        if not existing.is_dir():
            raise _error(errno.ENOTDIR)
        if not os.access(existing, os.W_OK | os.X_OK):
            read_only = hasattr(os, "statvfs") and os.statvfs(existing).f_flag & os.ST_RDONLY
            raise _error(errno.EROFS if read_only else errno.EACCES)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@contextlib.contextmanager
def folder_aside(directory: Path) -> Iterator[Path]:
    """An empty folder inside `directory`, to be filled and moved away; it is gone afterwards in any case.

    Its name starts with a dot and is no number, so that a server polling `directory` for versions passes it by. Parents are made,
    and unmade if the block fails. What killed processes left behind in `directory` is removed.

    Raises:
        InputError: in place of an OSError or TensorFlow's file errors (no space, no permission, not a folder).
    """
    made = _missing_parents(directory)
    aside = None
    try:
        with write_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(directory)
            aside = directory / f".writing-{os.getpid()}-{_place()}-{uuid.uuid4().hex}"
            aside.mkdir()  # not tempfile.mkdtemp: its mode 0700 would keep a server of another user out
            yield aside
    except BaseException:
        _remove(aside)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
    _remove(aside)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes readable JSON, UTF-8."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def move_to_free_version(aside: Path, directory: Path, version: int | None) -> Path:
    """Renames a finished folder to ``directory/<version>``: an explicit version, or the next one that is free.

    It is on the disk before it is renamed, and so is its name afterwards. Renaming onto a folder that is there fails, also if
    another process made it a moment ago; the next number is tried then.

    Raises:
        InputError: the explicit version exists.
    """
    flush(aside)
    while True:
        target = directory / str(newest_version(directory) + 1 if version is None else version)
        # rename() would replace an *empty* folder without a word.
        if not target.exists():
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                renamed = _rename(aside, target)
                flush_entry(directory)
                return renamed
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


def _remove_leftovers(directory: Path) -> None:
    """Removes the folders of processes that were killed, where that is certain, and those of more than a day."""
    for path in directory.glob(".writing-*"):
        found = _ASIDE.fullmatch(path.name)
        with contextlib.suppress(OSError):  # another process may remove it too
            old = found and time.time() - path.stat().st_mtime > _DAY
            if old or (found and found["place"] == _place() and not _is_running(int(found["pid"]))):
                _remove(path)


def _place() -> str:
    """Eight hexadecimal digits of where a process number means something: the host, and on Linux the container."""
    namespace = ""
    with contextlib.suppress(OSError):
        namespace = Path("/proc/self/ns/pid").readlink()
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # a signal ends the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


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
