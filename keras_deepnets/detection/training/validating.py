"""Validation of a detector during a run, and the pictures of its results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_deepnets.detection import pictures
from keras_deepnets.detection.detecting import detections
from keras_deepnets.detection.evaluating import ImagesOf, evaluate, images, truths
from keras_deepnets.detection.metrics import DetectionEvaluation, DetectionMetrics
from keras_deepnets.files import write_json
from keras_deepnets.training import boards
from keras_deepnets.training.averaging import averaged

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
    """

    def __init__(
        self,
        detector: Detector,
        data: DetectionData,
        every: int,
        epochs: int,
        folder: Path,
        metrics: MetricsFile,
    ):
        super().__init__()
        self._detector, self._data, self._every, self._epochs = detector, data, every, epochs
        self._folder, self._metrics = Path(folder), metrics

    def on_epoch_end(self, epoch, logs=None):
        """Validate if it is due."""
        if logs is None or ((epoch + 1) % self._every and epoch + 1 < self._epochs):
            return
        self._metrics.on_test_begin()
        shown = _Shown(self._data)
        with averaged(self.model):
            result = evaluate(self._detector, self._data, coco=has_coco(), each=shown)
        logs |= {f"val_{name}": value for name, value in numbers(result).items()}
        self._draw(shown, epoch + 1)

    def _draw(self, shown: _Shown, epoch: int) -> None:
        import tensorflow as tf

        grid = shown.grid()
        writer = tf.summary.create_file_writer(str(self._folder / "validation"))
        with writer.as_default(step=epoch):
            tf.summary.image("detections", grid[np.newaxis])
        writer.close()


class _Shown:
    """Collects the first images with their boxes."""

    def __init__(self, data: DetectionData):
        self._data = data
        self.rows: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def __call__(self, place: int, truth: dict[str, Any], found: dict[str, Any]) -> None:
        if place < SHOWN:
            self.rows.append((truth, found))

    def grid(self) -> np.ndarray:
        """The picture as pixels."""
        pixels = [self._data.image(place) for place in range(len(self.rows))]
        found, true = [row[1] for row in self.rows], [row[0] for row in self.rows]
        return pictures.detections_grid(pixels, found, true, self._data.classes)


def has_coco() -> bool:
    """Whether the package for COCO's metrics is installed."""
    import importlib.util

    return importlib.util.find_spec("faster_coco_eval") is not None


def numbers(result: DetectionEvaluation) -> dict[str, float]:
    """The numbers of a validation for `metrics.csv`."""
    values = {"ap": result.ap, "ap50": result.ap50, "ap75": result.ap75, "voc07": result.voc07}
    return {name: float(value) for name, value in values.items() if value is not None}


def report(model: Detector, data: DetectionData, folder: Path) -> DetectionEvaluation:
    """Measure a detector and write `evaluation.json`, `precision_recall.png` and `examples.png` to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    metrics = DetectionMetrics(data.classes, coco=has_coco())
    true, found = list(truths(data)), []
    for truth, each in zip(true, detections(model, images(data)), strict=True):
        metrics.update(truth, each)
        found.append(each)
    result = metrics.result()
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
