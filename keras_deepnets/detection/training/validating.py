"""Validation of a detector during a run, and the pictures of its results."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_deepnets.detection import pictures
from keras_deepnets.detection.detecting import detections
from keras_deepnets.detection.evaluating import ImagesOf, truths
from keras_deepnets.detection.metrics import DetectionEvaluation, evaluate_detections
from keras_deepnets.distribution import ALONE, Group
from keras_deepnets.files import write_json
from keras_deepnets.training import boards
from keras_deepnets.training.averaging import averaged
from keras_deepnets.training.sharing import average_statistics

if TYPE_CHECKING:
    from keras_deepnets.detection.data import DetectionData
    from keras_deepnets.detection.detector import Detector
    from keras_deepnets.training.callbacks import MetricsFile
    from keras_deepnets.training.run import RunFolder

SHOWN = 9
"""Number of validation images whose detections are drawn."""

PICTURES = ("precision_recall.png", "examples.png")
"""Pictures that `report` writes and that TensorBoard shows too."""


class Validate(keras.callbacks.Callback):
    """Measure a detector every few epochs and after the last, and add `val_ap`, `val_ap50` and `val_ap75` to the metrics.

    The weights are the running average if the optimizer keeps one. TensorBoard gets a picture of predicted and true boxes.

    Args:
        detector: detector that the fitted model trains.
        data: validation images.
        every: epochs between two validations.
        epochs: number of epochs of the run.
        folder: TensorBoard's `--logdir`.
        metrics: callback whose clock stops before the validation. It comes after this one.
        group: processes of which each validates on a part of the images.
    """

    def __init__(
        self,
        detector: Detector,
        data: DetectionData,
        every: int,
        epochs: int,
        folder: Path,
        metrics: MetricsFile,
        group: Group = ALONE,
    ):
        super().__init__()
        self._detector, self._data, self._every, self._epochs = detector, data, every, epochs
        self._folder, self._metrics, self._group = Path(folder), metrics, group
        self._found: tuple[int, list[dict[str, np.ndarray]]] | None = None

    def found(self, epoch: int) -> list[dict[str, np.ndarray]] | None:
        """The detections after an epoch, counted from 1. None if the last validation was not then."""
        return self._found[1] if self._found is not None and self._found[0] == epoch else None

    def on_epoch_end(self, epoch, logs=None):
        """Validate if it is due."""
        if logs is None or ((epoch + 1) % self._every and epoch + 1 < self._epochs):
            return
        self._metrics.on_test_begin()
        average_statistics(self.model, self._group)
        with averaged(self.model):
            found = found_by_all(self._detector, self._data, self._group)
        self._found = epoch + 1, found

        def measured() -> dict[str, float]:
            self._draw(found[:SHOWN], epoch + 1)
            return numbers(measure(self._data, found))

        logs |= {f"val_{name}": value for name, value in self._group.from_chief(measured).items()}

    def _draw(self, found: list[dict[str, np.ndarray]], epoch: int) -> None:
        import tensorflow as tf

        pixels = [self._data.image(place) for place in range(len(found))]
        true = list(itertools.islice(truths(self._data), len(found)))
        grid = pictures.detections_grid(pixels, found, true, self._data.classes)
        writer = tf.summary.create_file_writer(str(self._folder / "validation"))
        with writer.as_default(step=epoch):
            tf.summary.image("detections", grid[np.newaxis])
        writer.close()


def has_coco() -> bool:
    """Whether the package for COCO's metrics is installed."""
    import importlib.util

    return importlib.util.find_spec("faster_coco_eval") is not None


def numbers(result: DetectionEvaluation) -> dict[str, float]:
    """The numbers of a validation for `metrics.csv`."""
    values = {"ap": result.ap, "ap50": result.ap50, "ap75": result.ap75, "voc07": result.voc07}
    return {name: float(value) for name, value in values.items() if value is not None}


def found_by_all(model: Detector, data: DetectionData, group: Group) -> list[dict[str, np.ndarray]]:
    """The detections of all images, as `detect` returns them. Each process of a group detects in a part of the images.

    Each image is a batch, so its detections do not depend on the number of processes.
    """
    own = range(group.index, len(data), group.size)
    found = detections(model, (data.image(place) for place in own))
    if group.size == 1:
        return list(found)
    # Fixed shapes: TensorFlow traces each shape of a sum once. Adding zeros is exact.
    rows = np.zeros((len(data), model.output["scores"].shape[1], 6), np.float32)
    counts = np.zeros(len(data), np.int32)
    for place, each in zip(own, found, strict=True):
        counts[place] = count = len(each["scores"])
        rows[place, :count] = np.column_stack([each["boxes"], each["scores"], each["labels"]])
    rows, counts = (np.asarray(total) for total in group.sum([rows, counts]))
    return [
        {"boxes": row[:count, :4], "scores": row[:count, 4], "labels": row[:count, 5].astype(np.int64)}
        for row, count in zip(rows, counts, strict=True)
    ]


def measure(data: DetectionData, found: Sequence[dict[str, np.ndarray]]) -> DetectionEvaluation:
    """Compare detections with the true objects."""
    return evaluate_detections(list(truths(data)), found, data.classes, coco=has_coco())


def report(
    model: Detector,
    data: DetectionData,
    folder: Path,
    group: Group = ALONE,
    found: Sequence[dict[str, np.ndarray]] | None = None,
) -> DetectionEvaluation:
    """Measure a detector and write `evaluation.json`, `precision_recall.png` and `examples.png` to a folder.

    Args:
        model: detector.
        data: labelled images.
        folder: folder of the files.
        group: processes of which each detects in a part of the images. Only the chief writes.
        found: detections of all images by this detector, if they are known. All processes know them, or none does.
    """
    true = list(truths(data))
    found = found_by_all(model, data, group) if found is None else found
    result = measure(data, found)
    if not group.is_chief:
        return result
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "evaluation.json", result.to_dict())
    pictures.precision_recall(result, folder / "precision_recall.png")
    pictures.best_and_worst(folder / "examples.png", ImagesOf(data), true, found, data.classes)
    shown = range(min(SHOWN, len(data)))
    pictures.save_detections(
        folder / "detections.png", [data.image(at) for at in shown], found[:SHOWN], true[:SHOWN], data.classes
    )
    return result


def show_inputs(batches: Any, classes: tuple[str, ...], folder: RunFolder) -> None:
    """Draw some training images with their boxes as the network sees them, once per run."""
    if folder.inputs.exists():
        return
    boards.show_hyperparameters(folder)
    rows = []
    for batch in batches.take(SHOWN).as_numpy_iterator():
        for image, size, boxes, labels, count in zip(
            batch["images"], batch["sizes"], batch["boxes"], batch["labels"], batch["count"], strict=True
        ):
            pixels = np.clip(np.rint(image[: size[0], : size[1]]), 0, 255).astype(np.uint8)
            rows.append((pixels, {"boxes": boxes[:count], "labels": labels[:count]}))
        if len(rows) >= SHOWN:
            break
    rows = rows[:SHOWN]
    nothing = {"boxes": np.zeros((0, 4), "float32"), "scores": np.zeros(0, "float32"), "labels": np.zeros(0, "int64")}
    pictures.save_detections(
        folder.inputs,
        [pixels for pixels, _ in rows],
        [nothing] * len(rows),
        [truth for _, truth in rows],
        classes,
        key="Training images as the network sees them, with their true boxes.",
    )
