"""Time and size of exporting networks, and the difference of the exports' outputs from the Keras model's.

    python -m benchmarks.exports resnet20 resnet50 resnet1202

Each network is built with its preprocessing, and gets weights with which its probabilities differ. It is written as a SavedModel, as a
float32 TFLite file and as a TFLite file with float16 weights. The table shows the seconds of writing (without building the network) and
of loading, and the bytes. It also shows the largest difference of a probability from the Keras model's over a few images.

In an untrained network of hundreds of layers, float16 rounding errors grow from layer to layer. Trained networks do not have this
problem.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.cli import show
from keras_deepnets.cli.problems import status_of
from keras_deepnets.cli.quiet import load_tensorflow, native_output_held_back
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import keras
    import numpy as np

_PROGRAM = "python -m benchmarks.exports"
_IMAGES = 2
_MANY = 300
"""Number of residual blocks from which untrained branches at full strength overflow or dominate the output."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return status_of(lambda: _run(argv))


def measure(name: str, size: int | None = None) -> dict[str, Any]:
    """Export one network and run the exports.

    Args:
        name: Name of the network in the registry.
        size: Image side in pixels. Default: the network's own size.

    Returns:
        ``name``, ``size``, ``depth`` and ``build_seconds``. Also, for each of ``saved_model``, ``tflite`` and ``tflite_float16``:
        ``{…}_seconds``, ``{…}_load_seconds``, ``{…}_bytes`` and ``{…}_difference``, the largest difference of a probability.
    """
    import keras

    from keras_deepnets import export, facts, registry
    from keras_deepnets.export.classifier import classifier_of

    info = facts.model_info(name)
    side = size or info.input_shape[0]
    keras.utils.set_random_seed(0)
    model, build_seconds = _timed(
        lambda: registry.create_model(name, input_shape=(side, side, info.input_shape[-1]), include_preprocessing=True)
    )
    images = _made_up(side)
    classifier = classifier_of(model, fold=False)
    views = classifier.view(images).numpy().astype("float32")
    _tell_apart(model, views)
    expected = classifier.probabilities(views).numpy()
    row = {"name": name, "size": side, "depth": info.depth, "build_seconds": build_seconds}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.tflite"
        for kind, write, load in (
            ("saved_model", lambda: export.saved_model(model, Path(folder) / "served"), _saved_model),
            ("tflite", lambda: export.tflite(model, file), _tflite),
            ("tflite_float16", lambda: export.tflite(model, file, "float16"), _tflite),
        ):
            path, seconds = _timed(write)
            run, load_seconds = _timed(lambda load=load, path=path: load(path))
            found = run(images if kind == "saved_model" else views)
            files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
            row |= {
                f"{kind}_seconds": seconds,
                f"{kind}_load_seconds": load_seconds,
                f"{kind}_bytes": sum(each.stat().st_size for each in files),
                f"{kind}_difference": float(abs(found - expected).max()),
            }
    return row


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def _made_up(side: int) -> np.ndarray:
    """Synthetic RGB images that are neither noise nor flat."""
    import numpy as np
    import tensorflow as tf

    coarse = np.random.default_rng(0).uniform(0, 255, (_IMAGES, 5, 5, 3))
    return tf.cast(tf.image.resize(coarse, (side, side)), tf.uint8).numpy()


def _tell_apart(model: keras.Model, views: np.ndarray) -> None:
    """Give the network weights with which its probabilities are neither equal nor saturated."""
    import keras
    import numpy as np

    from keras_deepnets.benchmark.keras_side import settle
    from keras_deepnets.layers import Block

    settle(model)
    blocks = [layer for layer in model.layers if isinstance(layer, Block) and layer.input.shape == layer.output.shape]
    if len(blocks) > _MANY:
        for weight in itertools.chain.from_iterable(block.weights for block in blocks):
            if weight.name in ("gamma", "beta", "moving_mean"):
                weight.assign(0.1 * weight)
    top = model.layers[-1]
    features = np.asarray(keras.Model(model.input, model.layers[-2].output)(views, training=False))
    kernel = np.random.default_rng(0).normal(size=top.kernel.shape)
    top.kernel.assign(kernel / np.sqrt(((features @ kernel) ** 2).mean()))


def _saved_model(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_images"]
    # Keep a reference: the function alone does not keep the loaded model alive.
    return lambda images, _keep=loaded: serve(images=tf.constant(images))["probabilities"].numpy()


def _tflite(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    import numpy as np

    from keras_deepnets.export.litert import open_interpreter

    interpreter = open_interpreter(model_path=str(path))
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]

    def run(views: np.ndarray) -> np.ndarray:
        found = []
        for view in views:
            interpreter.set_tensor(source["index"], view[np.newaxis])
            interpreter.invoke()
            found.append(interpreter.get_tensor(target["index"])[0])
        return np.stack(found)

    return run


def _run(argv: Sequence[str] | None) -> int:
    from keras_deepnets import registry

    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="NETWORK", help="names from `keras-deepnets list`")
    parser.add_argument("--size", type=int, metavar="PIXELS", help="image side (default: the network's own size)")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print JSON instead of the table")
    asked = parser.parse_args(argv)
    if asked.size is not None and asked.size < 1:
        raise InputError(f"--size {asked.size} must be at least 1.")
    for name in asked.models:
        registry.constructor_of(name)
    load_tensorflow()
    rows = []
    for name in asked.models:
        if not asked.as_json:
            print(f"{name} …", file=sys.stderr, flush=True)
        with native_output_held_back():
            rows.append(measure(name, asked.size))
    if asked.as_json:
        show.print_json({"rows": rows})
    else:
        _print(rows)
    return 0


def _print(rows: list[dict[str, Any]]) -> None:
    columns = ("network", "image", "file", "written", "size", "loaded", "difference")
    cells = [
        (
            row["name"],
            f"{row['size']}²",
            kind.replace("_", " "),
            f"{row[f'{kind}_seconds']:.1f} s",
            show.bytes_text(row[f"{kind}_bytes"]),
            f"{row[f'{kind}_load_seconds']:.2f} s",
            f"{row[f'{kind}_difference']:.1e}",
        )
        for row in rows
        for kind in ("saved_model", "tflite", "tflite_float16")
    ]
    show.print_table(columns, cells, right=columns[3:])


if __name__ == "__main__":
    sys.exit(main())
