"""Run any artifact with one call: a SavedModel, a TFLite, ONNX or OpenVINO file, or a saved Keras model."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.export import exporters, litert, onnx_export, openvino_export, signatures, single_file, writing
from keras_deepnets.export.classifier import classifier_of

if TYPE_CHECKING:
    import keras
    import numpy as np

BATCH_SIZE = 64

_KINDS = "a SavedModel folder, a .tflite, .onnx, .xml or .keras file"

# An opened artifact: a function from encoded images (list of bytes) or pixels (uint8 [n, h, w, 3]) to (probabilities, labels).
_Runner = Callable[[Any], tuple[Any, list[str]]]


def predict(
    path: str | os.PathLike[str] | keras.Model,
    images: np.ndarray | Sequence[str | os.PathLike[str] | bytes],
    *,
    on_error: str = "fail",
) -> dict[str, Any]:
    """Classify images with an exported model.

    Args:
        path: A SavedModel, a ``.tflite``, ``.onnx`` or (OpenVINO) ``.xml`` file of this package, a ``.keras`` file, or a Keras model.
            TFLite, ONNX and OpenVINO files need their JSON. A SavedModel is one version, or a
            folder of versions, of which the newest runs.
        images: Pixels uint8 ``[n, h, w, 3]`` (or grey ``[n, h, w, 1]``) with values 0–255 and of any size. Or a list of image files as
            paths or bytes, in any format that `keras_deepnets.data.load` reads. Files are turned upright by their EXIF orientation.
        on_error: ``"fail"`` or ``"skip"``. With ``"skip"``, a file that cannot be read or decoded gets probabilities of NaN, class -1
            and an empty label. The other files are classified.

    Returns:
        ``"probabilities"`` float32 ``[n, classes]``, ``"classes"`` int64 ``[n]``, and ``"labels"``, the names of the classes ``[n]``.
        ``on_error="skip"`` adds ``"errors"``, a list of length n with a message for each broken file, or None. If no image can be
        read, there are zero classes.

    Raises:
        InputError: `path` is not such an artifact, or an image cannot be read. The message names it.
    """
    import numpy as np

    if on_error not in ("fail", "skip"):
        raise InputError(f"on_error={on_error!r} is neither 'fail' nor 'skip'.")
    skip = on_error == "skip"
    checked, names = _checked_images(images, skip)
    run = _open(path, features=False)
    parts = []
    for start in range(0, len(checked), BATCH_SIZE):
        batch = checked[start : start + BATCH_SIZE]
        some_names = names[start : start + BATCH_SIZE]
        parts.append(_run_files(run, batch, some_names, skip) if isinstance(batch, list) else _run_pixels(run, batch))
    errors = [error for part in parts for error in part[2]]
    classes = next((part[0].shape[1] for part in parts if len(part[0])), 0)
    probabilities = np.full((len(errors), classes), np.nan, "float32")
    good = [index for index, error in enumerate(errors) if error is None]
    labels, indices = np.full(len(errors), "", object), np.full(len(errors), -1, "int64")
    if good:
        probabilities[good] = np.concatenate([part[0] for part in parts if len(part[0])])
        labels[good] = [label for part in parts for label in part[1]]
        indices[good] = probabilities[good].argmax(axis=-1)
    found = {"probabilities": probabilities, "classes": indices, "labels": labels.astype(str)}
    return found | {"errors": errors} if skip else found


@dataclass(frozen=True)
class Opened:
    """An artifact that stays open for many batches of image files.

    Attributes:
        labels: The names of the classes. None if the artifact does not say them.
        features: Whether it gives features instead of probabilities.
    """

    labels: tuple[str, ...] | None
    features: bool
    _run: _Runner

    def __call__(self, images: Sequence[bytes], names: Sequence[str]) -> tuple[np.ndarray, list[str | None]]:
        """Run one batch, as `predict` does with ``on_error="skip"``.

        Args:
            images: Contents of the files.
            names: Their names, for the messages.

        Returns:
            Probabilities float32 ``[good, classes]`` or features float32 ``[good, length]`` of the images that can be decoded. And for
            each image a message, or None.
        """
        values, _, errors = _run_files(self._run, list(images), list(names), skip=True)
        return values, errors


def opened(path: str | os.PathLike[str], features: bool = False) -> Opened:
    """Open an artifact for many batches.

    Args:
        path: As in `predict`, but not a model in memory.
        features: Whether to compute the input of the last dense layer instead of the probabilities.

    Raises:
        InputError: `path` is not such an artifact, or it has no features.
    """
    from keras_deepnets.models import labels_of

    path = Path(path)
    if path.suffix == ".keras" and path.is_file():
        model = load_keras(path)
        labels = labels_of(model)
        return Opened(labels and tuple(labels), features, _open(model, features))
    run = _open(path, features)
    return Opened(_stored_labels(path), features, run)


def _stored_labels(path: Path) -> tuple[str, ...] | None:
    """The class names in the files of an exported model, or None."""
    try:
        if path.is_dir():
            return tuple((version_in(path) / "assets" / "labels.txt").read_text(encoding="utf-8").splitlines())
        return tuple(json.loads(single_file.card_path(path).read_text(encoding="utf-8"))["labels"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _checked_images(images: Any, skip: bool) -> tuple[Any, list[str]]:
    """The images as an array or as a list of files and bytes, and a name for each image in error messages."""
    import numpy as np

    if isinstance(images, (str, os.PathLike, bytes)):
        images = [images]
    if isinstance(images, (list, tuple)) and all(isinstance(image, (str, os.PathLike, bytes)) for image in images):
        names = [
            f"image {number}" if isinstance(image, bytes) else os.fspath(image) for number, image in enumerate(images)
        ]
        if not images:
            raise InputError("no images were given; give at least one.")
        for image in [] if skip else images:
            _bytes_of(image, 0)  # fail before the other images are classified
        return list(images), names
    try:
        images = np.asarray(images)
    except ValueError:  # a list of arrays
        raise InputError(
            "images differ in size; give uint8 [n, h, w, 3] of one size, or a list of files or their bytes."
        ) from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise InputError(
            f"images are {images.dtype} {list(images.shape)}; give uint8 [n, h, w, 3] with values 0–255, or a list of files or their bytes."
        )
    if 0 in images.shape:
        raise InputError(f"images have shape {list(images.shape)}; give at least one image with pixels.")
    if images.shape[-1] == 1:
        images = np.repeat(images, 3, axis=-1)
    return images, [f"image {number}" for number in range(len(images))]


def _bytes_of(image: str | os.PathLike[str] | bytes, count: int = -1) -> bytes:
    """The first `count` bytes of an image file, by default all."""
    if isinstance(image, bytes):
        return image
    try:
        with Path(image).open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise InputError(f"{os.fspath(image)}: cannot be read ({error.strerror}).") from error


# Results of a batch: probabilities and labels of the good images, and for each image an error message or None.
_Part = tuple[Any, list[str], list["str | None"]]


def _run_pixels(run: _Runner, batch: np.ndarray) -> _Part:
    values, labels = run(batch)
    return values, labels, [None] * len(values)


def _run_files(run: _Runner, batch: list[Any], names: list[str], skip: bool) -> _Part:
    """Run a batch of files. If TensorFlow only reports that some image cannot be decoded, find out which one.

    Raises:
        InputError: A file cannot be read, and ``skip`` is False.
    """
    import numpy as np
    import tensorflow as tf

    errors: list[str | None] = [None] * len(batch)
    encoded: dict[int, bytes] = {}
    for index, image in enumerate(batch):
        try:
            encoded[index] = single_file.known(_bytes_of(image))
        except (InputError, ValueError) as error:
            errors[index] = str(error if isinstance(error, InputError) else _unreadable(names[index]))
    values = np.zeros((0, 0), "float32")
    labels: list[str] = []
    while encoded:
        try:
            values, labels = run([*encoded.values()])
            break
        except tf.errors.InvalidArgumentError:
            broken = _broken(run, encoded, first_only=not skip)
            if not broken:
                raise
            for index in broken:
                errors[index] = str(_unreadable(names[index]))
                del encoded[index]
            _raise_first(errors, skip)
    bad = [not label and bool(np.isnan(row).all()) for row, label in zip(values, labels, strict=True)]
    for index, is_bad in zip(encoded, bad, strict=True):  # the artifact skips broken images
        if is_bad:
            errors[index] = str(_unreadable(names[index]))
    _raise_first(errors, skip)
    return (
        values[~np.array(bad, bool)],
        [label for label, is_bad in zip(labels, bad, strict=True) if not is_bad],
        errors,
    )


def _raise_first(errors: Sequence[str | None], skip: bool) -> None:
    for error in errors:
        if error is not None and not skip:
            raise InputError(error)


def _broken(run: _Runner, encoded: dict[int, bytes], first_only: bool) -> list[int]:
    """The images that cannot be decoded. If there are none, the images that the artifact alone refuses."""
    import tensorflow as tf

    for attempt in (single_file.decode, lambda image: run([image])):  # the second is slower
        found = []
        for index, image in encoded.items():
            try:
                attempt(image)
            except tf.errors.InvalidArgumentError:
                found.append(index)
                if first_only:
                    break
        if found:
            return found
    return []


def _unreadable(name: str) -> InputError:
    return InputError(
        f"{name} is not an image file that can be decoded, or it has too many pixels; leave it out or repair it."
    )


def _open(path: Any, features: bool) -> _Runner:
    import keras

    if isinstance(path, keras.Model):
        exporters.check_classifies(path)
        return _keras_runner(path, features)
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path} does not exist; give {_KINDS}.")
    if path.is_dir():
        return _saved_model_runner(version_in(path), features)
    if features and path.suffix in _RUNNERS:
        raise InputError(
            f"{path} gives no features; give the .keras file it was made of, or a SavedModel exported with features=True."
        )
    if path.suffix in _RUNNERS:
        return _RUNNERS[path.suffix](path)
    if path.suffix == ".keras":
        loaded = load_keras(path)
        exporters.check_classifies(loaded)
        return _keras_runner(loaded, features)
    raise InputError(f"{path} is not an artifact; give {_KINDS}.")


def version_in(path: Path) -> Path:
    """The SavedModel itself, or the newest version in a folder of versions."""
    if _is_saved_model(path):
        return path
    version = writing.newest_version(path, _is_saved_model)
    if not _is_saved_model(path / str(version)):
        raise InputError(
            f"{path} holds no saved_model.pb and no numbered version with one; give a folder that export.saved_model wrote."
        )
    return path / str(version)


def _is_saved_model(path: Path) -> bool:
    return (path / "saved_model.pb").is_file()


def _saved_model_runner(path: Path, features: bool) -> _Runner:
    import numpy as np
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise InputError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    if not {"serving_default", "serving_images"} <= set(loaded.signatures):
        raise InputError(
            f"{path} lacks the signatures serving_default and serving_images; export it with export.saved_model."
        )

    given = loaded.signatures["serving_default"].structured_outputs
    if "boxes" in given:
        raise exporters.finds_objects(path)
    if features and "features" not in given:
        raise InputError(f"{path} gives no features; export it again with features=True, or give the .keras file.")
    wanted = "features" if features else "probabilities"

    def run(batch: Any) -> tuple[Any, list[str]]:
        name, argument = ("serving_default", "image_bytes") if isinstance(batch, list) else ("serving_images", "images")
        taken = loaded.signatures[name].structured_input_signature[1][argument].shape
        if not isinstance(batch, list) and not taken[1:].is_compatible_with(batch.shape[1:]):
            raise InputError(
                f"{path} takes images of {taken[1]} × {taken[2]} pixels, not {batch.shape[1]} × {batch.shape[2]}; "
                "resize the images, or give files."
            )
        values, labels = [], []
        size = taken[0] or len(batch)
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            missing = size - len(part)  # nonzero only if the signature takes batches of a fixed size
            if missing:
                part = part + part[-1:] * missing if isinstance(part, list) else np.pad(part, _at_end(missing), "edge")
            outputs = loaded.signatures[name](**{argument: tf.constant(part)})
            values.append(outputs[wanted].numpy()[: size - missing])
            labels += [label.decode() for label in outputs["labels"].numpy()[: size - missing]]
        return np.concatenate(values), labels

    return run


def _at_end(count: int) -> list[tuple[int, int]]:
    """The padding for `numpy.pad` that appends `count` images."""
    return [(0, count), (0, 0), (0, 0), (0, 0)]


def _tflite_runner(path: Path) -> _Runner:
    import numpy as np

    content, card = single_file.read(path, "tflite")
    try:
        interpreter = litert.open_interpreter(model_content=content, num_threads=os.cpu_count())
        source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    except (ValueError, RuntimeError) as error:
        raise single_file.not_ours(path, "tflite", str(error)) from error
    size = int(source["shape"][0])  # 1 if the file takes any number

    def together(views: np.ndarray) -> np.ndarray:
        missing = size - len(views)
        interpreter.set_tensor(source["index"], np.pad(_quantized(views, source), _at_end(missing), "edge"))
        interpreter.invoke()
        return _dequantized(interpreter.get_tensor(target["index"]), target)[: size - missing]

    def run(batch: Any) -> tuple[Any, list[str]]:
        parts = (batch[start : start + size] for start in range(0, len(batch), size))
        values = np.concatenate([together(single_file.views(part, card)) for part in parts])
        return values, [card["labels"][index] for index in values.argmax(axis=-1)]

    return run


_RUNNERS: dict[str, Callable[[Path], _Runner]] = {
    ".tflite": _tflite_runner,
    ".onnx": onnx_export.runner,
    ".xml": openvino_export.runner,
}


def _quantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    import numpy as np

    scale, zero_point = details["quantization"]
    if not scale:
        return values.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(values / scale + zero_point), limits.min, limits.max).astype(details["dtype"])


def _dequantized(values: np.ndarray, details: dict[str, Any]) -> np.ndarray:
    scale, zero_point = details["quantization"]
    return (values.astype("float32") - zero_point) * scale if scale else values


def _keras_runner(model: keras.Model, features: bool) -> _Runner:
    import tensorflow as tf

    classifier = classifier_of(model, fold=False)
    shape = [None, classifier.height, classifier.width, classifier.channels]
    network = signatures.with_features(classifier.model) if features else classifier.model

    def outputs(views: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = network(classifier.scaled(views), training=False)
        classes, values = found if features else (found, None)
        probabilities = classifier.as_probabilities(classes)
        return probabilities, probabilities if values is None else tf.cast(values, tf.float32)

    compiled = tf.function(outputs, input_signature=[tf.TensorSpec(shape, tf.uint8)], autograph=False)

    def run(batch: Any) -> tuple[Any, list[str]]:
        if isinstance(batch, list):
            views = tf.concat([classifier.view(single_file.decode(encoded)[tf.newaxis]) for encoded in batch], axis=0)
        else:
            views = classifier.view(tf.constant(batch))
        probabilities, values = compiled(views)
        return values.numpy(), [classifier.labels[index] for index in probabilities.numpy().argmax(axis=-1)]

    return run


def load_keras(path: Path) -> keras.Model:
    """The model of a ``.keras`` file, not compiled. Raise InputError if it cannot be loaded."""
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras can raise any exception, e.g. for a truncated zip or a wrong config
        raise InputError(f"{path} cannot be loaded as a Keras model: {str(error).splitlines()[0]}") from error
