"""The report of a detector's run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from keras_deepnets.errors import InputError
from keras_deepnets.reports import sections
from keras_deepnets.reports.html import Page
from keras_deepnets.reports.runs import RunSummary
from keras_deepnets.reports.subjects import Subject

_TIMED = 5
"""Number of images whose detection is timed."""
_PICTURES = {
    "precision_recall.png": ("Precision and recall", "Precision-recall curves of the classes at IoU 0.5"),
    "examples.png": ("Best and worst images", "The best and the worst validation images with boxes"),
    "detections.png": ("Detections", "Validation images with predicted and true boxes"),
}
_MEASURES = {
    "ap": "AP (COCO, mean over IoU 0.5 to 0.95)",
    "ap50": "AP at IoU 0.5",
    "ap75": "AP at IoU 0.75",
    "voc07": "mAP of Pascal VOC 2007",
}


def fill(
    page: Page,
    subject: Subject,
    run: RunSummary,
    folder: Path,
    data: str | os.PathLike | None,
    split: str | None,
    say: Callable[[str], None],
) -> None:
    """Add all sections but the last ones. Results and pictures are those of the run folder."""
    found = run.evaluation
    if data is not None or split is not None:
        raise InputError("The report of a detector shows the evaluation in its run folder; leave out data and split.")
    if found is not None:
        page.numbers(_numbers(run, found))
    labels = [label for label in subject.model.labels or () if label != "background"]
    sections.trained(page, run, subject.model, labels)
    say("drawing")
    sections.curves(page, run, folder)
    page.section("Results")
    if found is None:
        page.text("The run held out no images, so nothing was measured.")
    else:
        _results(page, found)
    for name, (title, says) in _PICTURES.items():
        file = run.path / name
        if file.is_file():
            page.section(title)
            page.picture(file, says)
    say("timing")
    rows = _timed(subject, run)
    assert run.model is not None, "the run has ended"
    sections.speed(page, run, [*rows, ("model.keras", sections.megabytes(run.model.stat().st_size))])


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def _numbers(run: RunSummary, found: Mapping[str, Any]) -> list[tuple[str, str]]:
    values = [(text, _percent(found[name])) for name, text in _MEASURES.items() if found.get(name) is not None]
    return [*values, ("epochs", f"{run.metrics.get('epochs', 0):g}"), ("training time", sections.duration(run))]


def _results(page: Page, found: Mapping[str, Any]) -> None:
    page.text(
        f"{found['images']:,} images with {found['objects']:,} objects; {found['detections']:,} detections. "
        "AP is the mean precision over all recalls."
    )
    rows = [
        (
            each["name"],
            f"{each['images']:,}",
            f"{each['objects']:,}",
            _percent(each.get("ap")),
            _percent(each.get("ap50")),
        )
        for each in found["per_class"]
    ]
    page.table(rows, ("class", "images", "objects", "AP", "AP50"), right=(1, 2, 3, 4))


def _timed(subject: Subject, run: RunSummary) -> list[tuple[str, str]]:
    """Return the time of a detection. The list is empty if the images of the run have gone."""
    from keras_deepnets.detection import data as sets
    from keras_deepnets.detection.detecting import detect
    from keras_deepnets.detection.training.feeding import held_out

    source = str((run.config.get("validation") or run.config["data"])["name"])
    try:
        images = held_out(source) if run.config.get("validation") else sets.load(source)
        pixels = [images.image(place) for place in range(min(len(images), _TIMED + 1))]
    except (InputError, OSError):
        return []
    detect(subject.model, pixels[:1])  # compiles
    begin = time.perf_counter()
    for image in pixels[1:]:
        detect(subject.model, [image])
    count = len(pixels) - 1
    return [("detection, on this machine", f"{(time.perf_counter() - begin) / count:.2f} s per image")] if count else []
