"""The definition of a study: its runs, what varies, what is drawn, and which claim it tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

OF_RUNS = ("network", "seed", "trial")
"""Labels that every run has."""
DRAWINGS = ("curves", "points", "feature_reuse")

Label: TypeAlias = "str | int | float"


@dataclass(frozen=True)
class Row:
    """A network and its recipe. A run of it is made for each seed.

    Attributes:
        network: Name of a network or builder.
        options: Options of the network.
        recipe: Name of the recipe.
        settings: Fields of the recipe that differ.
        labels: Names and values that identify the row, e.g. ``{"net": "plain", "depth": 56}``.
    """

    network: str
    options: Mapping[str, Any]
    recipe: str
    settings: Mapping[str, Any]
    labels: Mapping[str, Label]


@dataclass(frozen=True)
class Search:
    """A random search: each row is trained `trials` times, and the best trial counts.

    Attributes:
        trials: Number of trials for each row.
        seed: Seed of the random numbers.
        by: Measure whose lowest value makes a trial the best.
        settings: Fields of the recipe to draw: ``{"from": a, "to": b}`` on a logarithmic scale, or ``{"among": [...]}``.
        options: Options of the network to draw. A network without the option ignores it.
    """

    trials: int
    seed: int
    by: str
    settings: Mapping[str, Mapping[str, Any]]
    options: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Drawing:
    """One row of panels of the figure.

    Attributes:
        draw: ``"curves"`` (error over the epochs), ``"points"`` (a measure over a label or a measure) or
            ``"feature_reuse"`` (Huang et al. 2016, figure 5).
        panels: Label with one panel for each value, or None.
        groups: Label with one colour for each value, or None.
        x: Label or measure on the horizontal axis of points.
        y: Measures on the vertical axis of points.
        log: Axes with a logarithmic scale: ``"x"``, ``"y"``.
        published: Networks whose published errors are drawn as hollow points.
    """

    draw: str
    panels: str | None = None
    groups: str | None = None
    x: str | None = None
    y: tuple[str, ...] = ("train_error", "test_error")
    log: tuple[str, ...] = ()
    published: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """A part of the claim: one measure is lower for some runs than for others.

    Attributes:
        says: The part of the claim in words.
        measure: What is compared.
        lower: Labels of the runs whose measure should be lower, or a number.
        higher: Labels of the runs whose measure should be higher, or a number.
        margin: Added to the higher side. With a margin, the lower side may be worse by that much.
    """

    says: str
    measure: str
    lower: Mapping[str, Label] | float
    higher: Mapping[str, Label] | float
    margin: float = 0.0


@dataclass(frozen=True)
class Study:
    """The definition of a study. `docs/studies/index.md` describes its fields."""

    name: str
    title: str
    source: str
    claim: str
    note: str
    data: str
    limit: int | None
    test: int | None
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    measures: tuple[str, ...]
    figure: tuple[Drawing, ...]
    verdict: tuple[Comparison, ...]
    search: Search | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the definition as plain JSON values."""
        return dataclasses.asdict(self)


def selects(side: Mapping[str, Any], labels: Mapping[str, Any]) -> bool:
    """Return whether labels agree with all values of `side`."""
    return all(labels.get(name) == value for name, value in side.items())
