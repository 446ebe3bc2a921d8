"""What goes wrong becomes one line on stderr and an exit status; never a traceback, unless it is asked for."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable

from keras_deepnets.errors import InputError

PROGRAM = "keras-deepnets"
DEBUG = "KERAS_DEEPNETS_DEBUG"
OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


class Interrupted(Exception):  # noqa: N818 - it is no error
    """The user stopped a command that has something to say about it, or has said it (no text)."""


class CheckFailed(Exception):  # noqa: N818 - the message says it all
    """A command did its work, and the result is not what it should be."""


def status_of(command: Callable[[], int | None]) -> int:
    """Runs `command`; says what went wrong, if anything did, and gives the exit status."""
    try:
        status = command() or OK
        sys.stdout.flush()  # so that a closed pipe or a full disk shows here, not at the interpreter's end
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else FAILED
    except BrokenPipeError:
        _forget_stdout()
        return FAILED  # as typer says where it meets it first
    except BaseException as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        status, line = _judge(error)
        if status == BAD_INPUT and _is_disk_full(error):
            _forget_stdout()
        if line:
            _say(line)
    else:
        # Typer turns Ctrl-C into this status without a word.
        if status == INTERRUPTED:
            _say("interrupted")
    return status


def _judge(error: BaseException) -> tuple[int, str]:
    """The exit status and the line for an exception."""
    if isinstance(error, Interrupted):
        return INTERRUPTED, str(error)
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return INTERRUPTED, "interrupted"
    if isinstance(error, CheckFailed):
        return FAILED, f"failed: {error}"
    if hasattr(error, "format_message"):  # a usage error; typer has brought its own click along since 0.26
        return BAD_INPUT, f"error: {_usage(error)}"
    if isinstance(error, InputError):
        return BAD_INPUT, f"error: {error}"
    if _is_disk_full(error):
        place = f" for {error.filename}" if getattr(error, "filename", None) else ""
        return BAD_INPUT, f"error: No space left on the device{place}; make room and run the same command again."
    if type(error).__name__ == "DataLossError":
        return BAD_INPUT, (
            f"error: The data's record files are damaged ({str(error).splitlines()[0]}); `{PROGRAM} data check FOLDER` says which."
        )
    if isinstance(error, OSError):
        return BAD_INPUT, f"error: {_os_error(error)}"
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return BAD_INPUT, "error: Out of memory; use smaller batches (--set batch_size=…) or images (--image-size)."
    hint = "" if os.environ.get(DEBUG) else f" (set {DEBUG}=1 for the traceback, and please report it)"
    return FAILED, f"internal error: {type(error).__name__}: {error}{hint}"


def _usage(error: BaseException) -> str:
    """A usage error's sentence and where the rules stand."""
    message = error.format_message().strip()  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else PROGRAM
    return f"{message}{'' if message.endswith(('.', '?')) else '.'} See `{where} --help`."


def _os_error(error: OSError) -> str:
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' -> '.join(names)}: {error.strerror}." if names and error.strerror else str(error)


def _is_disk_full(error: BaseException) -> bool:
    from keras_deepnets.training.errors import is_disk_full

    return is_disk_full(error)


def _say(line: str) -> None:
    print(f"{PROGRAM}: {' '.join(line.split())}", file=sys.stderr)


def _forget_stdout() -> None:
    """What stdout still holds has nowhere to go: without this the interpreter complains of it when it ends."""
    with contextlib.suppress(OSError, ValueError):  # replaced by something that is no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
