"""The runs of a study: a run for each row, trial and seed."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keras_deepnets import registry
from keras_deepnets.studies.definition import Row, Search, Study


@dataclass(frozen=True)
class PlannedRun:
    """A run of a study.

    Attributes:
        name: Name of its folder.
        network: Name of the network.
        options: Options of the network.
        recipe: Name of the recipe.
        settings: Fields of the recipe that differ.
        labels: Labels of its row.
        seed: Seed of the run.
        trial: Number of the trial of a random search, from 1, otherwise None.
    """

    name: str
    network: str
    options: Mapping[str, Any]
    recipe: str
    settings: Mapping[str, Any]
    labels: Mapping[str, Any]
    seed: int
    trial: int | None = None


def plan(study: Study) -> list[PlannedRun]:
    """Return the runs of a study. All rows of the first seed come first, so that an interrupted study has a result."""
    found = []
    for seed in study.seeds:
        for row in study.rows:
            for trial in range(1, study.search.trials + 1) if study.search else (None,):
                options, settings = dict(row.options), dict(row.settings)
                if study.search and trial:
                    drawn = _drawn(study.search, row, trial)
                    options, settings = options | drawn[0], settings | drawn[1]
                parts = [*(row.labels.values() or [row.network]), f"trial{trial}" if trial else "", f"seed{seed}"]
                name = "-".join(_slug(part) for part in parts if part != "")
                found.append(PlannedRun(name, row.network, options, row.recipe, settings, row.labels, seed, trial))
    return found


def _drawn(search: Search, row: Row, trial: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return random options and settings. They depend on the row and the trial, not on the order of the rows."""
    known = registry.constructor_of(row.network).facts.options
    numbers = random.Random(f"{search.seed} {row.network} {sorted(row.labels.items(), key=str)} {trial}")
    settings = {name: _draw(how, numbers) for name, how in search.settings.items()}
    options = {name: _draw(how, numbers) for name, how in search.options.items() if name in known}
    return options, settings


def _draw(how: Mapping[str, Any], numbers: random.Random) -> Any:
    if "among" in how:
        return numbers.choice(list(how["among"]))
    value = math.exp(numbers.uniform(math.log(how["from"]), math.log(how["to"])))
    return float(f"{value:.4g}")


def _slug(value: Any) -> str:
    return re.sub(r"[^a-z0-9.]+", "_", str(value).lower()).strip("_") or "none"
