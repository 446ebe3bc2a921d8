r"""Fonts for text in any script.

Matplotlib's own font has Latin, Greek and Cyrillic letters, among others. Text in other scripts is drawn with an installed font
that has its letters. A letter that no font has is written as an escape, ``\u3042``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageFont

_OWN = "DejaVu Sans"


def font_of(size: int) -> ImageFont.FreeTypeFont:
    """Load Matplotlib's font in a size in pixels.

    It comes with the package and has Greek, Cyrillic and accented letters, which Pillow's font lacks.
    """
    return _loaded(_own_file(), size)


def lettered(text: str, size: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """Return a text with escapes for the letters that no font has, and a font for Pillow that has the others."""
    font, letters = font_for([text], size)
    return letters(text), font


def font_for(texts: Iterable[str], size: int) -> tuple[ImageFont.FreeTypeFont, Callable[[str], str]]:
    """Return one font for Pillow to draw all of some texts.

    Args:
        texts: The texts.
        size: Size of the font in pixels.

    Returns:
        Matplotlib's font if it has all letters, otherwise an installed font that has them. If no font has all of them, it is
        Matplotlib's. The second value is a function that replaces the letters without a font by escapes.
    """
    text = "".join(texts)
    missing = _missing(text)
    for file in _files_with(missing) if missing else ():
        if {ord(letter) for letter in text if not letter.isspace()} <= _codes(file):
            return _loaded(file, size), str
    return font_of(size), lambda text: escaped(text, missing)


def families_for(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Return the font families for Matplotlib to draw some texts, and the letters that no font has.

    Matplotlib takes each letter from the first of the families that has it.
    """
    from matplotlib import font_manager

    missing = _missing("".join(texts))
    families = [_OWN]
    while missing and (files := _files_with(missing)):
        file = files[0]
        font_manager.fontManager.addfont(file)
        families.append(font_manager.get_font(file).family_name)
        missing -= {chr(code) for code in _codes(file)}
    return families, missing


def escaped(text: str, missing: set[str]) -> str:
    r"""Return a text with escapes such as ``\u3042`` for the letters in `missing`."""
    return "".join(letter.encode("unicode_escape").decode() if letter in missing else letter for letter in text)


def _missing(text: str) -> set[str]:
    """Return the letters that Matplotlib's font lacks."""
    if text.isascii():
        return set()
    own = _codes(_own_file())
    return {letter for letter in text if ord(letter) not in own and not letter.isspace()}


def _files_with(letters: set[str]) -> list[str]:
    """Return the installed fonts that have any of the letters. Those with the most of them come first."""
    counts = {file: sum(ord(letter) in _codes(file) for letter in letters) for file in installed()}
    return sorted((file for file, count in counts.items() if count), key=lambda file: (-counts[file], file))


@functools.cache
def installed() -> list[str]:
    """Return the files of the installed fonts, without the "last resort" font, which has a box for every letter."""
    from matplotlib import font_manager

    return [file for file in sorted(font_manager.findSystemFonts()) if "LastResort" not in file]


@functools.cache
def _codes(file: str) -> frozenset[int]:
    from matplotlib import font_manager

    try:
        return frozenset(font_manager.get_font(file).get_charmap())
    except (OSError, RuntimeError):  # not a font that FreeType can read
        return frozenset()


@functools.cache
def _loaded(file: str, size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(file, size)


def _own_file() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))
