"""Check input before anything starts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from keras_deepnets.errors import InputError


def words(text: str, known: Iterable[str], flag: str) -> list[str]:
    """Return the distinct words of a comma-separated list. Each must be one of `known`."""
    known = list(known)
    found = [word.strip().lower() for word in text.split(",") if word.strip()]
    for word in found:
        if word not in known:
            raise InputError(f"{flag} {word!r} is not one of {', '.join(known)}.")
    if not found:
        raise InputError(f"{flag} is empty; give one or more of {', '.join(known)}.")
    return list(dict.fromkeys(found))


def counts(text: str, flag: str) -> list[int]:
    """Return the distinct numbers of a comma-separated list. Each must be a whole number of at least 1."""
    found = []
    for word in text.split(","):
        number = int(word) if word.strip().isdecimal() else 0
        if number < 1:
            raise InputError(f"{flag} {word.strip()!r} is not a whole number from 1.")
        found.append(number)
    return list(dict.fromkeys(found))


def folder(path: Path, flag: str) -> None:
    """Create a folder, and check that files can be written to it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except FileExistsError as error:
        raise InputError(f"{flag} {path} is a file; name a folder.") from error
    except OSError as error:
        raise InputError(f"{flag} {path} cannot be written: {error.strerror}.") from error
