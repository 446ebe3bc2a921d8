"""The table of a study as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_deepnets.studies.definition import Study
from keras_deepnets.studies.results import Group, heading, table
from keras_deepnets.studies.verdict import Outcome
from keras_deepnets.training.run import command_text

NUMBERS = (
    "Means of the runs, ± their standard deviation over seeds. Errors are those of the last epoch. The training error is measured "
    "during training, on the images as the recipe augments them."
)
"""What the numbers of a table are."""


def numbers(outcome: Outcome) -> str:
    """Return what the numbers of the table of an outcome are."""
    return f"{NUMBERS} Diverged runs count with the errors of guessing." if outcome.diverged else NUMBERS


def markdown(study: Study, outcome: Outcome, groups: Sequence[Group], config: Mapping[str, Any]) -> str:
    """Return the claim, the verdict, the table, the diverged and failed runs, the command and the versions.

    Args:
        study: The study.
        outcome: What it found.
        groups: Its results.
        config: Content of `study.json`.
    """
    images = config["images"]
    parts = [
        f"# {study.title}",
        f"{study.source}. {study.claim}" if study.source else study.claim,
        f"**The claim is: {outcome.verdict}.**",
        _rows(
            ["part of the claim", "outcome", "measured"],
            ([each.says, each.outcome, each.why] for each in outcome.judgements),
        ),
        _rows(heading(study), table(study, groups)),
        f"{images['train']:,} training and {images['test']:,} test images of `{study.data}`. {numbers(outcome)}",
    ]
    if outcome.diverged:
        parts.append(_rows(["diverged run", "what happened"], outcome.diverged.items()))
    if outcome.failures:
        parts.append(_rows(["failed run", "reason"], outcome.failures.items()))
    versions = ", ".join(f"{name} {number}" for name, number in config["versions"].items() if number)
    if command := command_text(config["command"]):
        parts.append(f"```bash\n{command}\n```")
    parts.append(f"{versions}.")
    return "\n\n".join(parts) + "\n"


def _rows(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in lines)
