"""Download files into Keras' cache folder. Downloads resume, are checked, and appear only when complete.

A lock lets only one process download a file.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from keras_deepnets.errors import InputError
from keras_deepnets.files import digest, keras_home

_BLOCK = 1 << 20
_TRIES = 4
_TIMEOUT = 30
_WIDE = 64
"""Minimum width of a terminal, in columns, for a progress bar."""
_MOST_UNPACKED = 20
"""Maximum ratio of an unpacked file's size to its archive's. Trained weights hardly compress."""


class DownloadError(InputError):
    """A file cannot be downloaded, or the downloaded file is wrong. The one-line message says where to put it by hand."""


def cache_folder() -> Path:
    """The folder of downloads: ``$KERAS_HOME/models/keras_deepnets``, by default under ``~/.keras``."""
    return keras_home() / "models" / "keras_deepnets"


@contextlib.contextmanager
def progress_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """Yield a function for the `progress` argument of `fetch`. It shows a bar on stderr until the download ends.

    The bar needs a terminal that can move its cursor. Elsewhere, nothing is written.
    """
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda have, total: None
        return
    # In a narrow terminal, the name is cut first, then the bar is dropped. Numbers have a minimum width so that the bar does not jump.
    figures = [
        progress.DownloadColumn(table_column=Column(no_wrap=True, min_width=13, justify="right")),
        progress.TransferSpeedColumn(table_column=Column(no_wrap=True, min_width=10, justify="right")),
    ]
    if console.width >= _WIDE:
        figures.insert(0, progress.BarColumn(20, table_column=Column(no_wrap=True)))
        figures.append(progress.TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True, min_width=5)))
    title = progress.TextColumn("{task.description}", table_column=Column(overflow="ellipsis"))
    bar = progress.Progress(title, *figures, console=console, transient=True)
    task = bar.add_task(name, total=None)

    def show(have: int, total: int | None) -> None:
        bar.update(task, completed=have, total=total)
        bar.start()  # start late, so that an existing file shows no bar

    try:
        yield show
    finally:
        bar.stop()


def fetch(
    url: str,
    path: Path,
    *,
    checksum: str | None = None,
    member: str | None = None,
    check: Callable[[Path], None] | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    wait: float = 1.0,
) -> Path:
    """Return the file at `path`. Download it from `url` if it does not exist.

    The download has a temporary name until it is complete and checked. An interrupted download resumes after `wait` seconds, or in a
    later call. If several processes want the same file, one downloads it and the others wait.

    Args:
        url: A URL with the scheme http, https or file.
        path: Path of the file.
        checksum: Checksum of the file: ``"sha256:…"``, ``"sha1:…"`` or ``"md5:…"``, at least the first digits. None if unknown.
        member: The file's name if the URL is a zip archive. None if the URL is the file itself.
        check: Function that inspects the downloaded file under its temporary name. It raises ValueError with the reason if the file is
            wrong.
        progress: Function called with the number of bytes so far and in total. The total is None if the server does not send it.
        wait: Seconds before the first of three more tries. The time doubles with each try.

    Raises:
        DownloadError: The file cannot be downloaded or is wrong. The message says where to put it by hand.
        InputError: The file cannot be written.
    """
    from filelock import FileLock

    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(path) + ".lock"):
            if not path.is_file():
                _download(url, path, checksum, member, check, progress, wait)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; set KERAS_HOME to a folder with enough space."
        ) from error
    return path


def _download(
    url: str,
    path: Path,
    checksum: str | None,
    member: str | None,
    check: Callable[[Path], None] | None,
    progress: Callable[[int, int | None], None] | None,
    wait: float,
) -> None:
    part = path.with_name(path.name + ".part")
    archive = part if member is None else path.with_name(path.name + ".zip.part")
    by_hand = functools.partial(_by_hand, url, path, member)
    _download_whole(url, archive, by_hand, progress, wait)
    if member is not None:
        try:
            _unpack(archive, member, part)
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            part.unlink(missing_ok=True)
            archive.unlink()
            raise DownloadError(by_hand(f"the downloaded archive was deleted: {error}")) from error
        archive.unlink()
    try:
        _check_sum(part, checksum)
        if check is not None:
            check(part)
    except ValueError as error:
        part.unlink()
        raise DownloadError(by_hand(f"the downloaded file {error}, and was deleted")) from error
    with part.open("r+b") as stream:
        os.fsync(stream.fileno())
    part.replace(path)


def _check_sum(part: Path, checksum: str | None) -> None:
    """Raise ValueError if the file has another checksum."""
    if checksum is not None:
        kind, _, digits = checksum.partition(":")
        found = digest(part, kind)
        if not found.startswith(digits):
            raise ValueError(f"has the checksum {kind}:{found} and not {checksum}")


def _unpack(archive: Path, member: str, path: Path) -> None:
    """Write the archive's entry with exactly this name to `path`. Raise an error if it is missing or too large when unpacked."""
    with zipfile.ZipFile(archive) as entries:
        found = [entry for entry in entries.infolist() if entry.filename == member]
        if len(found) != 1:
            names = ", ".join(repr(name) for name in entries.namelist()[:3]) or "nothing"
            raise ValueError(f"the archive holds {names} and not one file {member!r}")
        size, most = found[0].file_size, _MOST_UNPACKED * archive.stat().st_size
        if size > most:
            raise ValueError(f"{member!r} would grow to {size:,} bytes, more than {_MOST_UNPACKED} times its archive")
        _check_space(path, size)
        # Reading stops at the size in the archive's header. For a longer entry, the checksum is then wrong.
        with entries.open(found[0]) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, _BLOCK)


def _check_space(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise OSError(28, f"No space left for {size:,} bytes ({free:,} are free)")


def _download_whole(
    url: str,
    part: Path,
    by_hand: Callable[[str], str],
    progress: Callable[[int, int | None], None] | None,
    wait: float,
) -> None:
    for attempt in range(_TRIES):
        last = attempt == _TRIES - 1
        try:
            _continue(url, part, progress)
            _validator(part).unlink(missing_ok=True)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416 and part.exists():  # longer than the server's file: another file
                _forget(part)
            elif error.code < 500 or last:
                raise DownloadError(by_hand(f"the server says {error.code} {error.reason}")) from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            if last or not _may_recover(error):
                raise DownloadError(by_hand(f"{getattr(error, 'reason', None) or error}")) from error
        time.sleep(wait * 2**attempt)
    else:
        raise DownloadError(by_hand("the download did not end"))


def _continue(url: str, part: Path, progress: Callable[[int, int | None], None] | None) -> None:
    """Append the missing bytes of `part`. Start over if the server's file has changed. Raise an error if the connection breaks."""
    have = part.stat().st_size if part.exists() else 0
    with urllib.request.urlopen(_request(url, part, have), timeout=_TIMEOUT) as answer:
        resumed = have and getattr(answer, "status", None) == 206
        if resumed:
            _check_range(answer, part, have)
        else:
            have = 0
            _keep_validator(answer, part)
        length = answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        _check_space(part, 0 if total is None else total - have)
        with part.open("ab" if resumed else "wb") as file:
            while block := _block(answer):
                file.write(block)
                have += len(block)
                if progress is not None:
                    progress(have, total)
    if total is not None and have < total:
        raise http.client.IncompleteRead(b"", total - have)


def _request(url: str, part: Path, have: int) -> urllib.request.Request:
    """Request the whole file, or the bytes after the existing ones if the server still has the same file."""
    request = urllib.request.Request(url, headers={"User-Agent": "keras-deepnets"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if _validator(part).is_file():
            request.add_header("If-Range", _validator(part).read_text(encoding="ascii"))
    return request


def _check_range(answer: Any, part: Path, have: int) -> None:
    """Raise an error if the answer does not continue the existing bytes. The next try starts over."""
    text = answer.headers.get("Content-Range") or ""
    if not text.startswith(f"bytes {have}-"):
        _forget(part)
        raise http.client.HTTPException(f"the server answers bytes={have}- with Content-Range {text!r}")


def _validator(part: Path) -> Path:
    """Path of the file that stores the ETag of a partial download."""
    return part.with_name(f"{part.name}.etag")


def _keep_validator(answer: Any, part: Path) -> None:
    etag = answer.headers.get("ETag") or ""
    if etag.startswith('"') and etag.isascii():  # a weak ETag does not guarantee identical bytes
        _validator(part).write_text(etag, encoding="ascii")
    else:
        _validator(part).unlink(missing_ok=True)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def _block(answer: Any) -> bytes:
    """Read the next bytes. Socket and TLS errors become connection errors, so that they differ from write errors."""
    try:
        return answer.read(_BLOCK)
    except OSError as error:
        raise urllib.error.URLError(error) from error


def _may_recover(error: Exception) -> bool:
    """Whether another try may succeed. It cannot after an unknown host name, a refused connection or a bad certificate."""
    reason = getattr(error, "reason", error)
    if isinstance(reason, OSError) and str(reason).startswith(
        "Tunnel connection failed: 4"
    ):  # a proxy that blocks the host
        return False
    return (
        not isinstance(reason, (ConnectionRefusedError, ssl.SSLCertVerificationError))
        and type(reason).__name__ != "gaierror"
    )


def _by_hand(url: str, path: Path, member: str | None, problem: str) -> str:
    name = urllib.parse.urlsplit(url).path.rpartition("/")[2]
    what = "the file" if member is None else f"the unpacked {member}"
    return f"cannot download {name} from {url}: {problem}. Put {what} there by hand: {path}, or pass it as weights=FILE (--weights FILE)."
