"""The papers' tables next to what this library computes and what your runs measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_deepnets import registry
from keras_deepnets.errors import InputError
from keras_deepnets.facts import model_info
from keras_deepnets.reports.published import NONE, PAPER_TABLES, PaperRow, PaperTable
from keras_deepnets.reports.runs import DETECTION, RunSummary, find_runs

# These change neither the counts nor the row of a table.
_FREE = ("dropout", "memory_efficient", "block_layers")


@dataclass(frozen=True)
class Table:
    """A table of a paper with computed and measured values.

    Attributes:
        name: Short name.
        title: Title with the source.
        columns: Names of all columns.
        rows: Texts, one for each column. A dash where a value is missing.
        note: What to know when comparing.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def markdown(self) -> str:
        """Return the table in Markdown, with its title as a heading."""
        lines = [f"## {self.title}", ""]
        lines += [_line(self.columns), _line(["---"] * len(self.columns)), *map(_line, self.rows)]
        return "\n".join([*lines, *(["", self.note] if self.note else [])]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def tables(names: Sequence[str] = (), runs: str | os.PathLike | None = None) -> list[Table]:
    """Return tables of the papers with our counts and, where a run has one, our measured error.

    The counts are those of the models of this library: trainable parameters, and multiply-adds of one image. A measured error
    is that of the images which the run held out. Of several runs of a network, the one on the table's data with the lowest
    error is named.

    Args:
        names: Short names of the tables. Default: all of them.
        runs: Folder that contains run folders.

    Raises:
        InputError: A name is unknown, or the folder does not exist.
    """
    known = {table.name: table for table in PAPER_TABLES}
    for name in names:
        if name not in known:
            raise InputError(f"Unknown table {name!r}. The tables: {', '.join(known)}.")
    found = [] if runs is None else find_runs(runs)
    return [_filled(known[name], found, runs) for name in names or known]


def _filled(table: PaperTable, runs: Sequence[RunSummary], root: Any) -> Table:
    columns = ("method", *(f"{name} (paper)" for name in table.columns), "network", "parameters", "multiply-adds")
    rows = [(row.label, *row.figures, *_computed(row), _measured(row, table, runs, root)) for row in table.rows]
    kind = "AP50" if table.name == DETECTION else "error"
    return Table(table.name, table.title, (*columns, f"measured {kind} (run)"), tuple(rows), table.note)


def _computed(row: PaperRow) -> tuple[str, str, str]:
    """Return the network, its parameters and its multiply-adds."""
    if row.network is None:
        return NONE, NONE, NONE
    default = dict(row.options) == {"unit": "full_preactivation"}  # already recorded
    info = model_info(row.network, **({} if default else row.options))
    options = ", ".join(f"{name}={value}" for name, value in row.options.items())
    name = f"{info.constructor}({options})" if options else info.constructor
    return name, f"{info.parameters:,}", f"{info.flops:.3g}".replace("e+", "e").replace("e0", "e")


def _measured(row: PaperRow, table: PaperTable, runs: Sequence[RunSummary], root: Any) -> str:
    """Return the measured value of the best run of a row's network."""
    values = [(run.data not in table.datasets, error, run) for run in runs if (error := _error(run, row)) is not None]
    if not values:
        return NONE
    elsewhere, error, run = min(values, key=lambda value: (value[0], value[1], str(value[2].path)))
    percent = 100 * (1 - error if run.task == DETECTION else error)
    where = f" on {run.data}" if elsewhere or len(table.datasets) > 1 else ""
    folder = run.path.relative_to(root) if run.path.is_relative_to(root) else run.path
    return f"{percent:.2f} %{where} ({folder})"


def _error(run: RunSummary, row: PaperRow) -> float | None:
    """Return the measured error of a run if it is one of the row's network, otherwise None."""
    if row.network is None or not _is_of(run, row):
        return None
    if run.task == DETECTION:
        return None if run.evaluation is None else 1 - float(run.evaluation["ap50"])
    return run.errors.get("held")


def _is_of(run: RunSummary, row: PaperRow) -> bool:
    """Whether a run trained the network of a row, under its own name or as a builder with the same options."""
    try:
        own, wanted = (
            _spec(name, options) for name, options in ((run.network, run.options), (row.network, row.options))
        )
    except (InputError, TypeError, ValueError):  # a given model, or options of another version
        return False
    return own == wanted


def _spec(name: Any, options: Any) -> tuple[Any, ...]:
    facts = registry.constructor_of(name).facts
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in dict(options).items()}
    plain = {key: value for key, value in plain.items() if key not in _FREE and key != "layer_prefix"}
    return facts.family.name, facts.family.spec, facts.spec_with(plain)
