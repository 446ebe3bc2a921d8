"""Decide which files of a folder are images, which are left out and which are ignored: one rule for all commands."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

NATIVE = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".jxl")
"""Suffixes of the files that TensorFlow decodes."""

FOREIGN = (".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm")
"""Suffixes of the files that Pillow decodes."""

EXTENSIONS = NATIVE + FOREIGN
"""Suffixes of image files, in lower or upper case."""

LOOSE = "in no class folder"
"""Marks the count of image files that are next to the class folders; it follows the suffix."""

# Image formats that this library does not decode.
_UNREAD = (".heic", ".heif", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".tga", ".exr")
# Files that operating systems leave in folders. Hidden names (.DS_Store, ._photo.jpg) are ignored too.
_OF_SYSTEMS = {"__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"}

_held: list[str] | None = None
_said: set[str] = set()


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is not the user's: hidden, or created by macOS, Windows or a storage server."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def is_image(name: str) -> bool:
    """Whether a file name has the suffix of a readable image."""
    return name.lower().endswith(EXTENSIONS)


def natural(name: str) -> tuple:
    """A sort key that puts ``class2`` before ``class10``."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part
    ), name


def folders(folder: Path) -> list[Path]:
    """The subfolders of a folder that are not ignored, in natural order."""
    found = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and not is_ignored(entry.name)]
    return sorted(found, key=lambda path: natural(path.name))


def images(folder: Path, left_out: Counter[str], deep: bool = True) -> list[os.DirEntry]:
    """The image files in a folder and its subfolders, in natural order of their paths.

    Args:
        folder: The folder to search.
        left_out: Counter to which other files are added by suffix. Ignored files are not counted.
        deep: Whether to search subfolders.
    """
    found = []
    for entry in os.scandir(folder):
        if is_ignored(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            if deep:
                found += images(Path(entry.path), left_out)
        elif is_image(entry.name):
            found.append(entry)
        elif deep or not entry.is_dir():
            left_out[Path(entry.name).suffix.lower()] += 1
    return sorted(found, key=lambda entry: natural(entry.path))


def say_left_out(folder: str | os.PathLike, left_out: Mapping[str, int]) -> None:
    """Print one line on stderr that says which files of a folder were left out. Each line is printed once."""
    if not left_out:
        return
    count = sum(left_out.values())
    kinds = sorted(left_out, key=lambda kind: (-left_out[kind], kind))
    parts = ", ".join(f"{left_out[kind]:,} {kind or 'without an ending'}" for kind in kinds)
    unread = [kind for kind in kinds if kind in _UNREAD]
    hint = f" (convert {', '.join(unread)} to JPEG or PNG to use them)" if unread else ""
    files = f"{count:,} files that are not images" if count > 1 else "1 file that is not an image"
    loose = f" or are {LOOSE}" if count > 1 else f" or is {LOOSE}"
    _say(f"{folder}: left out {files}{loose if any(kind.endswith(LOOSE) for kind in kinds) else ''}: {parts}{hint}")


def _say(line: str) -> None:
    if _held is not None:
        _held.append(line)
    elif line not in _said:
        _said.add(line)
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def lines_held_back() -> Iterator[None]:
    """Hold back the lines about left-out files while the block runs; print each once if the block succeeds."""
    global _held
    outer, _held = _held, []
    try:
        yield
        lines = dict.fromkeys(_held)
    finally:
        _held = outer
    for line in lines:
        if outer is not None:
            outer.append(line)
        else:
            print(line, file=sys.stderr, flush=True)
