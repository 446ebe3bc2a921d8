"""Accuracy, size and latency of quantised networks: trained networks as TFLite files, on unseen images.

    python -m benchmarks.quantisation runs/a runs/b --data FOLDER

Each run folder (or ``.keras`` file) becomes a float32 file and one file per quantisation, calibrated on training images. All files run
on the same test images through `export.predict`. Their latency for one image is measured in alternation. The table shows the family, the
accuracy, its difference from float32 in percentage points, and the size. It also shows milliseconds per image and the relative speed.

    python -m benchmarks.quantisation --speed resnet50

measures only size and latency, for named networks with untrained weights that are calibrated on synthetic images.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
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
_CHUNK = 256
_PROGRAM = "python -m benchmarks.quantisation"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return status_of(lambda: _run(argv))


def measure(
    model: keras.Model,
    name: str,
    quantizations: Sequence[str],
    calibration: Any,
    test: ImageData | None,
    *,
    threads: int | None = None,
    rounds: int = 20,
    seconds: float = 10.0,
) -> list[dict[str, Any]]:
    """Return one row for float32 and one for each quantisation of a network.

    Args:
        model: An image classifier.
        name: Name of the network in the rows.
        quantizations: Quantisations, as in `export.tflite`.
        calibration: Calibration data, as in `export.tflite`.
        test: Data for measuring the accuracy. None to skip the measurement.
        threads: Threads of the runtime. Default: all of the machine.
        rounds: Maximum number of latency rounds.
        seconds: Approximate seconds of latency measurement, without warm-up.

    Returns:
        Rows with these keys: ``name``, ``family``, ``quantize``, ``accuracy``, ``points``, ``bytes``, ``milliseconds``, ``fastest`` and
        ``speedup``. ``accuracy`` and ``points`` are None without `test`. ``milliseconds`` is the median, and ``fastest`` the minimum in
        ms. ``speedup`` is the median ratio of float32's time to this file's time in the same round.

    Raises:
        InputError: The model cannot be exported, or its classes differ from those of `test`.
    """
    from keras_deepnets import export
    from keras_deepnets.export import measuring
    from keras_deepnets.models import labels_of

    labels = labels_of(model)
    if test is not None and labels is not None and list(labels) != list(test.labels):
        raise InputError(
            f"{name} has {len(labels)} classes ({labels[0]!r} …) and the data has {len(test.labels)} "
            f"({test.labels[0]!r} …); measure it on data with the same classes."
        )
    kinds = [FLOAT, *quantizations]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{kind}.tflite" for kind in kinds]
        for kind, path in zip(kinds, paths, strict=True):
            quantize = None if kind == FLOAT else kind
            export.tflite(model, path, quantize, calibration if quantize in _calibrated() else None)
        calls = [measuring.invocation(path, threads) for path in paths]
        times = measuring.paired_latency(calls, rounds, seconds)
        right = [None if test is None else _accuracy(path, test) for path in paths]
        for kind, path, taken, accuracy in zip(kinds, paths, times, right, strict=True):
            rows.append(
                {
                    "name": name,
                    "family": (getattr(model, "architecture", None) or {}).get("family", "–"),
                    "quantize": kind,
                    "accuracy": accuracy,
                    "points": None if accuracy is None else 100 * (accuracy - right[0]),
                    "bytes": path.stat().st_size,
                    "milliseconds": 1e3 * statistics.median(taken),
                    "fastest": 1e3 * min(taken),
                    "speedup": statistics.median(a / b for a, b in zip(times[0], taken, strict=True)),
                }
            )
    return rows


def _calibrated() -> tuple[str, ...]:
    from keras_deepnets.export.litert import CALIBRATED

    return CALIBRATED


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
    from keras_deepnets.export.litert import QUANTIZATIONS

    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="RUN", help="run folders or .keras files; names with --speed")
    parser.add_argument("--data", help="training data of the runs: a folder, shards, a TFDS name, digits")
    parser.add_argument(
        "--speed", action="store_true", help="measure only size and latency, of named networks with untrained weights"
    )
    parser.add_argument(
        "--quantize", default=",".join(QUANTIZATIONS), help="comma-separated quantisations (default: all)"
    )
    parser.add_argument("--limit", type=int, help="maximum number of test images")
    parser.add_argument("--threads", type=int, help="threads of the runtime (default: all of the machine)")
    parser.add_argument("--rounds", type=int, default=20, help="maximum number of latency rounds")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="approximate seconds of latency measurement per network"
    )
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON instead of the table")
    asked = parser.parse_args(argv)
    quantizations = [word for word in asked.quantize.split(",") if word]
    for word in quantizations:
        if word not in QUANTIZATIONS:
            raise InputError(f"--quantize {word!r} is not one of {', '.join(QUANTIZATIONS)}.")
    for name, value in (("--limit", asked.limit), ("--threads", asked.threads), ("--rounds", asked.rounds)):
        if value is not None and value < 1:
            raise InputError(f"{name} {value} must be at least 1.")
    if asked.speed == bool(asked.data):
        raise InputError("give --data FOLDER for trained networks, or --speed for named ones.")
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
                quantizations,
                calibration,
                test,
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

        keras.utils.set_random_seed(0)
        model = registry.create_model(source)
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
    columns = (
        "network",
        "family",
        "file",
        *(("accuracy", "points") if measured else ()),
        "size",
        "one image",
        "fastest",
    )
    columns = (*columns, "× float32")
    cells = []
    for row in rows:
        accuracy = (show.percent(row["accuracy"]), f"{row['points']:+.2f}") if measured else ()
        cells.append(
            (
                row["name"],
                row["family"],
                row["quantize"],
                *accuracy,
                show.bytes_text(row["bytes"]),
                f"{row['milliseconds']:.2f} ms",
                f"{row['fastest']:.2f} ms",
                f"{row['speedup']:.2f}",
            )
        )
    show.print_table(columns, cells, right=columns[3:])
    print(f"One image per call, {threads} threads. Median of rounds, in which all files of a network alternate.")


if __name__ == "__main__":
    sys.exit(main())
