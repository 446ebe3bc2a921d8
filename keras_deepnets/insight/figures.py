"""What all pictures share: colours, checks of the path, lettering and atomic writing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.files import written_aside
from keras_deepnets.insight.lettering import escaped, families_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colour-blind safe (Wong, Nature Methods 8, 441, 2011), strongest first.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
GREY = "#555555"
EMPTY = "#e6e6e6"
"""Colour of cells without a value, and of grid lines."""
SUFFIXES = (".png", ".svg", ".pdf")
DPI = 150


def check_path(path: str | os.PathLike, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """Return the path of a picture; raise `InputError` for a wrong suffix or a path that cannot be written."""
    path = Path(path)
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{str(path)!r} must end in {', '.join(suffixes)}.")
    if not path.parent.is_dir():
        raise InputError(f"{str(path)!r}: there is no folder {str(path.parent)!r}.")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; give a file name for the picture.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{str(path)!r}: nothing can be written to the folder {str(path.parent)!r}.")
    return path


Letters = Callable[[str], str]
"""Changes a text so that it can be drawn."""


@contextmanager
def lettering(texts: Iterable[str]) -> Iterator[Letters]:
    """Scope in which Matplotlib draws the given texts with fonts that have their letters.

    Dollar signs are drawn as such; Matplotlib would otherwise read formulas.

    Yields:
        The function that replaces letters without a font by escapes.
    """
    from matplotlib import rc_context

    families, missing = families_for(texts)
    with rc_context({"font.family": families, "text.parse_math": False, "svg.hashsalt": "keras_deepnets"}):
        yield lambda text: escaped(text, missing)


def write(
    path: str | os.PathLike, draw: Callable[[Letters], Figure], texts: Iterable[str] = (), *, tight: bool = False
) -> Path:
    """Draw a figure and write it atomically.

    Args:
        path: Path of the picture. The suffix selects the format (`.png`, `.svg`, `.pdf`).
        draw: Makes the figure. It takes the function that makes texts drawable.
        texts: Texts from outside, such as class names.
        tight: Whether to cut off empty margins.

    Raises:
        InputError: The suffix is wrong, or the picture cannot be written.
    """
    path = check_path(path)
    margins: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.15} if tight else {}
    # Without a date, equal pictures are equal files.
    dated = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(path.suffix.lower())
    try:
        with lettering(texts) as letters, written_aside(path) as aside:
            draw(letters).savefig(aside, dpi=DPI, facecolor="white", metadata=dated, **margins)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror or error}.") from error
    return path


def finish(axes: Axes, title: str = "", x: str = "", y: str = "", grid: str | None = "y") -> None:
    """Give axes their title, names with units, and the house style.

    Args:
        axes: The axes.
        title: Title, at the left.
        x: Name of the horizontal axis.
        y: Name of the vertical axis.
        grid: Direction of the grid lines: ``"x"``, ``"y"``, ``"both"`` or None.
    """
    if title:
        axes.set_title(title, loc="left", fontsize=10, color=GREY)
    axes.set_xlabel(x, color=GREY, fontsize=9)
    axes.set_ylabel(y, color=GREY, fontsize=9)
    if grid:
        axes.grid(axis=grid, color=EMPTY, linewidth=0.8)  # type: ignore[arg-type]
        axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#999999")
    axes.tick_params(colors=GREY, labelsize=9)


def legend_below(axes: Axes, columns: int = 2) -> None:
    """Put the legend below the axes, where it covers no line."""
    if axes.get_legend_handles_labels()[0]:
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.14), "borderaxespad": 0}
        axes.legend(frameon=False, fontsize=9, ncols=columns, **place)


def shortened(text: str, longest: int) -> str:
    """Return a text on one line of at most `longest` letters."""
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"
