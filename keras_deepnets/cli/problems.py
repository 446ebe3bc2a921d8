"""Turn errors into one line on stderr and an exit status. Tracebacks appear only on request."""

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


class Interrupted(Exception):  # noqa: N818 - not an error
    """The user stopped a command. The text is the message to print; it is empty if the command has printed one."""


class CheckFailed(Exception):  # noqa: N818 - not an error of the program
    """A command finished, and its result failed a check."""


def status_of(command: Callable[[], int | None]) -> int:
    """Run `command`, print its error if there is one, and return the exit status."""
    try:
        status = command() or OK
        sys.stdout.flush()  # a closed pipe or a full disk raises here, not when the interpreter exits
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else FAILED
    except BrokenPipeError:
        _forget_stdout()
        return FAILED  # same status as typer's
    except BaseException as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        status, line = _judge(error)
        if status == BAD_INPUT and _is_disk_full(error):
            _forget_stdout()
        if line:
            _say(line)
    else:
        # Typer turns Ctrl-C into this status without a message.
        if status == INTERRUPTED:
            _say("interrupted")
    return status


def _judge(error: BaseException) -> tuple[int, str]:
    """Return the exit status and the message for an exception."""
    if isinstance(error, Interrupted):
        return INTERRUPTED, str(error)
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return INTERRUPTED, "interrupted"
    if isinstance(error, CheckFailed):
        return FAILED, f"failed: {error}"
    if hasattr(error, "format_message"):  # a usage error; typer bundles its own click since 0.26
        return BAD_INPUT, f"error: {_usage(error)}"
    if isinstance(error, InputError):
        return BAD_INPUT, f"error: {error}"
    if _is_disk_full(error):
        filename = getattr(error, "filename", None)
        place = f" for {filename}" if filename else ""
        return BAD_INPUT, f"error: No space left on the device{place}; make room and run the same command again."
    if type(error).__name__ == "DataLossError":
        return BAD_INPUT, (
            f"error: The data's record files are damaged ({str(error).splitlines()[0]}); `{PROGRAM} data check FOLDER` names them."
        )
    if isinstance(error, OSError):
        return BAD_INPUT, f"error: {_os_error(error)}"
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return BAD_INPUT, "error: Out of memory; use smaller batches (--set batch_size=…) or images (--image-size)."
    hint = "" if os.environ.get(DEBUG) else f" (set {DEBUG}=1 for the traceback, and please report it)"
    return FAILED, f"internal error: {type(error).__name__}: {error}{hint}"


def _usage(error: BaseException) -> str:
    """The message of a usage error, with a pointer to ``--help``."""
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
    """Discard buffered stdout. Otherwise the interpreter reports an error about it on exit."""
    with contextlib.suppress(OSError, ValueError):  # stdout may be replaced by an object that is not a file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
