"""Measure the latency of an artifact for one image, and its distance from the Keras model."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_WARM_UP = 3


def invocation(path: str | os.PathLike[str], threads: int | None = None, batch: int = 1) -> Callable[[], Any]:
    """A function that runs an artifact on grey images of its input size, from pixels in memory to probabilities in memory.

    Args:
        path: The folder of a SavedModel itself, or a ``.tflite``, ``.onnx``, ``.xml`` or ``.keras`` file.
        threads: Threads for a ``.tflite``, ``.onnx`` or ``.xml`` file. Default: as many as the machine has. TensorFlow's are set elsewhere.
        batch: Images per call, unless the artifact takes a fixed number.

    Raises:
        InputError: The artifact does not exist, or its runtime is not installed.
    """
    path = Path(path)
    threads = threads or os.cpu_count() or 1
    if path.suffix == ".tflite":
        return _tflite(path, threads, batch)
    if path.suffix == ".onnx":
        return _onnx(path, threads, batch)
    if path.suffix == ".xml":
        return _openvino(path, threads, batch)
    return _keras(path, batch) if path.suffix == ".keras" else _saved_model(path, batch)


def paired_latency(calls: list[Callable[[], Any]], rounds: int = 20, seconds: float = 1.0) -> list[list[float]]:
    """Seconds of each call in each round. The calls alternate, so that other load on the machine affects all of them alike.

    Of several calls, each runs twice per round, and the second run counts. The threads of some engines stay busy for a while after a
    call, and slow down the next engine's first.

    Args:
        calls: Results of `invocation`.
        rounds: Maximum number of rounds.
        seconds: No new round starts after this time, but at least five rounds run. The warm-up is not included.
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
            if len(calls) > 1:
                call()
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return times


def latency(path: str | os.PathLike[str]) -> float:
    """Median seconds that an artifact takes for one image. If it only takes requests of a fixed size, the time is for one request."""
    return statistics.median(paired_latency([invocation(path)])[0])


def _tflite(path: Path, threads: int, batch: int) -> Callable[[], Any]:
    import numpy as np

    from keras_deepnets.export.litert import open_interpreter

    interpreter = open_interpreter(model_path=str(path), num_threads=threads)
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    if source["shape_signature"][0] == -1:
        interpreter.resize_tensor_input(source["index"], [batch, *source["shape"][1:]])
        interpreter.allocate_tensors()
        source = interpreter.get_input_details()[0]
    images = np.full(source["shape"], 100, source["dtype"])

    def call() -> Any:
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return call


def _openvino(path: Path, threads: int, batch: int) -> Callable[[], Any]:
    import numpy as np

    from keras_deepnets.export import openvino_export

    run, card = openvino_export.opened(path, threads)
    images = np.full([size or batch for size in card["input"]["shape"]], 100, "uint8")
    return lambda: run(images)


def _onnx(path: Path, threads: int, batch: int) -> Callable[[], Any]:
    import numpy as np

    from keras_deepnets.export import onnx_export

    session = onnx_export.open_session(str(path), threads)
    images = np.full((batch, *session.get_inputs()[0].shape[1:]), 100, "float32")
    return lambda: onnx_export.run(session, images)


def _keras(path: Path, batch: int) -> Callable[[], Any]:
    import keras
    import tensorflow as tf

    import keras_deepnets.models  # noqa: F401 - registers this library's layers
    from keras_deepnets.export.classifier import classifier_of

    classifier = classifier_of(keras.saving.load_model(path, compile=False), fold=False)
    images = tf.fill([batch, classifier.height, classifier.width, classifier.channels], tf.constant(100, tf.uint8))
    compiled = tf.function(classifier.probabilities, autograph=False)
    return lambda: compiled(images).numpy()


def _saved_model(path: Path, batch: int) -> Callable[[], Any]:
    import json

    import tensorflow as tf

    from keras_deepnets.export.savedmodel import CARD_FILE

    view = json.loads((path / CARD_FILE).read_text(encoding="utf-8"))["input"]
    loaded = tf.saved_model.load(str(path))
    serve = loaded.signatures["serving_images"]
    # If the signature takes requests of a fixed size, one image costs a whole request.
    fixed, height, width, _ = serve.structured_input_signature[1]["images"].shape
    shape = [fixed or batch, height or view["height"], width or view["width"], 3]
    images = tf.fill(shape, tf.constant(100, tf.uint8))

    def call(loaded: Any = loaded) -> Any:  # `serve` does not keep the loaded object alive
        return serve(images=images)["probabilities"].numpy()

    return call
