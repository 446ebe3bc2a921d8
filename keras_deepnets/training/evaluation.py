"""Evaluation of a classifier on a set of images."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.distribution import ALONE, Group
from keras_deepnets.errors import InputError
from keras_deepnets.evaluation import Evaluation, Mistake, check_count
from keras_deepnets.labels import distinct
from keras_deepnets.training.measured import RunRecord, images_to_measure

if TYPE_CHECKING:
    import keras

    from keras_deepnets.data import ImageData
    from keras_deepnets.training.feed import Source


WORST = 25
"""Default number of errors that an evaluation keeps."""

PICTURES = ("confusion.png", "errors.png")
"""Files that `report` writes."""


def evaluate(
    model: keras.Model | str | os.PathLike,
    data: Source,
    batch_size: int = 256,
    *,
    image_size: int | None = None,
    crops: int = 1,
    scales: Sequence[int] | None = None,
    worst: int = WORST,
    group: Group = ALONE,
) -> Evaluation:
    """Evaluate a classifier.

    By default, the model sees the central view of each image. He et al. 2015 (section 3.4) also test on ten crops, or
    on the whole image at several scales. The probabilities of these views are averaged.

    Args:
        model: Model that takes images `[n, h, w, c]` and returns probabilities or logits `[n, classes]`. Or the path of
            a `.keras` file or of a run folder. Images are resized to the model's input size. They are scaled if the
            model is known to need scaling and does not do it itself.
        data: Labelled images, or a source of `keras_deepnets.data.load`. For a model in memory, the source's test split
            is used. For a path, `measured.RULE` selects the images. All images of arrays and of a `tf.data.Dataset` are
            used, with the model's class names if they have none.
        batch_size: Maximum images per step. Each crop counts as an image. With `scales`, large images make smaller
            steps.
        image_size: Side in pixels, for a model that accepts any size.
        crops: 1: the centre. 10: the corners and the centre of the resized image, and their mirror images.
        scales: Shorter sides in pixels, e.g. ``(224, 256, 384, 480, 640)``. The whole image is resized to each and not
            cropped. A copy of the model that accepts any size is used.
        worst: Maximum number of errors to keep in `Evaluation.worst`.
        group: Processes that each evaluate a part of the images, with the same arguments. Each gets the result for all images.

    Raises:
        InputError: The model's classes are not those of the data, or the data is invalid. All ten crops are the same.
            The model cannot be rebuilt for other sizes. The outputs contain NaN or infinity.
    """
    from keras_deepnets import data as datasets
    from keras_deepnets import models
    from keras_deepnets.data.pipelines import Share
    from keras_deepnets.training import feed, losses, networks

    check_views(crops, scales, image_size)
    check_count("worst", worst)
    file = _file_of(model) if isinstance(model, (str, os.PathLike)) else None
    images: ImageData | None = None
    if isinstance(data, datasets.ImageData):
        images = data
    elif isinstance(data, (str, os.PathLike)):
        images = images_to_measure(data, None, RunRecord.beside(file)).images if file else datasets.load(data, "test")
    network: keras.Model = models.without_auxiliary(_loaded(file) if file else model)
    if images is None:  # arrays or a dataset, which may take their class names from the model
        images = feed.of_model(network, data)
    networks.check_fit(network, images)
    logits = losses.gives_logits(network)
    shared = 1 < group.size <= images.size
    first_position = 0
    if shared:
        images = images.part(Share(group.index, group.size))
        first_position = sum(int(size) for size in group.gather(str(images.size))[: group.index])
    tally = Tally(images.labels, worst, first_position)
    if scales is not None:
        results = _at_scales(network, images, batch_size, scales, logits)
    elif crops == 10:
        results = _ten_crops(network, images, batch_size, image_size, logits)
    else:
        results = central(network, images, batch_size, image_size)
    speed = add_all(tally, results, network.name, images.size, logits)
    return tally.evaluation(tally.share(group, speed) if shared else speed)


def report(
    model: keras.Model,
    data: ImageData,
    folder: str | os.PathLike,
    batch_size: int = 256,
    *,
    image_size: int | None = None,
    worst: int = WORST,
) -> Evaluation:
    """Evaluate a classifier and draw its errors into a folder.

    This writes ``confusion.png`` and, if there are errors, ``errors.png``. Otherwise an older ``errors.png`` is
    removed.

    Args:
        model: As for `evaluate`.
        data: Labelled images.
        folder: Existing folder for the pictures.
        batch_size: Maximum images per step.
        image_size: Side in pixels, for a model that accepts any size.
        worst: Maximum number of errors in ``errors.png``.

    Raises:
        InputError: As for `evaluate`, or a picture cannot be written.
    """
    found = evaluate(model, data, batch_size, image_size=image_size, worst=worst)
    draw(found, data, folder)
    return found


def draw(found: Evaluation, data: ImageData, folder: str | os.PathLike) -> None:
    """Draw an evaluation as `report` does."""
    from keras_deepnets.insight import draw_confusion, draw_errors

    confusion, errors = (Path(folder) / name for name in PICTURES)
    draw_confusion(found.confusion, data.labels, confusion)
    if draw_errors(found, data, errors) is None:
        errors.unlink(missing_ok=True)


def check_views(crops: int, scales: Sequence[int] | None, image_size: int | None = None) -> None:
    """Raise `InputError` unless `evaluate` accepts these arguments together."""
    if isinstance(crops, bool) or crops not in (1, 10):
        raise InputError(f"crops={crops!r} is not 1 (the centre) or 10 (corners, centre and their mirror images).")
    if scales is None:
        return
    if crops != 1:
        raise InputError("crops=10 and scales cannot be combined: with scales the network sees whole images. Omit one.")
    if image_size is not None:
        raise InputError(
            f"image_size={image_size} and scales cannot be combined: scales set the image sizes. Omit one."
        )
    whole = isinstance(scales, Sequence) and all(
        isinstance(side, (int, np.integer)) and not isinstance(side, bool) and side > 0 for side in scales
    )
    if not whole or not scales or len(set(scales)) != len(scales):
        raise InputError(
            f"scales={scales!r} must be different whole numbers of pixels, e.g. (224, 256, 384, 480, 640)."
        )


Results = Iterator[tuple[np.ndarray, np.ndarray, "np.ndarray | None"]]
"""Batches of outputs ``[n, classes]``, labels ``[n]`` and positions in the data ``[n]`` (None: consecutive positions)."""


def add_all(tally: Tally, results: Results, name: str, size: int, logits: bool) -> float:
    """Add the results of a model for `size` images to `tally`.

    Returns:
        Images per second after the first step, which compiles.

    Raises:
        InputError: The outputs contain NaN or infinity. The logit -inf of a class that the model excludes is allowed.
    """
    seen, begin, first = 0, time.perf_counter(), True
    for outputs, labels, positions in results:
        if not (outputs < np.inf).all():  # -inf is the logit of an excluded class
            raise InputError(f"Model {name!r} gives outputs that are NaN or infinite. Its training has diverged.")
        tally.add(outputs, labels, logits, positions)
        seen += len(labels)
        if first and len(labels) < size:
            seen, begin = 0, time.perf_counter()
        first = False
    return seen / max(time.perf_counter() - begin, 1e-9)


def central(model: keras.Model, data: ImageData, batch_size: int, image_size: int | None = None) -> Results:
    """Yield the results for the central view of each image."""
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
        # Memory use follows the number of pixels, so a step has at most the pixels of `batch_size` images of input size.
        steps = [
            max(1, min(batch_size, batch_size * height * width // (view.shape[1] * view.shape[2]))) for view in views
        ]
        outputs = [_in_steps(network, view, step) for view, step in zip(views, steps, strict=True)]
        yield _mean(np.stack(outputs), logits), labels, positions


def _in_steps(model: keras.Model, images: np.ndarray, step: int) -> np.ndarray:
    """Return the outputs for all images, computing at most `step` of them per call."""
    parts = [np.asarray(model.predict_on_batch(images[at : at + step])) for at in range(0, len(images), step)]
    return np.concatenate(parts)


def _mean(outputs: np.ndarray, logits: bool) -> np.ndarray:
    """Return the mean probabilities ``[n, classes]`` of the outputs ``[k, n, classes]`` for k views.

    If the outputs are logits, return the logarithms of the mean probabilities.
    """
    outputs = outputs.astype(np.float64)
    if not logits:
        return outputs.mean(0)
    # Logarithms of probabilities are logits, and nothing underflows.
    outputs -= np.logaddexp.reduce(outputs, axis=-1, keepdims=True)
    return np.logaddexp.reduce(outputs, axis=0) - np.log(len(outputs))


class Tally:
    """Running totals over batches, in double precision, so that the result does not depend on the batch size.

    Args:
        labels: Class names.
        worst: Maximum number of errors to keep.
        first: Position in the data of the first image.
    """

    def __init__(self, labels: Sequence[str], worst: int = WORST, first: int = 0):
        self._labels = tuple(distinct(labels))
        self._confusion = np.zeros((len(labels), len(labels)), np.int64)
        self._top5, self._seen = 0, first
        self._loss = 0.0
        self._most = worst
        self._worst: list[Sequence[Any]] = []

    def add(
        self, outputs: np.ndarray, labels: np.ndarray, logits: bool = False, positions: np.ndarray | None = None
    ) -> None:
        """Add a batch.

        Args:
            outputs: Probabilities or logits ``[n, classes]``.
            labels: Indices of the true classes ``[n]``.
            logits: Whether the outputs are logits.
            positions: Positions of the images in the data ``[n]``. `None`: they follow those of the previous batch.
        """
        outputs = outputs.astype(np.float64)
        own = np.take_along_axis(outputs, labels[:, None], 1)
        # If outputs are equal, the lower index ranks first, as in argmax.
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
            losses = -np.log(np.maximum(own[:, 0], 1e-7))  # as in Keras: a float32 softmax can return 0
            rank = -own[:, 0]  # still ranks outputs that the lower bound makes equal
        self._loss += float(losses.sum())
        if positions is None:
            positions = np.arange(self._seen, self._seen + len(labels))
        self._seen += len(labels)
        self._keep(np.flatnonzero(guesses != labels), rank, positions, labels, guesses, top, losses)

    def _keep(self, wrong: np.ndarray, rank: np.ndarray, *columns: np.ndarray) -> None:
        """Keep the errors with the highest rank. Of equal ranks, the first in the data comes first."""
        wrong = wrong[np.lexsort((columns[0][wrong], -rank[wrong]))[: self._most]]
        rows = zip(*(column[wrong].tolist() for column in (rank, *columns)), strict=True)
        self._merge(rows)

    def _merge(self, rows: Iterable[Sequence[Any]]) -> None:
        self._worst = sorted([*self._worst, *rows], key=lambda row: (-row[0], row[1]))[: self._most]

    def share(self, group: Group, number: float) -> float:
        """Add the tallies of all processes of a group, and return the sum of a number over them."""
        sums = group.sum(
            [self._confusion, np.array([self._top5], np.int64), np.array([self._loss, number], np.float64)]
        )
        confusion, top5, numbers = (np.asarray(each) for each in sums)
        self._confusion, self._top5, self._loss = confusion, int(top5[0]), float(numbers[0])
        found, self._worst = group.gather(json.dumps(self._worst)), []
        for text in found:
            self._merge(json.loads(text))
        return float(numbers[1])

    def evaluation(self, images_per_second: float) -> Evaluation:
        """Return the result. At least one batch must have been added."""
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
    """Return the `.keras` file at a path, or the one inside the run folder at that path."""
    path = Path(path)
    path = path / "model.keras" if path.is_dir() else path
    if not path.is_file() or path.suffix != ".keras":
        raise InputError(f"{path} is not a .keras file. Give a model, its file, or the folder of a finished run.")
    return path


def _loaded(path: Path) -> keras.Model:
    import keras

    import keras_deepnets.models  # noqa: F401  (registers the layers)

    return keras.saving.load_model(path)
