"""Which files of a folder are images, which are left out, and which are none of anybody's business: one rule for all commands."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

NATIVE = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".jxl")
"""Endings of the files that TensorFlow decodes."""

FOREIGN = (".tif", ".tiff", ".avif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm")
"""Endings of the files that are decoded with Pillow."""

EXTENSIONS = NATIVE + FOREIGN
"""Of image files, in lower or upper case."""

LOOSE = "in no class folder"
"""After the ending of an image file beside class folders, where files are counted."""

# Images too, but of kinds that nothing here decodes.
_UNREAD = (".heic", ".heif", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".tga", ".exr")
# What systems leave in folders; hidden names (.DS_Store, ._photo.jpg) besides.
_OF_SYSTEMS = {"__macosx", "@eadir", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin"}

_held: list[str] | None = None
_said: set[str] = set()


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is no user's: hidden, or left there by macOS, Windows or a storage server."""
    return name.startswith(".") or name.lower() in _OF_SYSTEMS


def is_image(name: str) -> bool:
    """Whether a file's name ends as that of an image which can be read."""
    return name.lower().endswith(EXTENSIONS)


def natural(name: str) -> tuple:
    """A sorting key by which ``class2`` comes before ``class10``."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part
    ), name


def folders(folder: Path) -> list[Path]:
    """The folders in a folder that are not ignored, in natural order."""
    found = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir() and not is_ignored(entry.name)]
    return sorted(found, key=lambda path: natural(path.name))


def images(folder: Path, left_out: Counter[str], deep: bool = True) -> list[os.DirEntry]:
    """The image files in a folder and the folders in it, in natural order of their paths.

    Args:
        folder: where to look.
        left_out: to which the other files are added, by their endings; ignored ones are not.
        deep: whether to look into the folders in it.
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
    """Says once in one line on stderr which files of a folder were left out; nothing if there are none."""
    if not left_out:
        return
    count = sum(left_out.values())
    kinds = sorted(left_out, key=lambda kind: (-left_out[kind], kind))
    parts = ", ".join(f"{left_out[kind]:,} {kind or 'without an ending'}" for kind in kinds)
    unread = [kind for kind in kinds if kind in _UNREAD]
    hint = f" (convert {', '.join(unread)} to JPEG or PNG to have them read)" if unread else ""
    files = f"{count:,} files that are not images" if count > 1 else "1 file that is not an image"
    loose = f" or lie {LOOSE}" if count > 1 else f" or lies {LOOSE}"
    _say(f"{folder}: left out {files}{loose if any(kind.endswith(LOOSE) for kind in kinds) else ''}: {parts}{hint}")


def _say(line: str) -> None:
    if _held is not None:
        _held.append(line)
    elif line not in _said:
        _said.add(line)
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def lines_held_back() -> Iterator[None]:
    """Holds back the lines about left-out files while the block runs; says them when it ends well, each once."""
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
