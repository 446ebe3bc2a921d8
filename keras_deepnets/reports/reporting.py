"""One HTML file that tells what a run trained, on what, and how well, or what a study shows."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from keras_deepnets.errors import InputError
from keras_deepnets.files import write_errors, written_aside
from keras_deepnets.reports import classifier_report, detector_report, sections, study_report
from keras_deepnets.reports.html import Page
from keras_deepnets.reports.runs import DETECTION, read_run
from keras_deepnets.reports.subjects import open_subject

FILE = "report.html"


def report(
    run: str | os.PathLike,
    path: str | os.PathLike | None = None,
    *,
    data: str | os.PathLike | None = None,
    split: str | None = None,
    limit: int | None = None,
    exports: Sequence[str | os.PathLike] = (),
    say: Callable[[str], None] = lambda step: None,
) -> Path:
    """Write one self-contained HTML file about a finished run or study.

    The file opens offline, without JavaScript: all pictures are in it. It tells what was trained on what and shows the curves. Of a
    classifier, it shows the confusion matrix, the calibration, and the best and worst images with Grad-CAM. Of a detector, it
    shows the average precision of each class and images with boxes. It ends with speed, memory, exports, command and
    versions.

    Args:
        run: Folder of a run or of a study.
        path: Path of the file, ``….html``. Default: ``report.html`` in the folder.
        data: Images to evaluate a classifier on. Default: those that the run held out.
        split: Split of the data.
        limit: Maximum images to evaluate on. Each class keeps its share.
        exports: Folders or files of exported models to list, beside those in the run folder.
        say: Called with the current step.

    Returns:
        The path.

    Raises:
        InputError: The folder holds no finished run or study, its images cannot be loaded, or the file cannot be written.
    """
    if study_report.is_study(Path(run)):
        if data is not None or split is not None or limit is not None or exports:
            raise InputError(f"{run} holds a study; its report takes no data, split, limit or exports.")
        return _written(_checked(Path(path) if path is not None else Path(run) / FILE), study_report.page_of(Path(run)))
    found = read_run(run)
    target = _checked(Path(path) if path is not None else found.path / FILE)
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit} must be at least 1.")
    for place in map(Path, exports):
        if not place.exists():
            raise InputError(f"{place} does not exist; give folders or files of exported models.")
    if found.model is None:
        raise InputError(f"{found.path} holds an unfinished run; run the same `train` command again to finish it.")
    say("loading the model")
    subject = open_subject(found.path)
    with tempfile.TemporaryDirectory() as folder:
        page = sections.begin(found)
        if found.task == DETECTION:
            detector_report.fill(page, subject, found, Path(folder), data, split, say)
        else:
            classifier_report.fill(page, subject, found, Path(folder), data, split, limit, say)
        sections.end(page, found, [found.path, *map(Path, exports)])
    return _written(target, page)


def _written(target: Path, page: Page) -> Path:
    with write_errors(target), written_aside(target) as aside:
        aside.write_text(str(page), encoding="utf-8")
    return target


def _checked(path: Path) -> Path:
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{str(path)!r} must end in .html.")
    if path.is_dir() or not path.parent.is_dir():
        what = "is a folder" if path.is_dir() else "has no folder"
        raise InputError(f"{str(path)!r} {what}; name a file in an existing folder.")
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{str(path)!r}: nothing can be written to the folder {str(path.parent)!r}.")
    return path
