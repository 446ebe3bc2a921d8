"""Run an exported detector with one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.detection import detecting
from keras_deepnets.detection.export import onnx_file, tflite_file
from keras_deepnets.errors import InputError
from keras_deepnets.export import prediction, single_file

if TYPE_CHECKING:
    from keras_deepnets.detection.detector import Detector

Found = dict[str, np.ndarray]


def predict(
    path: str | os.PathLike[str] | Detector, images: Any, batch_size: int = 1, *, on_error: str = "fail"
) -> list[Found | None]:
    """Find objects in images with an exported detector.

    Args:
        path: A SavedModel of `saved_model`, a ``.tflite`` file of `tflite`, an ``.onnx`` file of `onnx`, a ``.keras`` file or a
            `Detector`. A SavedModel is one version, or a folder of versions, of which the newest runs.
        images: Paths of image files, their bytes, or uint8 arrays ``[h, w, 3]`` (RGB), of any sizes. A single one is a list of one. An
            array ``[n, h, w, 3]`` is a list of n.
        batch_size: Images per call of a SavedModel. TFLite and ONNX files take one.
        on_error: ``"fail"`` or ``"skip"``. With ``"skip"``, the result of a file that cannot be read or decoded is None.

    Returns:
        One dictionary per image, as from `keras_deepnets.detection.detect`: ``boxes`` float32 ``[n, 4]``, ``scores`` float32 ``[n]`` and
        ``labels`` int64 ``[n]``, best first. The boxes are x1, y1, x2, y2 in pixels of the given image.

    Raises:
        InputError: `path` is not such an artifact, or an image cannot be read. The message names it.
    """
    if on_error not in ("fail", "skip"):
        raise InputError(f"on_error={on_error!r} is neither 'fail' nor 'skip'.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"predict: batch_size={batch_size!r} must be a whole number of at least 1.")
    alone = isinstance(images, (str, os.PathLike, bytes)) or getattr(images, "ndim", 0) == 3
    given: Any = [images] if alone else images
    images = list(given)
    run = _open(path)
    found: list[Found | None] = []
    for start in range(0, len(images), batch_size):
        names = range(start, start + batch_size)
        found += _part(run, images[start : start + batch_size], names, on_error == "skip")
    return found


# An opened artifact: a function from files (bytes) and pixels (uint8 [h, w, 3]) to detections. It raises InvalidArgumentError for a
# broken file, or its result is None.
_Runner = Callable[[Sequence[Any]], list["Found | None"]]


def _part(run: _Runner, images: Sequence[Any], numbers: range, skip: bool) -> list[Found | None]:
    """The results of a batch. Broken images are None, or an InputError."""
    import tensorflow as tf

    given: dict[int, Any] = {}
    errors: dict[int, InputError] = {}
    for place, image in enumerate(images):
        try:
            given[place] = _given(image, f"image {numbers[place]}")
        except InputError as error:
            errors[place] = error
    found: list[Found | None] = [None] * len(images)
    try:
        results = run(list(given.values())) if given else []
    except tf.errors.InvalidArgumentError:
        if len(images) > 1:  # find out which one
            return [
                each
                for place, image in enumerate(images)
                for each in _part(run, [image], range(numbers[place], numbers[place] + 1), skip)
            ]
        results = [None]
    for place, result in zip(given, results, strict=True):
        found[place] = result
        if result is None:
            errors[place] = _unreadable(_name(images[place], f"image {numbers[place]}"))
    if errors and not skip:
        raise errors[min(errors)]
    return found


def _name(image: Any, otherwise: str) -> str:
    return os.fspath(image) if isinstance(image, (str, os.PathLike)) else otherwise


def _unreadable(name: str) -> InputError:
    return InputError(
        f"{name} is not an image file that can be decoded, or it has too many pixels; leave it out or repair it."
    )


def _given(image: Any, name: str) -> Any:
    """An image as a file that every artifact decodes, or its pixels."""
    if isinstance(image, (str, os.PathLike)):
        try:
            image = Path(image).read_bytes()
        except OSError as error:
            raise InputError(f"{os.fspath(image)}: cannot be read ({error.strerror}).") from error
    if isinstance(image, bytes):
        try:
            return single_file.known(image)
        except ValueError as error:
            raise _unreadable(name) from error
    return detecting.as_pixels(image)


def _open(path: Any) -> _Runner:
    import keras

    if isinstance(path, keras.Model):
        return _keras_runner(path)
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give a SavedModel folder, a .tflite, .onnx or .keras file.")
    if path.suffix == ".keras":
        return _keras_runner(prediction.load_keras(path))
    if path.is_dir():
        return _saved_model_runner(prediction.version_in(path))
    runners = {".tflite": tflite_file.runner, ".onnx": onnx_file.runner}
    if path.suffix not in runners:
        raise InputError(
            f"{path} is not an exported detector; give a SavedModel folder, a .tflite, .onnx or .keras file."
        )
    run = runners[path.suffix](path)
    return lambda given: [run(_pixels(each)) for each in given]


def _keras_runner(model: Any) -> _Runner:
    return lambda given: list(detecting.detect(model, [_pixels(each) for each in given], len(given)))


def _pixels(given: Any) -> np.ndarray:
    return np.asarray(single_file.decode(given)) if isinstance(given, bytes) else given


def _file(given: Any) -> bytes:
    """An image as a file. PNG keeps its pixels."""
    import tensorflow as tf

    return given if isinstance(given, bytes) else tf.io.encode_png(given, compression=1).numpy()


def _saved_model_runner(path: Path) -> _Runner:
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise InputError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    signature = loaded.signatures.get("serving_default")
    if signature is None or not {"boxes", "scores", "classes", "count"} <= set(signature.structured_outputs):
        raise InputError(f"{path} is not a detector; export it with detection.export.saved_model.")

    def run(given: Sequence[Any]) -> list[Found | None]:
        files = tf.constant([_file(each) for each in given])
        outputs = {name: value.numpy() for name, value in signature(image_bytes=files).items()}
        found: list[Found | None] = []
        for place, count in enumerate(outputs["count"]):
            found.append(
                None
                if count < 0
                else {
                    "boxes": outputs["boxes"][place, :count],
                    "scores": outputs["scores"][place, :count],
                    "labels": outputs["classes"][place, :count],
                }
            )
        return found

    return run
