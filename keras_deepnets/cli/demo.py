"""The ``keras-deepnets demo`` command: train, evaluate, export, compare and predict on the embedded digits."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keras_deepnets.cli import show
from keras_deepnets.cli.problems import PROGRAM, CheckFailed
from keras_deepnets.cli.quiet import native_output_held_back

if TYPE_CHECKING:
    import keras
    import numpy as np

    from keras_deepnets.data import ImageData

MODEL, DATA, RECIPE = "resnet20", "digits", "fast"
EPOCHS = 20  # the recipe's own 69 epochs take three minutes
EXPECTED_ACCURACY = 0.97
_TITLES = ("Train", "Evaluate", "Export", "Compare", "Predict image files", "Files")

# Files that the demo writes, in the order in which they are printed.
_MADE = {
    "run": "",
    "run/model.keras": "the trained model",
    "run/curves.png": "training curves",
    "run/metrics.csv": "the same as numbers",
    "run/inputs.png": "training images as the network sees them",
    "run/tensorboard": "the same for `tensorboard --logdir`",
    "run/config.json": "configuration of the run",
    "run/checkpoints": "checkpoints to resume an interrupted run",
    "savedmodel": "model folder for TF Serving",
    "savedmodel/1": "image files or pixels in, probabilities and labels out",
    "digits.tflite": "for devices, float32",
    "digits.tflite.json": "its input, output and labels",
    "digits-int8.tflite": "for devices, integers only",
    "digits-int8.tflite.json": "its input, output and labels",
    "images": "one test digit per class",
}


@dataclass(frozen=True)
class Agreement:
    """Agreement of an exported model's predictions with those of the Keras model.

    Attributes:
        name: Name of the export.
        path: Path of the export.
        max_difference: Largest difference of a probability.
        same_top1: Share of the images with the same most probable class.
        accuracy: Accuracy on the same images.
        tolerance: Upper limit for `max_difference`. None for quantised exports, whose probabilities differ.
        least_same: Lower limit for `same_top1`.
    """

    name: str
    path: Path
    max_difference: float
    same_top1: float
    accuracy: float
    tolerance: float | None
    least_same: float

    @property
    def holds(self) -> bool:
        """Whether the export agrees with the Keras model within the limits."""
        near = self.tolerance is None or self.max_difference <= self.tolerance
        return near and self.same_top1 >= self.least_same


def run(out: Path, begin: float | None = None) -> None:
    """Run the demo.

    An interrupted training run resumes, and a finished one is skipped. All other files are written again.

    Args:
        out: Output folder.
        begin: Start time of the command, from `time.perf_counter`.

    Raises:
        CheckFailed: The test accuracy is below 97 %, or the predictions of an export differ from those of the Keras model.
        InputError: The folder cannot be used.
    """
    from keras_deepnets import data, training

    begin = time.perf_counter() if begin is None else begin
    test = data.load(DATA, split="test")
    print(
        f"The whole workflow on {DATA}: real handwritten digits, 8 × 8 pixels, {test.size} of them in the test split."
    )

    _title(1)
    before = (out / "run" / "model.keras").exists()
    trained = training.train(
        MODEL, DATA, RECIPE, out / "run", precision="float32", epochs=EPOCHS, verbose=0 if before else "auto"
    )
    if before:
        print(f"{out / 'run'} already holds this run, finished. The demo uses it; delete it to train again.")

    _title(2)
    result = training.evaluate(trained.model, test)
    print(f"Test accuracy {show.percent(result.top1)} on {result.size} images, {result.images_per_second:,.0f} img/s.")
    if result.top1 < EXPECTED_ACCURACY:
        raise CheckFailed(
            f"the test accuracy is {show.percent(result.top1)} and should be at least {show.percent(EXPECTED_ACCURACY)}; "
            f"see the training curves in {out / 'run' / 'curves.png'}."
        )

    _title(3)
    exports = export_all(trained.model, out)
    for name, path in exports.items():
        print(f"{name:<14} {path}  {show.bytes_text(show.size_of(path))}")

    _title(4)
    agreements = compare(trained.model, exports, test)
    print_agreements(agreements)

    _title(5)
    predict_files(exports["SavedModel"], write_digits(test, out / "images"))

    _title(6)
    print_tree(out)
    print_next(out, exports)
    print(f"\nDone in {time.perf_counter() - begin:.0f} s.")


def export_all(model: keras.Model, out: Path) -> dict[str, Path]:
    """Write the SavedModel and both TFLite files, replacing those of an earlier demo. Return name to path."""
    from keras_deepnets import data, export

    folder = out / "savedmodel"
    shutil.rmtree(folder / "1", ignore_errors=True)
    train = data.load(DATA, split="train")
    with native_output_held_back():
        return {
            "SavedModel": export.saved_model(model, folder, version=1),
            "TFLite float32": export.tflite(model, out / "digits.tflite"),
            "TFLite int8": export.tflite(model, out / "digits-int8.tflite", quantize="int8", calibration=train),
        }


def compare(model: keras.Model, exports: dict[str, Path], test: ImageData) -> list[Agreement]:
    """Load each export and compare its predictions with the Keras model's on the test images.

    The Keras model gets its input from the data pipeline. The exports get the unchanged 8 × 8 images. So the comparison also
    covers the preprocessing.
    """
    import numpy as np

    from keras_deepnets import export

    images, truth = (np.stack(values) for values in zip(*test.examples().as_numpy_iterator(), strict=True))
    height, width, channels = model.input_shape[1:]
    expected = model.predict(test.batches(128, image_size=(height, width), channels=channels), verbose=0)
    found = []
    for name, path in exports.items():
        with native_output_held_back():
            probabilities = export.predict(path, images)["probabilities"]
        found.append(_agreement(name, path, probabilities, np.asarray(expected, "float32"), truth))
    return found


def _agreement(name: str, path: Path, found: np.ndarray, expected: np.ndarray, truth: np.ndarray) -> Agreement:
    quantised = "int8" in name
    return Agreement(
        name=name,
        path=path,
        max_difference=float(abs(found - expected).max()),
        same_top1=float((found.argmax(-1) == expected.argmax(-1)).mean()),
        accuracy=float((found.argmax(-1) == truth).mean()),
        tolerance=None if quantised else 1e-3,
        least_same=0.98 if quantised else 1.0,
    )


def print_agreements(agreements: list[Agreement]) -> None:
    """Print one row per export. Raise CheckFailed if an export does not agree with the Keras model."""
    rows = [
        (each.name, f"{each.max_difference:.1e}", show.percent(each.same_top1), show.percent(each.accuracy))
        for each in agreements
    ]
    columns = ("reloaded", "largest difference", "same top-1", "test accuracy")
    show.print_table(columns, rows, right=columns[1:], title="Compared with the Keras model, on the test images")
    for each in agreements:
        if not each.holds:
            raise CheckFailed(
                f"{each.path} does not agree with the Keras model: probabilities differ by up to "
                f"{each.max_difference:.1e}, and the top class is the same for {show.percent(each.same_top1)} of the images."
            )


def write_digits(test: ImageData, folder: Path) -> list[Path]:
    """Write the first test image of each class as a PNG file named after its digit."""
    import tensorflow as tf

    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[int, Path] = {}
    for image, label in test.examples().as_numpy_iterator():
        if label not in paths:
            paths[label] = folder / f"digit-{test.labels[label]}.png"
            paths[label].write_bytes(tf.io.encode_png(image).numpy())
        if len(paths) == len(test.labels):
            break
    return [paths[label] for label in sorted(paths)]


def predict_files(model: Path, files: list[Path]) -> None:
    """Print the exported model's predictions for image files."""
    from keras_deepnets import export

    result = export.predict(model, files)
    for file, label, probabilities in zip(files, result["labels"], result["probabilities"], strict=True):
        print(f"{file}  {label}  {100 * probabilities.max():.1f} %")


def print_tree(out: Path) -> None:
    """Print the files and folders with their sizes and purposes."""
    rows = []
    for name, meaning in _MADE.items():
        path = out / name
        if path.exists():
            shown = "  " * name.count("/") + path.name + "/" * path.is_dir()
            rows.append((shown, show.bytes_text(show.size_of(path)), meaning))
    show.print_table((f"{out}/", "size", "what it is"), rows, right=("size",))


def print_next(out: Path, exports: dict[str, Path]) -> None:
    """Print commands that use the demo's files."""
    image = out / "images" / "digit-7.png"
    lines = (
        f"{PROGRAM} predict {exports['TFLite int8']} {image}",
        f"{PROGRAM} evaluate {exports['SavedModel']} {DATA}",
        f"{PROGRAM} train resnet32 {DATA} --epochs 10",
        f"{PROGRAM} train resnet20 FOLDER   # FOLDER/<class>/*.jpg: your own images",
        f"{PROGRAM} list",
    )
    print("\nNext:")
    for line in lines:
        print(f"  {line}")


def _title(number: int) -> None:
    text = f"{number}/{len(_TITLES)}  {_TITLES[number - 1]}"
    print()
    show.console().print(text, style="bold")
