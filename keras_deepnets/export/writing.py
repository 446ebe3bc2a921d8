"""Write to a temporary folder and rename, so that readers see the whole artifact or nothing."""

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

# Name of a process's folder: its number and the place where that number is valid; or the form before these were added.
_ASIDE = re.compile(r"\.writing-(?:(?P<pid>[0-9]+)-(?P<place>[0-9a-f]{8})-)?[0-9a-f]{32}")
_DAY = 24 * 60 * 60


def check_writable(directory: Path) -> None:
    """Raise `InputError` if a folder cannot be written or created, as far as this can be checked without writing.

    Call it before work that takes minutes. Writing may still fail later.
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
    """An empty folder inside `directory`, to be filled and moved away. It is always removed at the end.

    Its name starts with a dot and is not a number, so a server that polls `directory` for versions ignores it. Missing parents are
    created, and removed again if the block fails. Folders that killed processes left in `directory` are removed.

    Raises:
        InputError: Replaces an OSError or a file error of TensorFlow (no space, no permission, not a folder).
    """
    made = _missing_parents(directory)
    aside = None
    try:
        with write_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            _remove_leftovers(directory)
            aside = directory / f".writing-{os.getpid()}-{_place()}-{uuid.uuid4().hex}"
            aside.mkdir()  # not tempfile.mkdtemp, whose mode 0700 would lock out a server that runs as another user
            yield aside
    except BaseException:
        _remove(aside)
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise
    _remove(aside)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Write readable JSON in UTF-8."""
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def move_to_free_version(aside: Path, directory: Path, version: int | None) -> Path:
    """Rename a finished folder to ``directory/<version>``, where the version is explicit or the next free one.

    The folder is flushed to disk before the rename, and its new name afterwards. Renaming onto an existing folder fails, even if
    another process created it a moment ago. The next number is then tried.

    Raises:
        InputError: The explicit version exists.
    """
    flush(aside)
    while True:
        target = directory / str(newest_version(directory) + 1 if version is None else version)
        # rename() would silently replace an *empty* folder.
        if not target.exists():
            with contextlib.suppress(FileExistsError, NotADirectoryError):
                renamed = _rename(aside, target)
                flush_entry(directory)
                return renamed
        if version is not None:
            raise version_exists(target)


def version_exists(target: Path) -> InputError:
    """The error for a version that exists already."""
    return InputError(
        f"version {target.name} exists in {target.parent}; give another version, or leave it out for the next free one."
    )


def newest_version(directory: Path, is_version: Callable[[Path], bool] = lambda path: True) -> int:
    """The largest integer name in a folder, or 0 if there is none. `is_version` decides which folders count."""
    if not directory.is_dir():
        return 0
    # isdigit() alone would accept "²", and a server reads only ASCII digits.
    names = [
        path.name for path in directory.iterdir() if path.name.isascii() and path.name.isdigit() and is_version(path)
    ]
    return max(map(int, names), default=0)


def _rename(source: Path, target: Path) -> Path:
    try:
        return source.rename(target)
    except OSError as error:
        # POSIX reports a non-empty folder as ENOTEMPTY, which Python does not map to FileExistsError.
        if target.exists():
            raise FileExistsError(error.errno, error.strerror, str(target)) from error
        raise


def _remove_leftovers(directory: Path) -> None:
    """Remove the folders of processes that are certainly dead, and those older than a day."""
    for path in directory.glob(".writing-*"):
        found = _ASIDE.fullmatch(path.name)
        with contextlib.suppress(OSError):  # another process may remove it too
            old = found and time.time() - path.stat().st_mtime > _DAY
            if old or (found and found["place"] == _place() and not _is_running(int(found["pid"]))):
                _remove(path)


def _place() -> str:
    """Eight hexadecimal digits that identify where a process number is valid: the host, and on Linux the container."""
    namespace: str | Path = ""
    with contextlib.suppress(OSError):
        namespace = Path("/proc/self/ns/pid").readlink()
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    if os.name == "nt":  # a signal would end the process there
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's process
        return True
    return True


def _missing_parents(directory: Path) -> list[Path]:
    """`directory` and its missing parents, innermost first."""
    missing = []
    for path in (directory, *directory.parents):
        if path.exists():
            break
        missing.append(path)
    return missing


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
