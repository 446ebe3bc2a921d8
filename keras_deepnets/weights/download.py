"""Downloads into Keras' cache folder: resumed, checked, whole or not there, one process at a time."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from keras_deepnets.errors import InputError
from keras_deepnets.training.files import digest

_BLOCK = 1 << 20
_TRIES = 4
_TIMEOUT = 30


def cache_folder() -> Path:
    """Where downloads are kept: ``$KERAS_HOME/models/keras_deepnets``, by default under ``~/.keras``."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / "keras_deepnets"


@contextlib.contextmanager
def progress_bar(name: str) -> Iterator[Callable[[int, int | None], None]]:
    """What to give to `fetch` as `progress`: a bar on stderr, at a terminal only, from the first bytes on."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    console = Console(stderr=True)
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None, visible=False)
        yield lambda have, total: bar.update(task, completed=have, total=total, visible=True)


def fetch(
    url: str,
    path: Path,
    *,
    checksum: str | None = None,
    progress: Callable[[int, int | None], None] | None = None,
    wait: float = 1.0,
) -> Path:
    """The file at `path`, downloaded from `url` if it is not there yet.

    It is written beside and renamed when it is whole and right. A broken download goes on where it stopped, after `wait`
    seconds, and so does one of an earlier day; of several processes one downloads and the others wait.

    Args:
        url: http, https or file.
        path: where the file shall be.
        checksum: ``"sha256:…"`` or ``"md5:…"``, the first digits of it at least; None checks the length only.
        progress: called with bytes so far and in all (None where the server does not say).
        wait: seconds before the first of three tries more; doubled each time.

    Raises:
        InputError: the file cannot be had or is not the right one; says where to put it by hand.
    """
    from filelock import FileLock

    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(path) + ".lock"):
            if not path.is_file():
                _download(url, path, checksum, progress, wait)
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; set KERAS_HOME to a folder with enough space."
        ) from error
    return path


def _download(
    url: str, path: Path, checksum: str | None, progress: Callable[[int, int | None], None] | None, wait: float
) -> None:
    part = path.with_name(path.name + ".part")
    for attempt in range(_TRIES):
        last = attempt == _TRIES - 1
        try:
            _continue(url, part, progress)
            break
        except urllib.error.HTTPError as error:
            if error.code == 416 and part.exists():  # what is there is longer than the file: of another one
                part.unlink()
            elif error.code < 500 or last:
                raise InputError(_by_hand(url, path, f"the server says {error.code} {error.reason}")) from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            if last or not _may_recover(error):
                raise InputError(_by_hand(url, path, f"{getattr(error, 'reason', None) or error}")) from error
        time.sleep(wait * 2**attempt)
    else:
        raise InputError(_by_hand(url, path, "the download did not end"))
    if checksum is not None:
        kind, _, digits = checksum.partition(":")
        found = digest(part, kind)
        if not found.startswith(digits):
            part.unlink()
            problem = f"what came has the checksum {kind}:{found} and not {checksum}, and was thrown away"
            raise InputError(_by_hand(url, path, problem))
    with part.open("r+b") as stream:
        os.fsync(stream.fileno())
    part.replace(path)


def _continue(url: str, part: Path, progress: Callable[[int, int | None], None] | None) -> None:
    """Appends what is missing of `part`. Raises where the connection breaks before its end."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "keras-deepnets"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
        resumed = have and getattr(answer, "status", None) == 206
        have = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else have + int(length)
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - have > free:
            raise OSError(28, f"No space left for {total - have:,} bytes ({free:,} are free)")
        with part.open("ab" if resumed else "wb") as file:
            while block := answer.read(_BLOCK):
                file.write(block)
                have += len(block)
                if progress is not None:
                    progress(have, total)
    if total is not None and have < total:
        raise http.client.IncompleteRead(b"", total - have)


def _may_recover(error: Exception) -> bool:
    """Whether another try makes sense: a name that does not resolve or a refused connection is no better a second later."""
    reason = getattr(error, "reason", error)
    return not isinstance(reason, ConnectionRefusedError) and type(reason).__name__ != "gaierror"


def _by_hand(url: str, path: Path, problem: str) -> str:
    name = urllib.parse.urlsplit(url).path.rpartition("/")[2]
    return f"cannot download {name} from {url}: {problem}. Put the file there by hand: {path}"
