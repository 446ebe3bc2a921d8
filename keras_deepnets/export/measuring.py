"""What an artifact costs and how exact it is: latency of one image, distance from the Keras model."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WARM_UP = 3


def invocation(path: str | os.PathLike[str], threads: int | None = None) -> Callable[[], Any]:
    """A call that runs an artifact on one grey image of its own size, from pixels in memory to probabilities in memory.

    Args:
        path: a SavedModel's own folder, a ``.tflite``, ``.onnx`` or ``.keras`` file.
        threads: of a ``.tflite`` or ``.onnx`` file; by default as many as the machine has. TensorFlow's are set elsewhere.

    Raises:
        InputError: no such artifact, or what runs it is not installed.
    """
    path = Path(path)
    threads = threads or os.cpu_count() or 1
    if path.suffix == ".tflite":
        return _tflite(path, threads)
    if path.suffix == ".onnx":
        return _onnx(path, threads)
    return _keras(path) if path.suffix == ".keras" else _saved_model(path)


def paired_latency(calls: list[Callable[[], Any]], rounds: int = 20, seconds: float = 1.0) -> list[list[float]]:
    """Seconds of each call in each round, in which all take turns: what else the machine does meets all alike.

    Args:
        calls: of `invocation`.
        rounds: at most so many.
        seconds: no new round begins after that; five rounds count in any case. Warm-up apart.
    """
    for call in calls:
        for _ in range(_WARM_UP):
            call()
    times: list[list[float]] = [[] for _ in calls]
    begin = time.perf_counter()
    for number in range(rounds):
        if number >= 5 and time.perf_counter() - begin > seconds:
            break
        for call, taken in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return times


def latency(path: str | os.PathLike[str]) -> float:
    """Median seconds that an artifact takes for one image; for a whole request where it takes those of one size only."""
    return statistics.median(paired_latency([invocation(path)])[0])


def _tflite(path: Path, threads: int) -> Callable[[], Any]:
    import numpy as np

    from keras_deepnets.export.litert import open_interpreter

    interpreter = open_interpreter(model_path=str(path), num_threads=threads)
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    images = np.full(source["shape"], 100, source["dtype"])

    def call() -> Any:
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return call


def _onnx(path: Path, threads: int) -> Callable[[], Any]:
    import numpy as np

    from keras_deepnets.export import onnx_export

    session = onnx_export.open_session(str(path), threads)
    images = np.full((1, *session.get_inputs()[0].shape[1:]), 100, "float32")
    return lambda: onnx_export.run(session, images)


def _keras(path: Path) -> Callable[[], Any]:
    import keras
    import tensorflow as tf

    import keras_deepnets.models  # noqa: F401 - registers our layers
    from keras_deepnets.export.classifier import classifier_of

    classifier = classifier_of(keras.saving.load_model(path, compile=False), fold=False)
    images = tf.fill([1, classifier.height, classifier.width, classifier.channels], tf.constant(100, tf.uint8))
    compiled = tf.function(classifier.probabilities, autograph=False)
    return lambda: compiled(images).numpy()


def _saved_model(path: Path) -> Callable[[], Any]:
    import json

    import tensorflow as tf

    from keras_deepnets.export.savedmodel import CARD_FILE

    view = json.loads((path / CARD_FILE).read_text(encoding="utf-8"))["input"]
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_images"]
    # Where the signature takes requests of one size only, one image costs a whole one.
    batch, height, width, _ = serve.structured_input_signature[1]["images"].shape
    shape = [batch or 1, height or view["height"], width or view["width"], 3]
    images = tf.fill(shape, tf.constant(100, tf.uint8))
    # The function does not keep what it was loaded from alive.
    return lambda loaded=loaded: serve(images=images)["probabilities"].numpy()
