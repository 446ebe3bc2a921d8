"""How well a classifier does on a set of images."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.errors import InputError
from keras_deepnets.evaluation import Evaluation, Mistake, check_count
from keras_deepnets.labels import distinct
from keras_deepnets.training.measured import RunRecord, images_to_measure

if TYPE_CHECKING:
    import keras

    from keras_deepnets.data import ImageData


WORST = 25
"""How many of the worst errors an evaluation keeps."""

PICTURES = ("confusion.png", "errors.png")
"""What `report` writes."""


def evaluate(
    model: keras.Model | str | os.PathLike,
    data: ImageData | str | os.PathLike,
    batch_size: int = 256,
    *,
    image_size: int | None = None,
    crops: int = 1,
    scales: Sequence[int] | None = None,
    worst: int = WORST,
) -> Evaluation:
    """Measures a classifier.

    On the central view of each image; or, as He et al. 2015 test (section 3.4), on ten crops of it, or on the whole of it at several
    scales: then the mean of the probabilities counts.

    Args:
        model: it takes images `[n, h, w, c]` and gives probabilities or logits `[n, classes]`. Images are brought to its size
            and, where it is known to need scaling that it does not do itself, scaled. Or the path of a `.keras` file or of a run.
        data: labelled images; or a source of `keras_deepnets.data.load`: of a model in memory its test split is measured, of a path the
            images that `measured.RULE` says; of arrays and of a dataset all, with the model's class names where they have none.
        batch_size: images a step, at most; crops count as images, and fewer of larger ones are taken.
        image_size: side in pixels, for a model that takes any size.
        crops: 1: the centre, or 10: the corners and the centre of the image, resized as ever, and their mirror images.
        scales: shorter sides in pixels, e.g. ``(224, 256, 384, 480, 640)``, to which the whole image is resized for a network
            that does without crops: a copy of the model that takes any size.
        worst: number of the worst errors to keep in `Evaluation.worst`, at most.

    Raises:
        InputError: the model's classes are not the data's, or bad data; ten crops that are all the same; a model that cannot be
            rebuilt for other sizes; outputs that are not numbers.
    """
    from keras_deepnets import data as datasets
    from keras_deepnets.data import arrays
    from keras_deepnets.training import feed, losses, networks

    check_views(crops, scales, image_size)
    check_count("worst", worst)
    file = _file_of(model) if isinstance(model, (str, os.PathLike)) else None
    loaded = arrays.is_loaded(data)
    if not loaded and not isinstance(data, datasets.ImageData):
        record = file and RunRecord.beside(file)
        data = images_to_measure(data, None, record).images if file else datasets.load(data, "test")
    if file:
        model = _loaded(file)
    if loaded:
        data = feed.of_model(model, data)
    networks.check_fit(model, data)
    logits = losses.gives_logits(model)
    tally = Tally(data.labels, worst)
    seen, begin, first = 0, time.perf_counter(), True
    if scales is not None:
        results = _at_scales(model, data, batch_size, scales, logits)
    elif crops == 10:
        results = _ten_crops(model, data, batch_size, image_size, logits)
    else:
        results = _central(model, data, batch_size, image_size)
    for outputs, labels, positions in results:
        if np.isnan(outputs).any():
            raise InputError(
                f"Model {model.name!r} gives outputs that are not numbers (NaN); its training has diverged."
            )
        tally.add(outputs, labels, logits, positions)
        seen += len(labels)
        if first and len(labels) < data.size:
            seen, begin = 0, time.perf_counter()
        first = False
    return tally.evaluation(seen / max(time.perf_counter() - begin, 1e-9))


def report(
    model: keras.Model,
    data: ImageData,
    folder: str | os.PathLike,
    batch_size: int = 256,
    *,
    image_size: int | None = None,
    worst: int = WORST,
) -> Evaluation:
    """Measures a classifier and draws its mistakes into a folder.

    Writes ``confusion.png`` and, where there is an error, ``errors.png``; an ``errors.png`` of before is removed otherwise.

    Args:
        model: as for `evaluate`.
        data: labelled images.
        folder: of the pictures; it must exist.
        batch_size: images a step, at most.
        image_size: side in pixels, for a model that takes any size.
        worst: number of errors in ``errors.png``, at most.

    Raises:
        InputError: as `evaluate`; or a picture cannot be written.
    """
    from keras_deepnets.insight import draw_confusion, draw_errors

    found = evaluate(model, data, batch_size, image_size=image_size, worst=worst)
    confusion, errors = (Path(folder) / name for name in PICTURES)
    draw_confusion(found.confusion, data.labels, confusion)
    if draw_errors(found, data, errors) is None:
        errors.unlink(missing_ok=True)
    return found


def check_views(crops: int, scales: Sequence[int] | None, image_size: int | None = None) -> None:
    """Raises InputError unless these can be arguments of `evaluate` together."""
    if isinstance(crops, bool) or crops not in (1, 10):
        raise InputError(f"crops={crops!r} is not 1 (the centre) or 10 (corners, centre and their mirror images).")
    if scales is None:
        return
    if crops != 1:
        raise InputError(
            "crops=10 and scales cannot be had together: with scales the network sees whole images; leave one out."
        )
    if image_size is not None:
        raise InputError(
            f"image_size={image_size} and scales cannot be had together: scales say the sizes; leave one out."
        )
    whole = isinstance(scales, Sequence) and all(
        isinstance(side, (int, np.integer)) and not isinstance(side, bool) and side > 0 for side in scales
    )
    if not whole or not scales or len(set(scales)) != len(scales):
        raise InputError(
            f"scales={scales!r} must be different whole numbers of pixels, e.g. (224, 256, 384, 480, 640)."
        )


Results = Iterator[tuple[np.ndarray, np.ndarray, "np.ndarray | None"]]
"""Batches of outputs ``[n, classes]``, labels ``[n]`` and positions in the data ``[n]`` (None: they follow one another)."""


def _central(model: keras.Model, data: ImageData, batch_size: int, image_size: int | None) -> Results:
    from keras_deepnets.training import feed

    for images, labels in feed.evaluation(model, data, batch_size, image_size).as_numpy_iterator():
        yield np.asarray(model.predict_on_batch(images)), labels, None


def _ten_crops(model: keras.Model, data: ImageData, batch_size: int, image_size: int | None, logits: bool) -> Results:
    from keras_deepnets.training import feed

    for crops, labels in feed.ten_crops(model, data, batch_size, image_size).as_numpy_iterator():
        images = crops.reshape(-1, *crops.shape[2:])
        outputs = _in_steps(model, images, batch_size)
        yield _mean(outputs.reshape(len(labels), 10, -1).swapaxes(0, 1), logits), labels, None


def _at_scales(model: keras.Model, data: ImageData, batch_size: int, scales: Sequence[int], logits: bool) -> Results:
    from keras_deepnets.training import feed, networks

    scales = [int(side) for side in scales]
    height, width = (side or min(scales) for side in model.input_shape[1:3])
    network = networks.of_any_size(model, scales)
    for views, labels, positions in feed.at_scales(model, data, batch_size, scales):
        # As many pixels at once as `batch_size` images of the network's own size have: that is what memory is needed for.
        steps = [
            max(1, min(batch_size, batch_size * height * width // (view.shape[1] * view.shape[2]))) for view in views
        ]
        outputs = [_in_steps(network, view, step) for view, step in zip(views, steps, strict=True)]
        yield _mean(np.stack(outputs), logits), labels, positions


def _in_steps(model: keras.Model, images: np.ndarray, step: int) -> np.ndarray:
    """The outputs for all images, at most `step` of them computed at once."""
    parts = [np.asarray(model.predict_on_batch(images[at : at + step])) for at in range(0, len(images), step)]
    return np.concatenate(parts)


def _mean(outputs: np.ndarray, logits: bool) -> np.ndarray:
    """Of outputs ``[k, n, classes]`` for k views the mean probabilities, ``[n, classes]``; with `logits` their logarithms."""
    outputs = outputs.astype(np.float64)
    if not logits:
        return outputs.mean(0)
    # Logarithms of probabilities are logits, and nothing underflows.
    outputs -= np.logaddexp.reduce(outputs, axis=-1, keepdims=True)
    return np.logaddexp.reduce(outputs, axis=0) - np.log(len(outputs))


class Tally:
    """Sums over batches, in double precision, so that the result does not depend on the batch size.

    Args:
        labels: class names.
        worst: number of the worst errors to keep.
    """

    def __init__(self, labels: Sequence[str], worst: int = WORST):
        self._labels = tuple(distinct(labels))
        self._confusion = np.zeros((len(labels), len(labels)), np.int64)
        self._top5, self._seen = 0, 0
        self._loss = 0.0
        self._most = worst
        self._worst: list[tuple[float, int, int, int, float, float]] = []

    def add(
        self, outputs: np.ndarray, labels: np.ndarray, logits: bool = False, positions: np.ndarray | None = None
    ) -> None:
        """Counts a batch.

        Args:
            outputs: probabilities or logits ``[n, classes]``.
            labels: indices of the true classes ``[n]``.
            logits: whether the outputs are logits.
            positions: of the images in the data ``[n]``; None: they follow those of the batch before.
        """
        outputs = outputs.astype(np.float64)
        own = np.take_along_axis(outputs, labels[:, None], 1)
        # Of equal outputs the one with the lower index ranks first, as in argmax.
        before = (outputs > own) | ((outputs == own) & (np.arange(outputs.shape[1]) < labels[:, None]))
        guesses = outputs.argmax(1)
        self._top5 += int((before.sum(1) < 5).sum())
        np.add.at(self._confusion, (labels, guesses), 1)
        top = outputs.max(1)
        if logits:
            partition = np.log(np.exp(outputs - top[:, None]).sum(1)) + top
            losses = partition - own[:, 0]
            top, rank = np.exp(top - partition), losses
        else:
            losses = -np.log(np.maximum(own[:, 0], 1e-7))  # as Keras: a float32 softmax can give 0
            rank = -own[:, 0]  # which tells apart what that makes equal
        self._loss += float(losses.sum())
        if positions is None:
            positions = np.arange(self._seen, self._seen + len(labels))
        self._seen += len(labels)
        self._keep(np.flatnonzero(guesses != labels), rank, positions, labels, guesses, top, losses)

    def _keep(self, wrong: np.ndarray, rank: np.ndarray, *columns: np.ndarray) -> None:
        """Keeps the highest ranks of the errors, of equal ones the first in the data."""
        wrong = wrong[np.lexsort((columns[0][wrong], -rank[wrong]))[: self._most]]
        rows = zip(*(column[wrong].tolist() for column in (rank, *columns)), strict=True)
        self._worst = sorted([*self._worst, *rows], key=lambda row: (-row[0], row[1]))[: self._most]

    def evaluation(self, images_per_second: float) -> Evaluation:
        """The result; at least one batch must have been counted."""
        right, counts = self._confusion.diagonal(), self._confusion.sum(1)
        size = int(counts.sum())
        per_class = {
            label: float(own / count) for label, own, count in zip(self._labels, right, counts, strict=True) if count
        }
        worst = [
            Mistake(at, self._labels[true], self._labels[guess], probability, loss)
            for _, at, true, guess, probability, loss in self._worst
        ]
        return Evaluation(
            top1=float(right.sum() / size),
            top5=self._top5 / size,
            loss=self._loss / size,
            size=size,
            per_class=per_class,
            images_per_second=round(images_per_second, 1),
            confusion=self._confusion,
            labels=self._labels,
            worst=tuple(worst),
        )


def _file_of(path: str | os.PathLike) -> Path:
    """The `.keras` file that a path names, or that lies in the run folder that it names."""
    path = Path(path)
    path = path / "model.keras" if path.is_dir() else path
    if not path.is_file() or path.suffix != ".keras":
        raise InputError(f"{path} is not a .keras file; give a model, its file, or the folder of a finished run.")
    return path


def _loaded(path: Path) -> keras.Model:
    import keras

    import keras_deepnets.models  # noqa: F401  (registers our layers)

    return keras.saving.load_model(path)
