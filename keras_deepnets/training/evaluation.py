"""How well a classifier does on a set of images."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

    from keras_deepnets.data import ImageData


@dataclass(frozen=True)
class Evaluation:
    """What a classifier does on a set of images.

    Attributes:
        top1: share of the images whose class has the highest probability.
        top5: share of those whose class is among the five highest.
        loss: mean cross entropy, in nats, without label smoothing.
        size: how many images.
        per_class: `top1` of each class's images, by label; classes without an image are left out.
        images_per_second: input pipeline included, first batch (which compiles) left out if there are more.
    """

    top1: float
    top5: float
    loss: float
    size: int
    per_class: dict[str, float]
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """The values as plain JSON values."""
        return asdict(self)


def evaluate(
    model: keras.Model | str | os.PathLike,
    data: ImageData | str | os.PathLike,
    batch_size: int = 256,
    *,
    image_size: int | None = None,
) -> Evaluation:
    """Measures a classifier.

    Args:
        model: it takes images `[n, h, w, c]` and gives probabilities or logits `[n, classes]`. Images are brought to its size
            and, where it is known to need scaling that it does not do itself, scaled. Or the path of a `.keras` file or of a run.
        data: labelled images; or a source of `keras_deepnets.data.load`, of which the test split is taken.
        batch_size: images a step, at most.
        image_size: side in pixels, for a model that takes any size.

    Raises:
        InputError: the model's classes are not the data's, or bad data.
    """
    from keras_deepnets import data as datasets
    from keras_deepnets.training import feed, losses, networks

    if isinstance(model, (str, os.PathLike)):
        model = _loaded(Path(model))
    if not isinstance(data, datasets.ImageData):
        data = datasets.load(data, "test")
    networks.check_fit(model, data)
    logits = losses.gives_logits(model)
    tally = _Tally(len(data.labels))
    seen, begin, first = 0, time.perf_counter(), True
    for images, labels in feed.evaluation(model, data, batch_size, image_size).as_numpy_iterator():
        tally.add(np.asarray(model.predict_on_batch(images)), labels, logits)
        seen += len(labels)
        if first and len(labels) < data.size:
            seen, begin = 0, time.perf_counter()
        first = False
    return tally.evaluation(data.labels, seen / max(time.perf_counter() - begin, 1e-9))


class _Tally:
    """Sums over batches, in double precision, so that the result does not depend on the batch size."""

    def __init__(self, classes: int):
        self._right = np.zeros((2, classes), np.int64)  # among the first one, among the first five
        self._count = np.zeros(classes, np.int64)
        self._loss = 0.0

    def add(self, outputs: np.ndarray, labels: np.ndarray, logits: bool) -> None:
        outputs = outputs.astype(np.float64)
        own = np.take_along_axis(outputs, labels[:, None], 1)
        # Of equal outputs the one with the lower index ranks first, as in argmax.
        before = (outputs > own) | ((outputs == own) & (np.arange(outputs.shape[1]) < labels[:, None]))
        rank = before.sum(1)
        for row, limit in enumerate((1, 5)):
            np.add.at(self._right[row], labels, rank < limit)
        np.add.at(self._count, labels, 1)
        if logits:
            top = outputs.max(1, keepdims=True)
            self._loss += float((np.log(np.exp(outputs - top).sum(1)) + top[:, 0] - own[:, 0]).sum())
        else:
            self._loss -= float(np.log(np.maximum(own, 1e-7)).sum())  # as Keras: a float32 softmax can give 0

    def evaluation(self, labels: tuple[str, ...], speed: float) -> Evaluation:
        size = int(self._count.sum())
        top1, top5 = (float(right.sum() / size) for right in self._right)
        per_class = {
            label: float(right / count)
            for label, right, count in zip(labels, self._right[0], self._count, strict=True)
            if count
        }
        return Evaluation(top1, top5, self._loss / size, size, per_class, round(speed, 1))


def _loaded(path: Path) -> keras.Model:
    import keras

    import keras_deepnets.models  # noqa: F401  (registers our layers)
    from keras_deepnets.errors import InputError

    path = path / "model.keras" if path.is_dir() else path
    if not path.is_file() or path.suffix != ".keras":
        raise InputError(f"{path} is not a .keras file; give a model, its file, or the folder of a finished run.")
    return keras.saving.load_model(path)
