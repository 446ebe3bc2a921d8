"""Output of the commands: tables at a terminal, plain columns in a pipe, JSON on request."""

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
    from keras_deepnets.distribution import Group
    from keras_deepnets.evaluation import Evaluation

_WIDE = 10_000  # width of a pipe, so that lines are not wrapped


def console() -> Console:
    """A console on the current stdout."""
    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[str] = (), title: str = ""
) -> None:
    """Print rows of text below the column names.

    Args:
        columns: Column names.
        rows: One text per column.
        right: Names of right-aligned columns.
        title: Line above the table, printed only at a terminal.
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
    """Show the current step and the elapsed time in one line at a terminal, until the block ends. Elsewhere, print nothing.

    Args:
        quiet: Whether to print nothing at a terminal either.
    """
    if quiet or not sys.stdout.isatty():
        yield lambda step: None
        return
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # No redirection: the callers hold back native output themselves.
    with Progress(*columns, console=console(), transient=True, redirect_stdout=False, redirect_stderr=False) as line:
        task = line.add_task("")
        yield lambda step: line.update(task, description=step)


def _plain(text: str) -> Any:
    from rich.text import Text

    return Text(text)  # labels and paths may contain text that looks like rich markup


def size_of(path: Path) -> int:
    """Size in bytes of a file, with the weights beside it, or of all files in a folder tree."""
    from keras_deepnets.export import single_file

    files = single_file.data_files(path) if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def bytes_text(count: int) -> str:
    """Format a number of bytes for people, e.g. ``1.5 MB``."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count} B"


def percent(fraction: float) -> str:
    """Format a fraction as a percentage."""
    return f"{100 * fraction:.2f} %"


def print_confused(result: Evaluation) -> None:
    """Print the classes that a model confuses most. Print nothing if it confuses none."""
    if pairs := result.confused_pairs():
        print()
        rows = [(pair.true, pair.predicted, f"{pair.count:,}", percent(pair.share)) for pair in pairs]
        print_table(("confused: true", "predicted", "images", "of the class"), rows, right=("images", "of the class"))


def print_worker_done(group: Group) -> None:
    """Print the line of a worker that has not written the run folder."""
    print(f"Worker {group.index} of {group.size} is done. Worker 0 has written the run folder.", flush=True)
