"""The report of a study: claim, verdict, figure, table and runs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from keras_deepnets.errors import InputError
from keras_deepnets.reports.html import Page
from keras_deepnets.training.run import command_text

CONFIG = "study.json"


def is_study(folder: Path) -> bool:
    """Whether a folder holds a study."""
    return (folder / CONFIG).is_file()


def page_of(folder: Path) -> Page:
    """Return the page of a finished study. Nothing is computed: all of it is in the folder.

    Raises:
        InputError: The study is unfinished, or a file of it is damaged or missing.
    """
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if "table" in config:
            return _page(folder, config)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder} is not the folder of a study: {error}.") from error
    raise InputError(f"{folder} holds an unfinished study; run the same `study` command again to finish it.")


def _page(folder: Path, config: dict[str, Any]) -> Page:
    study, images, table = config["definition"], config["images"], config["table"]
    verdict = {"shown": "The claim is shown.", "not shown": "The claim is not shown."}
    says = verdict.get(config["verdict"], "The runs show the opposite.")
    page = Page(study["title"], f"{study['source']}. {says}" if study.get("source") else says)
    page.section("Claim")
    page.text(study["claim"])
    if study.get("note"):
        page.text(study["note"])
    rows = [(each["says"], each["outcome"], each["why"]) for each in config["comparisons"]]
    page.table(rows, ("part of the claim", "outcome", "measured"))
    page.section("Figure")
    page.picture(folder / "figure.svg", f"The figure of the study; {study['title']}")
    page.section("Results")
    measures = range(next(at for at, name in enumerate(table["heading"]) if name == "runs"), len(table["heading"]))
    page.table(table["rows"], table["heading"], right=measures)
    page.text(f"{images['train']:,} training and {images['test']:,} test images of {study['data']}. {table['numbers']}")
    page.section("Runs")
    with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    page.table(
        [(row["run"], *(_number(row.get(name)) for name in ("train_error", "test_error", "seconds"))) for row in found],
        ("folder below runs/", "training error, %", "test error, %", "seconds"),
        right=(1, 2, 3),
    )
    if config.get("diverged"):
        page.table(list(config["diverged"].items()), ("diverged run", "what happened"))
    if config.get("failed"):
        page.table(list(config["failed"].items()), ("failed run", "reason"))
    page.section("Command and versions")
    page.code(command_text(config.get("command") or ()) or "The study was started from Python code.")
    page.table([(name, number) for name, number in (config.get("versions") or {}).items() if number])
    return page


def _number(text: str | None) -> str:
    return f"{float(text):.2f}" if text else "–"
