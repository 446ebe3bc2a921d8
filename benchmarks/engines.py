"""Accuracy, size, latency and throughput of a network in every engine: TensorFlow, OpenVINO, onnxruntime and TFLite.

    python -m benchmarks.engines runs/a runs/b --data FOLDER

Each run folder (or ``.keras`` file) becomes one artifact per engine and precision, calibrated on training images where it computes in
integers. All artifacts run on the same test images through `export.predict`. Their latency is measured in alternation, for each batch
size. The table shows the family, the artifact, the accuracy, its difference from the first artifact in percentage points, and the size.
It also shows the median and the 99th percentile of a call, images per second, and the speed relative to the first artifact.

    python -m benchmarks.engines --speed resnet50 --batch 1,16

measures only size and speed, for named networks with untrained weights that are calibrated on synthetic images.

An artifact is a format, and optionally a precision: ``savedmodel:bfloat16``. Formats whose packages are missing are left out of the
default. TFLite files run batches of one image only, as on devices; the first of the others is then the reference of the speed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.cli import artifacts, show
from keras_deepnets.cli.problems import status_of
from keras_deepnets.cli.quiet import load_tensorflow, native_output_held_back
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import keras
    import numpy as np

    from keras_deepnets.data import ImageData

FLOAT = "float32"
FORMS = {
    "savedmodel": (FLOAT, "bfloat16"),
    "openvino": (FLOAT, "bfloat16", "int8"),
    "onnx": (FLOAT, "int8"),
    "tflite": (FLOAT, "float16", "dynamic", "int8", "int16x8"),
}
"""The formats, and the precisions of each."""
_NEEDS = {"openvino": ("openvino", "nncf"), "onnx": ("onnx", "tf2onnx", "onnxruntime")}
_INTEGERS = ("int8", "int16x8")
_CHUNK = 256
_PROGRAM = "python -m benchmarks.engines"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return status_of(lambda: _run(argv))


def measure(
    model: keras.Model,
    name: str,
    files: Sequence[str],
    calibration: Any,
    test: ImageData | None,
    *,
    batches: Sequence[int] = (1,),
    threads: int | None = None,
    rounds: int = 20,
    seconds: float = 10.0,
) -> list[dict[str, Any]]:
    """Return one row for each artifact of a network and each batch size.

    Args:
        model: An image classifier.
        name: Name of the network in the rows.
        files: Artifacts, as ``"savedmodel"`` or ``"openvino:int8"``. The others are compared with the first.
        calibration: Calibration data, as in `export.tflite`.
        test: Data for measuring the accuracy. None to skip the measurement.
        batches: Numbers of images per call.
        threads: Threads of OpenVINO, onnxruntime and TFLite. Default: all of the machine.
        rounds: Maximum number of latency rounds.
        seconds: Approximate seconds of latency measurement for each batch size, without warm-up.

    Returns:
        Rows with these keys: ``name``, ``family``, ``file``, ``batch``, ``accuracy``, ``points``, ``bytes``, ``milliseconds``,
        ``milliseconds_99``, ``images_per_second`` and ``speedup``. ``accuracy`` and ``points`` are None without `test`.
        ``milliseconds`` is the median of a call, and ``milliseconds_99`` the 99th percentile. ``speedup`` is the median ratio of the
        time of the first artifact with this batch size to this one's in the same round.

    Raises:
        InputError: The model cannot be exported, or its classes differ from those of `test`.
    """
    import numpy as np

    from keras_deepnets.export import measuring
    from keras_deepnets.models import labels_of

    labels = labels_of(model)
    if test is not None and labels is not None and list(labels) != list(test.labels):
        raise InputError(
            f"{name} has {len(labels)} classes ({labels[0]!r} …) and the data has {len(test.labels)} "
            f"({test.labels[0]!r} …); measure it on data with the same classes."
        )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [_write(model, file, Path(folder), calibration) for file in files]
        right = [None if test is None else _accuracy(path, test) for path in paths]
        for batch in batches:
            run = [at for at, path in enumerate(paths) if batch == 1 or path.suffix != ".tflite"]
            calls = [measuring.invocation(paths[at], threads, batch) for at in run]
            times = measuring.paired_latency(calls, rounds, seconds)
            for at, taken in zip(run, times, strict=True):
                accuracy = right[at]
                median = statistics.median(taken)
                rows.append(
                    {
                        "name": name,
                        "family": (getattr(model, "architecture", None) or {}).get("family", "–"),
                        "file": files[at],
                        "batch": batch,
                        "accuracy": accuracy,
                        "points": None if accuracy is None else 100 * (accuracy - right[0]),
                        "bytes": show.size_of(paths[at]),
                        "milliseconds": 1e3 * median,
                        "milliseconds_99": 1e3 * float(np.percentile(taken, 99)),
                        "images_per_second": batch / median,
                        "speedup": statistics.median(a / b for a, b in zip(times[0], taken, strict=True)),
                    }
                )
    return rows


def _write(model: keras.Model, file: str, folder: Path, calibration: Any) -> Path:
    """Export one artifact."""
    from keras_deepnets import export

    form, _, precision = file.partition(":")
    quantize = None if precision in ("", FLOAT, "bfloat16") else precision
    options = {"quantize": quantize, "calibration": calibration if quantize in _INTEGERS else None}
    stem = folder / file.replace(":", "-")
    if form == "savedmodel":
        return export.saved_model(model, stem, precision=precision or FLOAT)
    if form == "openvino":
        floating = precision if precision == "bfloat16" else FLOAT
        return export.openvino(model, stem.with_suffix(".xml"), precision=floating, **options)
    if form == "onnx":
        return export.onnx(model, stem.with_suffix(".onnx"), **options)
    return export.tflite(model, stem.with_suffix(".tflite"), **options)


def default_files() -> list[str]:
    """All artifacts whose packages are installed."""
    from importlib.util import find_spec

    forms = [form for form in FORMS if all(find_spec(package) for package in _NEEDS.get(form, ()))]
    return [form if precision == FLOAT else f"{form}:{precision}" for form in forms for precision in FORMS[form]]


def checked_files(text: str) -> list[str]:
    """The artifacts in a comma-separated list. Raises InputError if one is unknown or its packages are missing."""
    from keras_deepnets.export import onnx_export, openvino_export

    check: dict[str, Callable[[Sequence[str]], None]] = {
        "openvino": openvino_export.check_installed,
        "onnx": onnx_export.check_installed,
    }
    files = [word for word in text.split(",") if word]
    for file in files:
        form, _, precision = file.partition(":")
        if form not in FORMS or (precision or FLOAT) not in FORMS[form]:
            known = ", ".join(f"{name} ({', '.join(precisions)})" for name, precisions in FORMS.items())
            raise InputError(f"--files {file!r} is not FORMAT or FORMAT:PRECISION of {known}.")
        if form in check:
            check[form](_NEEDS[form])
    if not files:
        raise InputError("--files names no artifact; give for example savedmodel,openvino:int8.")
    return files


def _accuracy(path: Path, test: ImageData) -> float:
    """The share of test images that a file classifies correctly."""
    import tensorflow as tf

    from keras_deepnets import export

    encoded = test.examples().map(lambda image, label: (tf.io.encode_png(image), label))
    right = 0
    for files, truth in encoded.batch(_CHUNK).as_numpy_iterator():
        right += int((export.predict(path, list(files))["classes"] == truth).sum())
    return right / test.size


def _run(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="RUN", help="run folders or .keras files; names with --speed")
    parser.add_argument("--data", help="training data of the runs: a folder, shards, a TFDS name, digits")
    parser.add_argument(
        "--speed", action="store_true", help="measure only size and speed, of named networks with untrained weights"
    )
    parser.add_argument("--files", help="comma-separated artifacts, compared with the first (default: all)")
    parser.add_argument("--batch", default="1", help="comma-separated batch sizes (default: 1)")
    parser.add_argument("--limit", type=int, help="maximum number of test images")
    parser.add_argument("--threads", type=int, help="threads of the engines but TensorFlow (default: all)")
    parser.add_argument("--rounds", type=int, default=200, help="maximum number of latency rounds")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="approximate seconds of latency measurement per network and batch"
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON instead of the table")
    asked = parser.parse_args(argv)
    batches = [int(word) if word.isdecimal() else 0 for word in asked.batch.split(",")]
    if min(batches) < 1:
        raise InputError(f"--batch {asked.batch!r} is not a list of whole numbers of at least 1, such as 1,16.")
    for name, value in (("--limit", asked.limit), ("--threads", asked.threads), ("--rounds", asked.rounds)):
        if value is not None and value < 1:
            raise InputError(f"{name} {value} must be at least 1.")
    if asked.speed == bool(asked.data):
        raise InputError("give --data FOLDER for trained networks, or --speed for named ones.")
    files = default_files() if asked.files is None else checked_files(asked.files)
    if max(batches) > 1 and all(file.startswith("tflite") for file in files):
        raise InputError(
            f"--batch {asked.batch!r}: TFLite files run one image at a time; give --batch 1, or other --files."
        )
    sources = (
        [_named(name) for name in asked.models] if asked.speed else [_trained(Path(name)) for name in asked.models]
    )
    load_tensorflow()
    rows: list[dict[str, Any]] = []
    for name, source in zip(asked.models, sources, strict=True):
        if not asked.as_json:
            print(f"{name} …", file=sys.stderr)
        model, calibration, test = _material(source, asked.data, asked.limit)
        with native_output_held_back():
            rows += measure(
                model,
                name,
                files,
                calibration,
                test,
                batches=batches,
                threads=asked.threads,
                rounds=asked.rounds,
                seconds=asked.seconds,
            )
    _print(rows, asked.threads or os.cpu_count() or 1, as_json=asked.as_json)
    return 0


def _named(name: str) -> str:
    from keras_deepnets import registry

    registry.constructor_of(name)
    return name


def _trained(path: Path) -> artifacts.Artifact:
    artifact = artifacts.find(path)
    if artifact.kind != artifacts.KERAS:
        artifact.model()  # raises an error that names what to give instead
    return artifact


def _material(
    source: str | artifacts.Artifact, data: str | None, limit: int | None
) -> tuple[keras.Model, Any, ImageData | None]:
    """Return the network, its calibration data and its test data."""
    if isinstance(source, str):
        import keras

        from keras_deepnets import registry
        from keras_deepnets.benchmark.keras_side import settle

        keras.utils.set_random_seed(0)
        model = registry.create_model(source)
        settle(model)
        return model, _made_up(model.input_shape[1:]), None
    from keras_deepnets.cli.images import images_of

    test = images_of(data, "test", source.seed())
    if limit is not None and limit < test.size:
        test = test.take(limit)
    return source.model(), images_of(data, "train", source.seed()), test


def _made_up(shape: tuple[int, int, int]) -> np.ndarray:
    """A few synthetic images that are neither noise nor flat."""
    import numpy as np
    import tensorflow as tf

    coarse = np.random.default_rng(0).uniform(0, 255, (10, 6, 6, shape[-1]))
    return tf.cast(tf.image.resize(coarse, shape[:2]), tf.uint8).numpy()


def _print(rows: list[dict[str, Any]], threads: int, *, as_json: bool) -> None:
    if as_json:
        show.print_json({"threads": threads, "rows": rows})
        return
    measured = any(row["accuracy"] is not None for row in rows)
    accuracies = ("accuracy", "points") if measured else ()
    columns = ("network", "family", "file", *accuracies, "size", "batch", "median", "99 %", "images/s", "speed")
    cells = [
        (
            row["name"],
            row["family"],
            row["file"],
            *((show.percent(row["accuracy"]), f"{row['points']:+.2f}") if measured else ()),
            show.bytes_text(row["bytes"]),
            str(row["batch"]),
            f"{row['milliseconds']:.2f} ms",
            f"{row['milliseconds_99']:.2f} ms",
            f"{row['images_per_second']:.3g}",
            f"{row['speedup']:.2f}",
        )
        for row in rows
    ]
    show.print_table(columns, cells, right=columns[3:])
    print(f"{threads} threads. Median and 99th percentile of the rounds, in which all files of a network alternate.")


if __name__ == "__main__":
    sys.exit(main())
