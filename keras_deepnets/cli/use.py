"""The commands that use a trained model: evaluate, predict, export."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.cli import artifacts, show
from keras_deepnets.cli.images import image_files, images_of
from keras_deepnets.cli.quiet import load_tensorflow, native_output_held_back
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from keras_deepnets.data import ImageData

FORMATS = ("savedmodel", "tflite", "onnx", "keras")
# Encoded test images that are held at once: a few hundred megabytes of photographs.
_CHUNK = 2048
# Images on which an export is compared with its model.
_COMPARED = 8


def evaluate(
    model: Path | None,
    source: str | None,
    split: str,
    *,
    weights: Path | None,
    seed: int | None,
    batch_size: int,
    crops: int,
    scales: tuple[int, ...] | None,
    confusion: Path | None,
    skip_broken: bool,
    as_json: bool,
) -> None:
    """Prints the accuracy of a trained model on labelled images; draws what is taken for what."""
    from keras_deepnets.insight import confusion as pictures
    from keras_deepnets.training import evaluation

    evaluation.check_views(crops, scales)
    if confusion is not None:
        pictures.check_path(confusion)
    if weights is not None:
        artifact = artifacts.weights(weights, None if model is None else str(model))
    elif model is not None:
        artifact = artifacts.find(model)
    else:
        raise InputError("evaluate: name a trained model, or give --weights FILE.")
    if source is None:
        raise InputError("evaluate: name the DATA to measure on, e.g. `digits` or a folder of class folders.")
    whole = artifact.kind in (artifacts.KERAS, artifacts.WEIGHTS)
    if not whole and (crops != 1 or scales is not None):
        raise InputError(
            f"{artifact.path} is an exported model, which chooses its view of an image itself; give --crops and --scales the run "
            "folder or the .keras file that it was made of."
        )
    load_tensorflow()
    from keras_deepnets import training

    seed = artifact.seed() if seed is None else seed
    images = images_of(source, split, seed, skip_broken)
    if whole:
        result = training.evaluate(artifact.model(), images, batch_size=batch_size, crops=crops, scales=scales)
        matrix = result.confusion
        values = {
            "top1": result.top1,
            "top5": result.top5,
            "loss": result.loss,
            "images": result.size,
            "images_per_second": result.images_per_second,
            "per_class": dict(result.per_class),
        }
    else:
        values, matrix = _evaluate_exported(artifact, images)
    asked = {"model": str(artifact.path), "data": source, "split": split, "crops": crops, "scales": scales}
    values = asked | values | {"skipped": len(images.skipped)}
    if confusion is not None:
        pictures.draw_confusion(matrix, images.labels, confusion)
        values["confusion_picture"] = str(confusion)
    if as_json:
        show.print_json(values)
        return
    loss = f", loss {values['loss']:.4f}" if "loss" in values else ""
    view = ", ten crops" if crops == 10 else f", at {', '.join(map(str, scales))} pixels" if scales else ""
    print(
        f"{artifact.path} on {values['images']:,} images of {source} ({split}{view}): "
        f"top-1 {show.percent(values['top1'])}, top-5 {show.percent(values['top5'])}{loss}, "
        f"{values['images_per_second']:,.0f} img/s"
        f"{f', {len(images.skipped):,} broken left out' if images.skipped else ''}"
    )
    rows = [(label, show.percent(value)) for label, value in values["per_class"].items()]
    show.print_table(("class", "accuracy"), rows, right=("accuracy",))
    if confusion is not None:
        print(f"Which class is taken for which: {confusion}")


def sides(text: str | None) -> tuple[int, ...] | None:
    """The numbers of pixels that ``--scales`` names; None where it is not given."""
    if text is None:
        return None
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise InputError(
            f"--scales {text!r} must be whole numbers of pixels with commas, e.g. --scales 224,256,384,480,640."
        ) from None


def _evaluate_exported(artifact: artifacts.Artifact, images: ImageData) -> tuple[dict[str, Any], np.ndarray]:
    """Accuracy and confusion of what a server or a device would run: it is given image files, as they would be."""
    import numpy as np

    from keras_deepnets import export

    labels = artifact.labels()
    if labels is not None and list(labels) != list(images.labels):
        raise InputError(
            f"{artifact.path} knows {len(labels)} classes ({labels[0]!r} …) and the data has {len(images.labels)} "
            f"({images.labels[0]!r} …); evaluate it on data with the same classes."
        )
    classes = len(images.labels)
    confusion, top5 = np.zeros((classes, classes), np.int64), 0
    begin = time.perf_counter()
    for files, truth in _chunks(images):
        with native_output_held_back():
            probabilities = export.predict(artifact.path, files)["probabilities"]
        ranked = np.argsort(-probabilities, axis=-1, kind="stable")[:, :5]
        np.add.at(confusion, (truth, ranked[:, 0]), 1)
        top5 += int((ranked == truth[:, np.newaxis]).any(axis=1).sum())
    seconds = time.perf_counter() - begin
    right, counts = confusion.diagonal(), confusion.sum(axis=1)
    total = int(counts.sum())
    values = {
        "top1": int(right.sum()) / total,
        "top5": top5 / total,
        "images": total,
        "images_per_second": round(total / seconds, 1),
        "per_class": {label: int(right[i]) / int(counts[i]) for i, label in enumerate(images.labels) if counts[i]},
    }
    return values, confusion


def _chunks(images: ImageData) -> Iterator[tuple[list[bytes], np.ndarray]]:
    """The images as PNG files, which lose nothing, with their labels."""
    import numpy as np
    import tensorflow as tf

    encoded = images.examples().map(lambda image, label: (tf.io.encode_png(image), label))
    for files, truth in encoded.batch(_CHUNK).as_numpy_iterator():
        yield list(files), np.asarray(truth)


def convert(source: Path, out: Path, network: str | None, *, as_json: bool) -> None:
    """Writes the weights of a file in a format of ours; prints what was found."""
    from keras_deepnets.weights import reading, saving

    reading.check_path("convert", source)
    saving.check_target(out)
    if network is not None:
        from keras_deepnets import registry

        registry.constructor_of(network)
    load_tensorflow()
    from keras_deepnets import weights

    begin = time.perf_counter()
    report = weights.convert(source, out, network)
    values = {
        "source": str(source),
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


def predict(model: Path, paths: list[Path], top: int, *, as_json: bool) -> None:
    """Prints the most probable classes of image files, a line an image."""
    artifact = artifacts.find(model)
    files = image_files(paths)
    load_tensorflow()
    from keras_deepnets import export

    with native_output_held_back():
        probabilities = export.predict(artifact.path, files)["probabilities"]
    names = artifact.labels() or [str(index) for index in range(probabilities.shape[1])]
    results = []
    for file, row in zip(files, probabilities, strict=True):
        best = (-row).argsort(kind="stable")[:top]
        results.append(
            {"image": str(file), "predictions": [{"label": names[i], "probability": float(row[i])} for i in best]}
        )
    if as_json:
        show.print_json(results)
        return
    width = max(len(result["image"]) for result in results)
    for result in results:
        texts = [f"{guess['label']} {100 * guess['probability']:.1f} %" for guess in result["predictions"]]
        print(f"{result['image']:<{width}}  {', '.join(texts)}")


@dataclass(frozen=True)
class Export:
    """What the command line asks of an export.

    Attributes:
        out: the file, or the folder of versions.
        form: one of `FORMATS`.
        quantize: of a TFLite file, as `export.tflite` takes it.
        calibration: name of the data that calibrates.
        integer_io: whether a TFLite file of integers takes and gives integers.
        any_batch: whether a TFLite file takes any number of images.
        version: of a SavedModel; None: the next free one.
        data: name of the data that the accuracy is measured on; None: it is not.
        overwrite: whether a file may be replaced.
    """

    out: Path
    form: str
    quantize: str | None = None
    calibration: str | None = None
    integer_io: bool = True
    any_batch: bool = False
    version: int | None = None
    data: str | None = None
    overwrite: bool = False


def export_model(model: Path, request: Export, *, as_json: bool) -> None:
    """Writes what a server or a device runs; prints where it lies, its size, latency and how far it is from the Keras model."""
    _check_export(request)
    artifact = artifacts.find(model)
    if artifact.kind != artifacts.KERAS:
        artifact.model()  # says what to give instead
    if request.form == "onnx":
        from keras_deepnets.export import onnx_export

        onnx_export.check_installed()
    load_tensorflow()
    with show.steps(quiet=as_json) as say:
        say("reading the data")
        calibration = images_of(request.calibration, "train", artifact.seed()) if request.calibration else None
        test = images_of(request.data, "test", artifact.seed()) if request.data else None
        say("loading the model")
        network = artifact.model()
        say(f"converting to {request.form}")
        with native_output_held_back():
            path = _write_export(network, request, calibration)
        rows = _compared(artifact, network, path, request.form, test, say)
    size = show.size_of(path)
    if as_json:
        asked = {"path": str(path), "format": request.form, "quantize": request.quantize, "bytes": size}
        values = asked | {"data": request.data, "model": rows[0], "export": rows[1]}
        show.print_json(values)
        return
    print(f"{path}  {show.bytes_text(size)}")
    cells = [
        (
            row["name"],
            show.bytes_text(row["bytes"]),
            "–" if row["latency_ms"] is None else f"{row['latency_ms']:.1f} ms",
            "–" if row["difference"] is None else f"{row['difference']:.1e}",
            *([] if test is None else ["–" if row["top1"] is None else show.percent(row["top1"])]),
        )
        for row in rows
    ]
    columns = ("", "size", "one image", "largest difference", *([] if test is None else ["top-1"]))
    show.print_table(columns, cells, right=columns[1:])
    if rows[1]["latency_ms"] is None:
        print("Not run: onnxruntime is not installed.")


def _write_export(network: Any, request: Export, calibration: ImageData | None) -> Path:
    from keras_deepnets import export

    if request.form == "savedmodel":
        return export.saved_model(network, request.out, version=request.version)
    if request.form == "onnx":
        return export.onnx(network, request.out)
    if request.form == "keras":
        return export.inference_model(network, request.out)
    return export.tflite(
        network,
        request.out,
        quantize=request.quantize,
        calibration=calibration,
        integer_io=request.integer_io,
        batch=None if request.any_batch else 1,
    )


def _compared(
    original: artifacts.Artifact, network: Any, path: Path, form: str, test: ImageData | None, say: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Size, milliseconds an image, largest difference of a probability on a few images and accuracy: of the model, of the export."""
    from importlib.util import find_spec

    import numpy as np

    from keras_deepnets import export
    from keras_deepnets.export import measuring

    ours = {"name": "Keras model", "bytes": show.size_of(original.path), "difference": None, "top1": None}
    theirs = {"name": form, "bytes": show.size_of(path), "difference": None, "top1": None}
    can_run = form != "onnx" or find_spec("onnxruntime") is not None
    say("measuring")
    with native_output_held_back():
        ours["latency_ms"] = 1e3 * measuring.latency(original.path)
        theirs["latency_ms"] = 1e3 * measuring.latency(path) if can_run else None
        if can_run:
            images = _few_images(network, test)
            found, expected = (export.predict(each, images)["probabilities"] for each in (path, network))
            theirs["difference"] = float(np.abs(found - expected).max())
    if test is not None:
        for row, artifact in ((ours, original), (theirs, artifacts.find(path) if can_run else None)):
            if artifact is not None:
                say(f"evaluating: {row['name']}")
                row["top1"] = _evaluate_exported(artifact, test)[0]["top1"]
    return ours, theirs


def _few_images(network: Any, test: ImageData | None) -> Any:
    """What the export and the model are compared on: test images as PNG files, or noise where there are none."""
    import numpy as np

    if test is not None:
        return next(_chunks(test))[0][:_COMPARED]
    height, width = network.input_shape[1:3]
    return np.random.default_rng(0).integers(0, 256, (_COMPARED, height, width, 3), np.uint8)


def _check_export(request: Export) -> None:
    """What can be said of the options alone, before anything is loaded."""
    from keras_deepnets.export.litert import CALIBRATED, QUANTIZATIONS

    form, out = request.form, request.out
    if form not in FORMATS:
        raise InputError(f"--format {form!r} is not one of {', '.join(FORMATS)}.")
    if form != "tflite" and (request.quantize or request.calibration):
        raise InputError(f"--quantize and --calibration are for --format tflite; {form} computes in float32.")
    if form != "tflite" and (request.any_batch or not request.integer_io):
        raise InputError("--any-batch and --float-io are for --format tflite; the other formats are so already.")
    if form != "savedmodel" and request.version is not None:
        raise InputError(f"--model-version is for --format savedmodel; a .{form} file has no version.")
    if form != "savedmodel" and out.suffix != f".{form}":
        raise InputError(
            f"OUT {str(out)!r} does not end in .{form}; name the file so, e.g. {out.name or 'model'}.{form}."
        )
    if form != "savedmodel" and out.is_file() and not request.overwrite:
        raise InputError(f"{out} exists; name another file, or give --overwrite.")
    if request.quantize is not None and request.quantize not in QUANTIZATIONS:
        raise InputError(f"--quantize {request.quantize!r} is not one of {', '.join(QUANTIZATIONS)}.")
    if request.quantize in CALIBRATED and not request.calibration:
        raise InputError(
            f"--quantize {request.quantize} needs --calibration DATA: images from which the ranges of the activations are read."
        )
    if request.calibration and request.quantize not in CALIBRATED:
        raise InputError(f"--calibration is for --quantize {' and '.join(CALIBRATED)}.")
    if not request.integer_io and request.quantize not in CALIBRATED:
        raise InputError(f"--float-io is for --quantize {' and '.join(CALIBRATED)}; others take floats anyway.")
