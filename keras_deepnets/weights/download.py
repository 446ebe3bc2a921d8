"""Downloads into Keras' cache folder: resumed, checked, whole or not there, one process at a time."""

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
"""Columns of a terminal from which a line has room for a bar."""
_MOST_UNPACKED = 20
"""Times its archive that an unpacked file may be large: trained weights hardly shrink."""


class DownloadError(InputError):
    """A file cannot be fetched, or what came is not the right one. The one-line message says where to put it by hand."""


def cache_folder() -> Path:
    """Where downloads are kept: ``$KERAS_HOME/models/keras_deepnets``, by default under ``~/.keras``."""
    return keras_home() / "models" / "keras_deepnets"


@contextlib.contextmanager
def progress_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """What to give to `fetch` as `progress`: a bar on stderr from the first bytes on, which goes when it ends.

    At a terminal that can move its cursor; elsewhere nothing at all is written.
    """
    from rich import progress
    from rich.console import Console
    from rich.table import Column

    console = Console(stderr=True)
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda have, total: None
        return
    # The name gives way where the line is short, then the bar goes; what changes in length has room, or the bar would jump.
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
        bar.start()  # not before: a file that is there already shows nothing

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
    """The file at `path`, downloaded from `url` if it is not there yet.

    It is written beside and renamed when it is whole and right. A broken download goes on where it stopped, after `wait`
    seconds, and so does one of an earlier day; of several processes one downloads and the others wait.

    Args:
        url: http, https or file.
        path: where the file shall be.
        checksum: of the file, ``"sha256:…"``, ``"sha1:…"`` or ``"md5:…"``, the first digits of it at least; None where it is not known.
        member: the file's name in the zip archive that the url is of; None where the url is of the file itself.
        check: looks at what came, which still has another name, and raises ValueError saying what is wrong with it.
        progress: called with bytes so far and in all (None where the server does not say).
        wait: seconds before the first of three tries more; doubled each time.

    Raises:
        DownloadError: the file cannot be had or is not the right one; says where to put it by hand.
        InputError: it cannot be written.
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
            raise DownloadError(by_hand(f"what came was thrown away: {error}")) from error
        archive.unlink()
    try:
        _check_sum(part, checksum)
        if check is not None:
            check(part)
    except ValueError as error:
        part.unlink()
        raise DownloadError(by_hand(f"what came {error}, and was thrown away")) from error
    with part.open("r+b") as stream:
        os.fsync(stream.fileno())
    part.replace(path)


def _check_sum(part: Path, checksum: str | None) -> None:
    """Raises ValueError where the file has another checksum."""
    if checksum is not None:
        kind, _, digits = checksum.partition(":")
        found = digest(part, kind)
        if not found.startswith(digits):
            raise ValueError(f"has the checksum {kind}:{found} and not {checksum}")


def _unpack(archive: Path, member: str, path: Path) -> None:
    """Writes the archive's entry of exactly this name to `path`, and nothing else. Raises where it is not there or grows too much."""
    with zipfile.ZipFile(archive) as entries:
        found = [entry for entry in entries.infolist() if entry.filename == member]
        if len(found) != 1:
            names = ", ".join(repr(name) for name in entries.namelist()[:3]) or "nothing"
            raise ValueError(f"the archive holds {names} and not one file {member!r}")
        size, most = found[0].file_size, _MOST_UNPACKED * archive.stat().st_size
        if size > most:
            raise ValueError(f"{member!r} would grow to {size:,} bytes, more than {_MOST_UNPACKED} times its archive")
        _check_space(path, size)
        # An entry that is longer than it says ends there, and then its checksum is wrong.
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
            if error.code == 416 and part.exists():  # what is there is longer than the file: of another one
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
    """Appends what is missing of `part`, or begins again where the server has another file now. Raises where the connection breaks."""
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
    """For the whole file, or for what follows the bytes that are there, if they are of the file that the server still has."""
    request = urllib.request.Request(url, headers={"User-Agent": "keras-deepnets"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if _validator(part).is_file():
            request.add_header("If-Range", _validator(part).read_text(encoding="ascii"))
    return request


def _check_range(answer: Any, part: Path, have: int) -> None:
    """Raises where the bytes that come are not those that follow; the next try begins again."""
    text = answer.headers.get("Content-Range") or ""
    if not text.startswith(f"bytes {have}-"):
        _forget(part)
        raise http.client.HTTPException(f"the server answers bytes={have}- with Content-Range {text!r}")


def _validator(part: Path) -> Path:
    """Where the ETag of the file is kept that `part` is the beginning of."""
    return part.with_name(f"{part.name}.etag")


def _keep_validator(answer: Any, part: Path) -> None:
    etag = answer.headers.get("ETag") or ""
    if etag.startswith('"') and etag.isascii():  # a weak one promises no same bytes
        _validator(part).write_text(etag, encoding="ascii")
    else:
        _validator(part).unlink(missing_ok=True)


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def _block(answer: Any) -> bytes:
    """The next bytes. What goes wrong with a socket (TLS too) is an error of the connection and none of writing."""
    try:
        return answer.read(_BLOCK)
    except OSError as error:
        raise urllib.error.URLError(error) from error


def _may_recover(error: Exception) -> bool:
    """Whether another try makes sense: an unknown name, a refused connection or a bad certificate is no better a second later."""
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
