"""The commands `evaluate`, `predict` and `convert`."""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.cli import artifacts, show
from keras_deepnets.cli.images import image_files, loading
from keras_deepnets.cli.problems import CheckFailed
from keras_deepnets.cli.quiet import load_tensorflow, native_output_held_back
from keras_deepnets.errors import InputError
from keras_deepnets.labels import first_difference

if TYPE_CHECKING:
    import numpy as np

    from keras_deepnets.data import ImageData
    from keras_deepnets.evaluation import Evaluation

# Number of encoded test images held in memory: a few hundred megabytes of photographs.
_CHUNK = 2048


def evaluate(
    model: Path | None,
    source: str | None,
    split: str | None,
    *,
    weights: str | None,
    options: Mapping[str, Any],
    seed: int | None,
    batch_size: int,
    crops: int,
    scales: tuple[int, ...] | None,
    confusion: Path | None,
    errors: Path | None,
    worst: int,
    skip_broken: bool,
    as_json: bool,
) -> None:
    """Print the accuracy and the confused classes of a trained model on labelled images. Draw pictures if requested."""
    from keras_deepnets.insight import draw_confusion, figures
    from keras_deepnets.insight import errors as grids
    from keras_deepnets.training import evaluation
    from keras_deepnets.training.measured import images_to_measure

    evaluation.check_views(crops, scales)
    if confusion is not None:
        figures.check_path(confusion)
    if errors is not None:
        grids.check_path(errors)
    if options and weights is None:
        raise InputError("evaluate: --option is for --weights; a trained model already has its options.")
    if weights is not None:
        artifact = artifacts.weights(weights, None if model is None else model.as_posix(), options)
    elif model is not None:
        artifact = artifacts.find(model)
    else:
        raise InputError("evaluate: name a trained model, or give --weights FILE.")
    if source is None:
        raise InputError("evaluate: name the DATA to measure on, e.g. `digits` or a folder of class folders.")
    whole = artifact.kind in (artifacts.KERAS, artifacts.WEIGHTS)
    if not whole and (crops != 1 or scales is not None):
        raise InputError(
            f"{artifact.path} is an exported model with a fixed view of each image; for --crops and --scales, give the run folder "
            "or the .keras file that it was made of."
        )
    load_tensorflow()
    with loading(source):
        measured = images_to_measure(source, split, artifact.record(), seed=seed, skip_broken=skip_broken)
    images = measured.images
    if whole:
        views: dict[str, Any] = {"crops": crops, "scales": scales, "worst": worst}
        result = evaluation.evaluate(artifact.model(), images, batch_size=batch_size, **views)
    else:
        result = evaluate_exported(artifact, images, worst=worst)
    if confusion is not None:
        draw_confusion(result.confusion, images.labels, confusion)
    drawn = errors and grids.draw_errors(result, images, errors)
    files = {"confusion_picture": confusion, "errors_picture": drawn}
    values = {
        "model": str(artifact.path),
        "data": source,
        "split": measured.split,
        "cut_out_of": measured.of,
        "crops": crops,
        "scales": scales,
        "skipped": len(images.skipped),
        **_values(result, images),
        **{name: str(file) for name, file in files.items() if file is not None},
    }
    if as_json:
        show.print_json(values)
        return
    view = ", ten crops" if crops == 10 else f", at {', '.join(map(str, scales))} pixels" if scales else ""
    print(
        f"{artifact.path} on {result.size:,} images of {source} ({measured}{view}): "
        f"top-1 {show.percent(result.top1)}, top-5 {show.percent(result.top5)}, "
        f"balanced accuracy {show.percent(result.balanced_accuracy)}, loss {result.loss:.4f}, "
        f"{result.images_per_second:,.0f} img/s"
        f"{f', {len(images.skipped):,} skipped as broken' if images.skipped else ''}"
    )
    rows = [(label, show.percent(value)) for label, value in result.per_class.items()]
    show.print_table(("class", "accuracy"), rows, right=("accuracy",))
    show.print_confused(result)
    if confusion is not None:
        print(f"Confusion matrix: {confusion}")
    if errors is not None:
        print(f"Worst errors: {drawn}" if drawn else "No errors, so no picture of them was drawn.")


def _values(result: Evaluation, images: ImageData) -> dict[str, Any]:
    """Return an evaluation as JSON values without the confusion matrix. Errors get file names if the images are files."""
    values = result.to_dict()
    values["images"] = values.pop("size")
    for name in ("confusion", "labels"):
        del values[name]
    if files := getattr(images.store, "names", ()):
        values["worst"] = [error | {"file": files[error["index"]]} for error in values["worst"]]
    return values


def sides(text: str | None) -> tuple[int, ...] | None:
    """The side lengths in pixels from ``--scales``. None if it is not given."""
    if text is None:
        return None
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise InputError(
            f"--scales {text!r} must be comma-separated whole numbers of pixels, e.g. --scales 224,256,384,480,640."
        ) from None


def check_classes(artifact: artifacts.Artifact, images: ImageData, labels: Sequence[str] | None = None) -> None:
    """Raise InputError if a model's classes (`labels`, or else its own) differ from those of the images."""
    labels = artifact.labels() if labels is None else labels
    if labels is not None and first_difference(labels, images.labels) is not None:
        raise InputError(
            f"{artifact.path} has {len(labels)} classes ({labels[0]!r} …) and the data has {len(images.labels)} "
            f"({images.labels[0]!r} …); evaluate it on data with the same classes."
        )


def evaluate_exported(
    artifact: artifacts.Artifact, images: ImageData, labels: Sequence[str] | None = None, worst: int = 1
) -> Evaluation:
    """Evaluate an exported model on encoded image files, as a server or a device would receive them."""
    from keras_deepnets import export
    from keras_deepnets.training.evaluation import Tally

    check_classes(artifact, images, labels)
    tally = Tally(images.labels, worst)
    begin = time.perf_counter()
    for files, truth in encoded_chunks(images):
        with native_output_held_back():
            probabilities = export.predict(artifact.path, files)["probabilities"]
        tally.add(probabilities, truth)
    return tally.evaluation(images.size / (time.perf_counter() - begin))


def encoded_chunks(images: ImageData) -> Iterator[tuple[list[bytes], np.ndarray]]:
    """Yield chunks of the images as lossless PNG files, with their labels."""
    import numpy as np
    import tensorflow as tf

    encoded = images.examples().map(lambda image, label: (tf.io.encode_png(image), label))
    for files, truth in encoded.batch(_CHUNK).as_numpy_iterator():
        yield list(files), np.asarray(truth)


def convert(source: str, out: Path, network: str | None, options: Mapping[str, Any], *, as_json: bool) -> None:
    """Convert the weights of a file or a card to a format of this library. Print what was found."""
    from keras_deepnets.weights import saving

    artifacts.check_weights("convert", source, network)
    saving.check_target(out)
    load_tensorflow()
    from keras_deepnets import weights

    begin = time.perf_counter()
    report = weights.convert(source, out, network, **options)
    values: dict[str, Any] = {
        "source": source,
        "naming": report.naming,
        "weights": report.loaded,
        "out": str(out),
        "bytes": out.stat().st_size,
        "seconds": round(time.perf_counter() - begin, 2),
    }
    if as_json:
        show.print_json(values)
        return
    print(
        f"{source} ({report.naming}): {report.loaded:,} weights in {out}, {values['bytes'] / 1e6:.1f} MB, "
        f"{values['seconds']:.1f} s"
    )


def predict(model: Path, paths: list[Path], top: int, *, strict: bool, table: Path | None, as_json: bool) -> None:
    """Print the most probable classes of image files, one line per image. For a broken image, print the error.

    Args:
        model: A trained model.
        paths: Image files or folders of images.
        top: Number of classes to print per image.
        strict: Whether the first broken image is an error.
        table: A CSV file for the predictions, or None.
        as_json: Whether to print JSON.

    Raises:
        CheckFailed: Some images were broken. Raised after all images are done.
    """
    artifact = artifacts.find(model)
    if table is not None:
        _check_table(table)
    files = image_files(paths)
    load_tensorflow()
    from keras_deepnets import export

    with native_output_held_back():
        found = export.predict(artifact.path, files, on_error="fail" if strict else "skip")
    probabilities, errors = found["probabilities"], found.get("errors", [None] * len(files))
    names = artifact.labels() or [str(index) for index in range(probabilities.shape[1])]
    top = min(top, len(names) or top)
    results = []
    for file, row, error in zip(files, probabilities, errors, strict=True):
        best = [] if error else (-row).argsort(kind="stable")[:top]
        guesses = [{"label": names[i], "probability": float(row[i])} for i in best]
        results.append({"image": str(file), "predictions": guesses, "error": error})
    if table is not None:
        _write_table(table, results, top)
    if as_json:
        show.print_json(results)
    else:
        width = max(len(result["image"]) for result in results)
        for result in results:
            texts = [f"{guess['label']} {100 * guess['probability']:.1f} %" for guess in result["predictions"]]
            print(f"{result['image']:<{width}}  {', '.join(texts) if texts else 'error: ' + result['error']}")
    broken = sum(error is not None for error in errors)
    if broken:
        sys.stdout.flush()
        raise CheckFailed(f"{broken:,} of {len(files):,} images cannot be read.")


def _check_table(path: Path) -> None:
    """Raise InputError if the CSV file cannot be written."""
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(
            f"--csv {path}: {'is a folder' if path.is_dir() else 'its folder does not exist'}; name a file."
        )


def _write_table(path: Path, results: Sequence[Mapping[str, Any]], top: int) -> None:
    """Write predictions as CSV: image, label 1, probability 1, …, error. The write is atomic."""
    from keras_deepnets.files import written_aside

    columns = [f"{name}_{place}" for place in range(1, top + 1) for name in ("label", "probability")]
    with written_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", *columns, "error"])
        for result in results:
            cells = [value for guess in result["predictions"] for value in (guess["label"], guess["probability"])]
            cells += [""] * (len(columns) - len(cells))
            writer.writerow([result["image"], *cells, result["error"] or ""])
