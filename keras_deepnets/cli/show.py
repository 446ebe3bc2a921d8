"""What the commands print: tables at a terminal, plain columns in a pipe, JSON where it is asked for."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from keras_deepnets.evaluation import Evaluation

_WIDE = 10_000  # of a pipe: whoever reads it must get whole lines


def console() -> Console:
    """The console on the present stdout."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def print_json(value: Any) -> None:
    """Prints a value as JSON, and nothing else, on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[str] = (), title: str = ""
) -> None:
    """Prints rows of text under their columns' names.

    Args:
        columns: the names.
        rows: a text for each column.
        right: the columns whose numbers stand to the right.
        title: a line above, at a terminal only.
    """
    from rich import box

    terminal = sys.stdout.isatty()
    table = Table(title=title if terminal else None, title_justify="left", box=box.SIMPLE_HEAD if terminal else None)
    table.pad_edge = False
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if name in right else "left", no_wrap=index == 0 or name in right)
    for row in rows:
        table.add_row(*(_plain(text) for text in row))
    if terminal:
        console().print(table)
        return
    wide = Console(width=_WIDE, highlight=False)
    with wide.capture() as capture:
        wide.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


@contextlib.contextmanager
def steps(quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """A line at a terminal that says what is being done and for how long; gone when the block ends. Nothing elsewhere.

    Args:
        quiet: whether to say nothing at a terminal either.
    """
    if quiet or not sys.stdout.isatty():
        yield lambda step: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # Without redirection: native output is held back by those who make it.
    with Progress(*columns, console=console(), transient=True, redirect_stdout=False, redirect_stderr=False) as line:
        task = line.add_task("")
        yield lambda step: line.update(task, description=step)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)  # labels and paths may hold what rich would take for markup


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def bytes_text(count: int) -> str:
    """A number of bytes as people read it."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} B"


def percent(fraction: float) -> str:
    """A fraction as a percentage."""
    return f"{100 * fraction:.2f} %"


def print_confused(result: Evaluation) -> None:
    """Prints the classes that a model confuses most; nothing where it confuses none."""
    if pairs := result.confused_pairs():
        print()
        rows = [(pair.true, pair.predicted, f"{pair.count:,}", percent(pair.share)) for pair in pairs]
        print_table(("confused: true", "predicted", "images", "of the class"), rows, right=("images", "of the class"))
