"""The commands `export` and `serving-config`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.cli import artifacts, show, use
from keras_deepnets.cli.images import images_of
from keras_deepnets.cli.quiet import load_tensorflow, native_output_held_back
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    from keras_deepnets.data import ImageData

SUFFIXES = {"savedmodel": None, "tflite": ".tflite", "onnx": ".onnx", "openvino": ".xml", "keras": ".keras"}
"""The formats, and the suffix of the file that each writes."""
# Number of images for comparing an export with its model.
_COMPARED = 8


@dataclass(frozen=True)
class Export:
    """An export as requested on the command line.

    Attributes:
        out: Output file, or the folder of versions.
        form: One of `SUFFIXES`.
        quantize: Quantisation of a TFLite, ONNX or OpenVINO file, as in `export.tflite`, `export.onnx` and `export.openvino`.
        calibration: Name of the calibration data.
        calibration_images: Maximum number of calibration images. None for the default.
        integer_io: Whether an integer TFLite file has integer inputs and outputs.
        any_batch: Whether a TFLite file accepts any batch size.
        version: Version of a SavedModel. None for the next free number.
        fold: Whether batch normalisation is folded in a SavedModel.
        options: Further options, as in `export.saved_model` and `export.openvino`.
        labels: Text file with one class name per line. None for the model's own labels.
        data: Name of the data for measuring the accuracy. None to skip the measurement.
        overwrite: Whether an existing file may be replaced.
    """

    out: Path
    form: str
    quantize: str | None = None
    calibration: str | None = None
    calibration_images: int | None = None
    integer_io: bool = True
    any_batch: bool = False
    version: int | None = None
    fold: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    labels: Path | None = None
    data: str | None = None
    overwrite: bool = False


def export_model(model: Path, request: Export, *, as_json: bool) -> None:
    """Export a model. Print the path, the size, the latency and the difference from the Keras model."""
    from keras_deepnets.export.calibrating import too_few
    from keras_deepnets.export.classifier import unscaled

    check_export(request)
    labels = None if request.labels is None else names_in(request.labels)
    artifact = artifacts.find(model)
    if artifact.kind != artifacts.KERAS:
        artifact.model()  # raises an error that names what to give instead
    if request.form == "onnx":
        from keras_deepnets.export import onnx_export

        onnx_export.check_installed(onnx_export.needed(request.quantize))
    if request.form == "openvino":
        from keras_deepnets.export import openvino_export

        openvino_export.check_installed(("openvino", "nncf") if request.quantize else ("openvino",))
    load_tensorflow()
    with show.steps(quiet=as_json) as say:
        say("reading the data")
        calibration = images_of(request.calibration, "train", artifact.seed()) if request.calibration else None
        test = images_of(request.data, "test", artifact.seed()) if request.data else None
        say("loading the model")
        network = artifact.model()
        if test is not None:
            use.check_classes(artifact, test, labels)
        top1 = None
        if test is not None:
            say("evaluating: Keras model")
            top1 = use.evaluate_exported(artifact, test, labels).top1
        say(f"converting to {request.form}")
        with native_output_held_back():
            path = _write(network, request, labels, calibration, _of_the_card(artifact, test, top1))
        rows = _compared(artifact, network, path, request, labels, test, top1, say)
    few = None if calibration is None else too_few(calibration.size, _most(request))
    unknown = None if request.form == "keras" else unscaled(network)
    for said in filter(None, (few, unknown)):  # Python warnings are hidden from users of the command
        print(f"Warning: {said}", file=sys.stderr)
    size = show.size_of(path)
    load = _how_to_load(path) if request.form == "keras" else None
    if as_json:
        asked: dict[str, Any] = {"path": str(path), "format": request.form, "quantize": request.quantize, "bytes": size}
        asked |= {"options": dict(request.options), "data": request.data}
        show.print_json(asked | ({"load": load} if load else {}) | {"model": rows[0], "export": rows[1]})
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
    batch = request.options.get("batch_size", 1)
    taken = "one image" if batch == 1 else f"one image or {batch}"  # a request always has the fixed batch size
    columns = ("", "size", taken, "largest difference", *([] if test is None else ["top-1"]))
    show.print_table(columns, cells, right=columns[1:])
    if rows[1]["latency_ms"] is None:
        print("Not run: onnxruntime is not installed.")
    if load:
        print(f"Load it in Python: {load}")


def _how_to_load(path: Path) -> str:
    """The Python code that loads a .keras file, from the JSON file next to it."""
    from keras_deepnets.export import single_file

    return json.loads(single_file.card_path(path).read_text(encoding="utf-8"))["load"]


def _of_the_card(artifact: artifacts.Artifact, test: ImageData | None, top1: float | None) -> dict[str, Any]:
    """The training data and the test accuracy for a SavedModel's card, where known."""
    accuracy = None if test is None else {"top-1": top1, "images": test.size, "data": Path(test.name).name}
    return {"data": artifact.trained_on(), "accuracy": accuracy}


def _write(
    network: Any, request: Export, labels: list[str] | None, calibration: ImageData | None, card: Mapping[str, Any]
) -> Path:
    from keras_deepnets import export

    if request.form == "savedmodel":
        return export.saved_model(
            network, request.out, labels, request.version, request.fold, **request.options, **card
        )
    if request.form == "onnx":
        return export.onnx(
            network,
            request.out,
            quantize=request.quantize,
            calibration=calibration,
            calibration_images=_most(request),
            labels=labels,
        )
    if request.form == "openvino":
        return export.openvino(
            network,
            request.out,
            quantize=request.quantize,
            calibration=calibration,
            calibration_images=_most(request),
            precision=request.options.get("precision", "float32"),
            batch=request.options.get("batch_size"),
            labels=labels,
        )
    if request.form == "keras":
        return export.inference_model(network, request.out)
    return export.tflite(
        network,
        request.out,
        quantize=request.quantize,
        calibration=calibration,
        labels=labels,
        integer_io=request.integer_io,
        batch=None if request.any_batch else 1,
        calibration_images=_most(request),
    )


def _most(request: Export) -> int:
    """Maximum number of calibration images."""
    from keras_deepnets.export import calibrating

    return request.calibration_images or calibrating.IMAGES


def _compared(
    original: artifacts.Artifact,
    network: Any,
    path: Path,
    request: Export,
    labels: list[str] | None,
    test: ImageData | None,
    top1: float | None,
    say: Any,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure the model and the export: size, milliseconds per image, largest probability difference on a few images, accuracy."""
    from importlib.util import find_spec

    import numpy as np

    from keras_deepnets import export
    from keras_deepnets.export import measuring

    ours = {"name": "Keras model", "bytes": show.size_of(original.path), "difference": None, "top1": top1}
    form = request.form
    theirs = {"name": form, "bytes": show.size_of(path), "difference": None, "top1": None}
    can_run = form != "onnx" or find_spec("onnxruntime") is not None  # openvino runs where it is written
    say("measuring")
    with native_output_held_back():
        ours["latency_ms"] = 1e3 * measuring.latency(original.path)
        theirs["latency_ms"] = 1e3 * measuring.latency(path) if can_run else None
        if can_run:
            images = _few_images(network, request, test)
            found, expected = (export.predict(each, images)["probabilities"] for each in (path, network))
            theirs["difference"] = float(np.abs(found - expected).max())
    if test is not None and can_run:
        say(f"evaluating: {form}")
        theirs["top1"] = use.evaluate_exported(artifacts.find(path), test, labels).top1
    return ours, theirs


def _few_images(network: Any, request: Export, test: ImageData | None) -> Any:
    """Images for comparing the export with the model: test images as PNG files, or noise without test data."""
    import numpy as np

    if test is not None:
        return next(use.encoded_chunks(test))[0][:_COMPARED]
    height, width = request.options.get("image_size", network.input_shape[1:3])
    return np.random.default_rng(0).integers(0, 256, (_COMPARED, height, width, 3), np.uint8)


def check_export(request: Export) -> None:
    """Check the options before anything is loaded."""
    from keras_deepnets.export import onnx_export, openvino_export, savedmodel
    from keras_deepnets.export.litert import CALIBRATED, QUANTIZATIONS

    form, out = request.form, request.out
    if form not in SUFFIXES:
        raise InputError(f"--format {form!r} is not one of {', '.join(SUFFIXES)}.")
    quantizations = {
        "tflite": QUANTIZATIONS,
        "onnx": onnx_export.QUANTIZATIONS,
        "openvino": openvino_export.QUANTIZATIONS,
    }
    if form not in quantizations and (request.quantize or request.calibration):
        raise InputError(
            f"--quantize and --calibration are for --format {', '.join(quantizations)}; leave them out for {form}."
        )
    if form != "tflite" and (request.any_batch or not request.integer_io):
        raise InputError("--any-batch and --float-io are for --format tflite; leave them out for other formats.")
    if form != "savedmodel" and request.version is not None:
        raise InputError(f"--model-version is for --format savedmodel; a {SUFFIXES[form]} file has no version.")
    if form != "savedmodel" and not request.fold:
        raise InputError(
            f"--no-fold is for --format savedmodel; a {SUFFIXES[form]} file is always folded where folding is exact."
        )
    theirs = [name for name in request.options if not (form == "openvino" and name in ("precision", "batch_size"))]
    if form != "savedmodel" and theirs:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in theirs)
        raise InputError(f"{flags}: for --format savedmodel only; leave it out for {form}.")
    if form == "keras" and request.labels is not None:
        raise InputError("--labels: a .keras file keeps the labels of its model; leave it out.")
    if form == "openvino":
        openvino_export.check_precision(request.options.get("precision", "float32"))
    else:
        savedmodel.check_options(**request.options)
    suffix = SUFFIXES[form]
    if suffix and out.suffix != suffix:
        raise InputError(
            f"OUT {str(out)!r} does not end in {suffix}; use a name such as {out.name or 'model'}{suffix}."
        )
    if suffix and out.is_file() and not request.overwrite:
        raise InputError(f"{out} exists; name another file, or give --overwrite.")
    known = quantizations.get(form, ())
    if request.quantize is not None and request.quantize not in known:
        raise InputError(f"--quantize {request.quantize!r} is not one of {', '.join(known)}.")
    if request.quantize in CALIBRATED and not request.calibration:
        raise InputError(
            f"--quantize {request.quantize} needs --calibration DATA: images for measuring the ranges of the activations."
        )
    if request.calibration and request.quantize not in CALIBRATED:
        raise InputError(f"--calibration is for --quantize {' and '.join(CALIBRATED)}.")
    if request.calibration_images is not None and not request.calibration:
        raise InputError("--calibration-images needs --calibration DATA; give both.")
    if not request.integer_io and request.quantize not in CALIBRATED:
        raise InputError(
            f"--float-io is for --quantize {' and '.join(CALIBRATED)}; other files always have float inputs."
        )


def names_in(path: Path) -> list[str]:
    """The class names in a text file with one name per line."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"--labels {path} cannot be read ({error}); give a text file with one name per line."
        ) from error


def height_and_width(text: str | None) -> tuple[int, int] | None:
    """The height and width from ``--image-size``, ``224`` or ``HEIGHTxWIDTH``. None if it is not given."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]*)(?:x([1-9][0-9]*))?", text)
    if found is None:
        raise InputError(f"--image-size {text!r} is neither a side nor HEIGHTxWIDTH in pixels, e.g. 224 or 224x160.")
    return int(found[1]), int(found[2] or found[1])


def counts(text: str | None) -> tuple[int, ...] | None:
    """The batch sizes from ``--batch-sizes``. None if it is not given."""
    if text is None:
        return None
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise InputError(f"--batch-sizes {text!r} must be comma-separated whole numbers, e.g. 1,8,32.") from None


def serving_config(directory: Path, labels: list[str], values: Mapping[str, Any], *, as_json: bool) -> None:
    """Write TF Serving's configuration files next to the versions of a model. Print their paths.

    Args:
        directory: The folder of versions.
        labels: Texts of the form ``name=version``.
        values: The other arguments of `export.serving_config`. None means the default.
        as_json: Whether to print JSON.
    """
    from keras_deepnets import export

    given = {name: value for name, value in values.items() if value is not None}
    versions = dict(_label(text) for text in labels)
    if len(versions) < len(labels):
        raise InputError(f"--label {', '.join(labels)}: each label belongs to one version; name each label once.")
    models, batching, monitoring = export.serving_config(directory, version_labels=versions, **given)
    if as_json:
        show.print_json({"models": str(models), "batching": str(batching), "monitoring": str(monitoring)})
        return
    rows = [
        (str(models), "--model_config_file"),
        (str(batching), "--enable_batching --batching_parameters_file"),
        (str(monitoring), "--monitoring_config_file"),
    ]
    show.print_table(("file", "for tensorflow_model_server"), rows)


def _label(text: str) -> tuple[str, int]:
    found = re.fullmatch(r"([^=]+)=([0-9]+)", text)
    if found is None:
        raise InputError(f"--label {text!r} is not of the form NAME=VERSION, e.g. stable=3.")
    return found[1], int(found[2])
