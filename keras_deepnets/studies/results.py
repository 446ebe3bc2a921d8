"""Results of finished runs, and their mean and spread over seeds."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_deepnets.files import written_aside
from keras_deepnets.studies.definition import Search, Study
from keras_deepnets.studies.measures import MEASURES


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        run: Name of its folder.
        labels: Labels of its row, with `network`, `seed` and, in a random search, `trial`.
        drawn: Options and settings of a random search.
        measured: Measures by name. A measure that the run does not have is missing.
        curves: Columns `epoch`, `train_error` and `test_error`, with a value for each epoch.
        maps: Weights between the layers of each dense block, if the study draws them.
        diverged: What became infinite, if the run diverged. Its errors are then those of guessing.
    """

    run: str
    labels: Mapping[str, Any]
    drawn: Mapping[str, Any]
    measured: Mapping[str, float]
    curves: Mapping[str, Sequence[float]]
    maps: Mapping[str, Sequence[Sequence[float]]]
    diverged: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """Return the labels without the seed. Runs with the same key differ only in their seed."""
        return tuple(value for name, value in self.labels.items() if name not in ("seed", "trial"))


@dataclass(frozen=True)
class Group:
    """The runs of a row, one for each seed."""

    labels: Mapping[str, Any]
    results: tuple[Result, ...]

    def values(self, measure: str) -> list[float]:
        """Return a measure of each run that has it."""
        return [result.measured[measure] for result in self.results if measure in result.measured]


def mean(values: Sequence[float]) -> float:
    """Return the mean, or NaN without values."""
    return statistics.fmean(values) if values else math.nan


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation over seeds (n - 1), or 0 for fewer than two."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def groups(results: Sequence[Result], search: Search | None = None) -> list[Group]:
    """Group runs that differ only in their seed. In a random search, only the best trial of each row is kept."""
    found: dict[tuple[Any, ...], dict[Any, list[Result]]] = {}
    for result in results:
        found.setdefault(result.key, {}).setdefault(result.labels.get("trial"), []).append(result)
    best = []
    for trials in found.values():
        candidates = [Group(_shared(runs[0].labels), tuple(runs)) for runs in trials.values()]
        if search is None:
            best += candidates
            continue
        scores = [mean(group.values(search.by)) for group in candidates]
        place = min(range(len(scores)), key=lambda at: (math.isnan(scores[at]), scores[at]))
        best.append(candidates[place])
    return best


def _shared(labels: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in labels.items() if name not in ("seed", "trial")}


def write_csv(path: Path, results: Sequence[Result]) -> None:
    """Write one row for each run: its name, labels, drawn values and all measures."""
    labels = dict.fromkeys(name for result in results for name in result.labels)
    drawn = dict.fromkeys(name for result in results for name in result.drawn if name not in labels)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["run", *labels, *drawn, *MEASURES, "diverged"])
    for result in results:
        values = {**result.labels, **result.drawn, **result.measured}
        cells = (values.get(name, "") for name in (*labels, *drawn, *MEASURES))
        writer.writerow([result.run, *cells, "yes" if result.diverged else ""])
    with written_aside(path) as aside:
        aside.write_text(text.getvalue(), encoding="utf-8")


def columns(study: Study) -> list[str]:
    """Return the columns of the table of a study: labels, runs and measures."""
    return [*(study.rows[0].labels or ("network",)), "runs", *study.measures]


def heading(study: Study) -> list[str]:
    """Return the heading of the table of a study: `columns` in words."""
    return [MEASURES[name].label() if name in MEASURES else name for name in columns(study)]


def table(study: Study, found: Sequence[Group]) -> list[list[str]]:
    """Return the cells of the table, without its head: means, and spreads over seeds if there are several."""
    names = study.rows[0].labels or ("network",)
    return [
        [*(str(group.labels[name]) for name in names), str(len(group.results))]
        + [cell(name, group.values(name)) for name in study.measures]
        for group in found
    ]


def cell(measure: str, values: Sequence[float]) -> str:
    """Format the mean of a measure, with its spread if that is not 0."""
    if not values:
        return "–"
    form = MEASURES[measure].form
    text = form.format(mean(values))
    return f"{text} ± {form.format(spread(values))}" if spread(values) else text
