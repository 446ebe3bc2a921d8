"""The report of a classifier's run."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets import insight
from keras_deepnets.errors import InputError
from keras_deepnets.reports import sections
from keras_deepnets.reports.html import Page
from keras_deepnets.reports.predicting import Predictions, predictions_on
from keras_deepnets.reports.runs import RunSummary
from keras_deepnets.reports.subjects import Subject

if TYPE_CHECKING:
    from keras_deepnets.data import ImageData

_SHOWN = 8
"""Number of best and of worst images."""
_CLASSES = 50
"""Largest number of classes in the table. Of more, the worst are listed."""


def fill(
    page: Page,
    subject: Subject,
    run: RunSummary,
    folder: Path,
    data: str | os.PathLike | None,
    split: str | None,
    limit: int | None,
    say: Callable[[str], None],
) -> None:
    """Add all sections but the last ones, with pictures drawn in `folder`."""
    say("reading the images")
    measured = subject.measured(data, split)
    images = measured.images.take(limit) if limit is not None else measured.images
    say(f"classifying {images.size:,} images")
    found = predictions_on(subject.model, images, worst=_SHOWN)
    calibration = insight.calibration(found.probabilities, found.truths)
    _numbers(page, run, found, calibration)
    say("drawing")
    sections.trained(page, run, subject.model, images.labels)
    sections.curves(page, run, folder)
    _results(page, found, images, str(measured) if limit is None else f"{images.size:,} images of it", folder)
    _calibration(page, calibration, folder)
    say("computing Grad-CAM")
    _examples(page, subject, found, images)
    _speed(page, subject, run, found)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _numbers(page: Page, run: RunSummary, found: Predictions, calibration: insight.Calibration) -> None:
    result = found.evaluation
    values = [("top-1 error", _percent(1 - result.top1))]
    if len(result.labels) > 5:
        values.append(("top-5 error", _percent(1 - result.top5)))
    values += [
        ("expected calibration error", _percent(calibration.error)),
        ("epochs", f"{run.metrics.get('epochs', 0):g}"),
        ("training time", sections.duration(run)),
    ]
    page.numbers(values)


def _results(page: Page, found: Predictions, images: ImageData, which: str, folder: Path) -> None:
    result = found.evaluation
    page.section("Results")
    page.text(
        f"Evaluated on {images.name}, {which}. Top-1 error {_percent(1 - result.top1)}, mean loss {result.loss:.4f}, balanced "
        f"accuracy {_percent(result.balanced_accuracy)}."
    )
    file = insight.draw_confusion(result.confusion, images.labels, folder / "confusion.png")
    page.picture(file, "Confusion matrix: a row for each true class, a column for each predicted class")
    counts = dict(zip(result.labels, result.confusion.sum(1), strict=True))
    rows = sorted(result.per_class.items(), key=lambda row: row[1])
    if len(rows) > _CLASSES:
        page.text(f"The {_CLASSES} classes with the lowest accuracy, of {len(rows):,}:")
    table = [(label, f"{counts[label]:,}", _percent(value)) for label, value in rows[:_CLASSES]]
    page.table(table, ("class", "images", "accuracy"), right=(1, 2))
    if pairs := result.confused_pairs():
        page.text("The most frequent confusions:")
        confused = [(pair.true, pair.predicted, f"{pair.count:,}", _percent(pair.share)) for pair in pairs]
        page.table(confused, ("true class", "predicted class", "images", "of the class"), right=(2, 3))


def _calibration(page: Page, calibration: insight.Calibration, folder: Path) -> None:
    page.section("Calibration")
    page.text(
        f"The expected calibration error is {_percent(calibration.error)} ({len(calibration.counts)} bins). It is the mean difference "
        "between the probability of the predicted class and the accuracy."
    )
    page.picture(
        insight.draw_calibration(calibration, folder / "calibration.png"), "Accuracy against the predicted probability"
    )


def _examples(page: Page, subject: Subject, found: Predictions, images: ImageData) -> None:
    best, worst = found.best[:_SHOWN].tolist(), [mistake.index for mistake in found.evaluation.worst]
    for title, places, wrong in (("Best images", best, False), ("Worst images", worst, True)):
        page.section(title)
        if not places:
            page.text("No image was misclassified." if wrong else "No image was classified correctly.")
            continue
        page.text(
            "Misclassified images with the highest loss. "
            if wrong
            else "Correctly classified images with the highest probability. "
        )
        page.figures(_cells(subject, found, images, places, wrong))


def _cells(
    subject: Subject, found: Predictions, images: ImageData, places: Sequence[int], wrong: bool
) -> Iterable[tuple[list[np.ndarray], str, bool]]:
    """Yield each image with its Grad-CAM, and the caption."""
    shown = np.stack(list(_views(subject.model, images, places)))
    maps: Any = [None] * len(places)
    with contextlib.suppress(InputError):  # a network without feature maps
        maps = insight.grad_cam(subject.model, shown).maps
    names = found.evaluation.labels
    for place, image, heat in zip(places, shown, maps, strict=True):
        guess, truth = int(found.probabilities[place].argmax()), int(found.truths[place])
        text = f"{names[guess]} {100 * found.probabilities[place, guess]:.1f} %"
        if wrong:
            text += f", true: {names[truth]} {100 * found.probabilities[place, truth]:.1f} %"
        yield [image] if heat is None else [image, insight.overlay(image, heat)], text, wrong


def _views(model: Any, images: ImageData, places: Sequence[int]) -> Iterator[np.ndarray]:
    """Yield single images as the network sees them: uint8 ``[h, w, c]``."""
    from keras_deepnets.data import ImageData
    from keras_deepnets.training import feed

    for image in images.pick(places):
        one = ImageData.from_arrays(image[None], np.zeros(1, np.int64), images.labels)
        batch, _ = next(iter(feed.evaluation(model, one, 1).as_numpy_iterator()))
        yield feed.pixels(model, batch)[0]


def _speed(page: Page, subject: Subject, run: RunSummary, found: Predictions) -> None:
    assert run.model is not None, "the run has ended"
    weights = sum(np.asarray(weight).nbytes for weight in subject.model.weights)
    rows = [("evaluation, on this machine", f"{found.evaluation.images_per_second:,.0f} images/s")]
    try:
        stages = insight.stages(subject.model)
        rows.append(("outputs of all layers for one image", sections.megabytes(sum(stage.memory for stage in stages))))
    except InputError:  # an open input size, or no feature maps
        pass
    rows += [("weights", sections.megabytes(weights)), ("model.keras", sections.megabytes(run.model.stat().st_size))]
    sections.speed(page, run, rows)
