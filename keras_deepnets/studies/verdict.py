"""Whether the results of a study show its claim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_deepnets.studies.definition import Comparison, Study, selects
from keras_deepnets.studies.measures import MEASURES
from keras_deepnets.studies.results import Group, Result, mean, spread

SHOWN, NOT_SHOWN, OPPOSITE = "shown", "not shown", "the opposite"


@dataclass(frozen=True)
class Judgement:
    """The outcome of a comparison.

    Attributes:
        says: The part of the claim in words.
        outcome: `SHOWN`, `NOT_SHOWN` or `OPPOSITE`.
        effect: Mean of the side that should be higher, plus the margin, minus that of the other. NaN without finished runs.
        spread: Standard deviation of the difference of two runs.
        unit: Unit of both numbers.
        why: The reason, in words.
    """

    says: str
    outcome: str
    effect: float
    spread: float
    unit: str
    why: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        numbers = {"effect": self.effect, "spread": self.spread}
        return {"says": self.says, "outcome": self.outcome, "unit": self.unit, "why": self.why} | {
            name: None if math.isnan(value) else value for name, value in numbers.items()
        }


@dataclass(frozen=True)
class Outcome:
    """What a study found.

    Attributes:
        folder: Folder of the study.
        results: Finished runs, with those that diverged.
        failures: Reason for each run that failed, by its name.
        verdict: `"shown"`, `"not shown"` or `"the opposite"`.
        judgements: The verdict on each part of the claim.
    """

    folder: Path
    results: tuple[Result, ...]
    failures: Mapping[str, str]
    verdict: str
    judgements: tuple[Judgement, ...]

    @property
    def diverged(self) -> dict[str, str]:
        """Return what became infinite in each run that diverged, by its name."""
        return {result.run: result.diverged for result in self.results if result.diverged}


def judge(study: Study, groups: Sequence[Group], images: Mapping[str, int]) -> tuple[str, list[Judgement]]:
    """Compare the results with the claim.

    A comparison is shown if its effect is larger than the spread, and the opposite is shown if the effect is below
    minus the spread. The spread is the standard deviation of the difference of two runs, over seeds. With one seed, it
    is that of an error that is counted on these images (binomial), which is smaller than the spread over seeds.

    Args:
        study: The study.
        groups: Its results.
        images: Number of images by part: ``{"train": 4000, "test": 2000}``.

    Returns:
        The verdict on the whole claim, and that on each comparison. The claim is shown if all comparisons are. The
        opposite is shown if that of at least one is, and none is shown.
    """
    found = [_compare(comparison, groups, images) for comparison in study.verdict]
    outcomes = {judgement.outcome for judgement in found}
    if outcomes == {SHOWN}:
        return SHOWN, found
    return (OPPOSITE if OPPOSITE in outcomes and SHOWN not in outcomes else NOT_SHOWN), found


def _compare(comparison: Comparison, groups: Sequence[Group], images: Mapping[str, int]) -> Judgement:
    measure = MEASURES[comparison.measure]
    sides = [_side(side, comparison.measure, groups, images) for side in (comparison.lower, comparison.higher)]
    (low, low_variance, few_low), (high, high_variance, few_high) = sides
    effect, around = high - low + comparison.margin, math.sqrt(low_variance + high_variance)
    if math.isnan(effect):
        return Judgement(comparison.says, NOT_SHOWN, effect, math.nan, measure.unit, "a run has not finished")
    outcome = SHOWN if effect > around else OPPOSITE if effect < -around else NOT_SHOWN
    text = measure.form.format
    why = f"{measure.name} {text(low)} against {text(high)} {measure.unit}".rstrip()
    why += f", margin {text(comparison.margin)}" if comparison.margin else ""
    why += f", spread {text(around)}" + (" with one seed" if few_low or few_high else "")
    return Judgement(comparison.says, outcome, effect, around, measure.unit, why)


def _side(
    side: Mapping[str, Any] | float, name: str, groups: Sequence[Group], images: Mapping[str, int]
) -> tuple[float, float, bool]:
    """Return mean and variance of a measure, and whether the variance is that of a single run."""
    if not isinstance(side, Mapping):
        return float(side), 0.0, False
    values = [value for group in groups if selects(side, group.labels) for value in group.values(name)]
    if len(values) > 1:
        return mean(values), spread(values) ** 2, False
    part = MEASURES[name].images
    share = min(max(mean(values) / 100, 0.0), 1.0) if values else 0.0
    variance = 1e4 * share * (1 - share) / images[part] if part else 0.0
    return mean(values), variance, True
