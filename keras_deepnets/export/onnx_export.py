"""ONNX files: the same classifier for runtimes outside TensorFlow, by Keras' own export."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.export import calibrating, exporters, model_card, single_file
from keras_deepnets.export.classifier import Classifier, classifier_of
from keras_deepnets.export.elsewhere import on_tensorflow

if TYPE_CHECKING:
    import keras
    import numpy as np

EXTRA = "keras-deepnets[onnx]"
TOLERANCE = 1e-4
"""Maximum difference between probabilities of the file and of the Keras model."""

QUANTIZATIONS = ("int8",)
"""Values of `quantize`."""

_WRITERS = ("onnx", "tf2onnx")


@on_tensorflow
@exporters.for_any_model
def onnx(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    quantize: str | None = None,
    calibration: Any = None,
    calibration_images: int = calibrating.IMAGES,
    labels: Sequence[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Path:
    """Write an ``.onnx`` file, and ``<path>.json`` with its input, output, scaling and labels. The metadata of the file hold them too.

    The input is ``images`` float32 ``[batch, height, width, channels]``, RGB with values 0–255; the scaling is part of the file. The
    batch may have any number of images. The output is ``probabilities`` float32 ``[batch, classes]``. If onnxruntime is installed, a
    float32 file is run once and compared with the Keras model before it is moved into place.

    A detector has other inputs, outputs and options: see `keras_deepnets.detection.export.onnx`, which this function calls.

    Args:
        model: An image classifier, as for `saved_model`. Batch normalisation is folded.
        path: The file to write, ``….onnx``. An existing file is replaced.
        quantize: ``"int8"`` for convolutions and matrix products in integers, by onnxruntime. Weights have one scale per channel and 7
            bits, because sums of 8-bit products overflow on x86 processors without VNNI.
        calibration: Representative images for int8, as for `tflite`.
        calibration_images: Maximum number of calibration images to read.
        labels: Names in the order of the outputs. Default: the model's own, else ``"0"``, ``"1"``, ….
        image_size: Only for a detector: the side of the images in pixels, or (height, width).

    Returns:
        The path.

    Raises:
        InputError: The packages of the extra ``onnx`` are missing. The model, the labels or an option are not supported, a layer has no
            ONNX operator, or calibration images are missing. The file cannot be written. No partial files remain.
        RuntimeError: The outputs of a float32 file differ from those of the model.
    """
    path = single_file.check(path, ".onnx")
    exporters.check_no_image_size(image_size)
    calibrating.check(quantize, calibration, QUANTIZATIONS)
    check_installed(needed(quantize))
    classifier = classifier_of(model, labels)
    card = model_card.describe(model, classifier)
    shape = [None, classifier.height, classifier.width, classifier.channels]
    card["input"] |= {"name": "images", "shape": shape, "dtype": "float32"}
    card["output"] = {"name": "probabilities", "shape": [None, classifier.classes], "dtype": "float32"}
    card["quantize"] = quantize
    views = calibrating.views(calibration, classifier, calibration_images) if quantize else []
    content = _convert(classifier)
    if quantize:
        content = _quantised(content, views)
    content = _finished(content, classifier.model.name, card)
    if not quantize and find_spec("onnxruntime") is not None:
        _check(content, classifier)
    single_file.write(path, content, card)
    return path


def needed(quantize: str | None) -> tuple[str, ...]:
    """The packages that write a file."""
    return (*_WRITERS, "onnxruntime") if quantize else _WRITERS


def check_installed(packages: Sequence[str] = _WRITERS) -> None:
    """Raise an InputError that names the extra if one of its packages is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX needs {' and '.join(missing)}, not installed here: pip install '{EXTRA}'.")


def open_session(content: str | bytes, threads: int = 0) -> Any:
    """An onnxruntime session from a file's path or content. `threads` 0: the runtime decides. InputError if it is not installed."""
    check_installed(["onnxruntime"])
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _whole(classifier: Classifier) -> keras.Model:
    """The whole classifier, from pixels to probabilities, as one Keras model."""
    import keras

    from keras_deepnets.layers import scale_input

    images = keras.Input((classifier.height, classifier.width, classifier.channels), name="images")
    x = images if classifier.scaling is None else scale_input(images, classifier.scaling)
    x = classifier.model(x, training=False)
    return keras.Model(images, keras.layers.Softmax()(x) if classifier.gives_logits else x, name=classifier.model.name)


def _convert(classifier: Classifier) -> bytes:
    from keras_deepnets.layers import inlined_blocks
    from keras_deepnets.layers.fast.convolution import exporting

    whole = _whole(classifier)
    whole._called = True  # Keras requires a call, which its export does not use.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        with inlined_blocks(), exporting(), quiet(), conversion_errors(whole.name):
            whole.export(str(file), format="onnx", verbose=False)
        return file.read_bytes()


def _quantised(content: bytes, views: Sequence[np.ndarray]) -> bytes:
    """The file in int8, with activation ranges from views float32 ``[1, height, width, channels]``."""
    from onnxruntime import quantization

    class Views(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self._rest = iter(views)

        def get_next(self) -> dict[str, np.ndarray] | None:
            view = next(self._rest, None)
            return None if view is None else {"images": view}

    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))  # advice on preparing the file, which the conversion has done
    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
            source.write_bytes(content)
            quantization.quantize_static(
                source,
                target,
                Views(),
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                reduce_range=True,
            )
            return target.read_bytes()
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the converter, whose step-by-step output does not help users."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


@contextlib.contextmanager
def conversion_errors(name: str) -> Iterator[None]:
    """Turn the converter's report of missing ONNX operators into a one-line InputError."""
    try:
        yield
    except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise _not_converted(name, error) from error


def _not_converted(name: str, error: Exception) -> InputError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(f"{name} cannot be converted to ONNX ({lines[0]}); replace the named layers.")


def _finished(content: bytes, name: str, card: dict[str, Any]) -> bytes:
    """The file with names that do not depend on the converter, and with the main facts of the card as metadata."""
    import onnx as library

    file = library.load_from_string(content)
    (source,), (target,) = file.graph.input, file.graph.output
    batch, old = "batch", target.name
    for tensor in (source, target):
        tensor.type.tensor_type.shape.dim[0].dim_param = batch
    for node in file.graph.node:
        node.output[:] = ["probabilities" if each == old else each for each in node.output]
        node.input[:] = ["probabilities" if each == old else each for each in node.input]
    target.name = "probabilities"
    for key in ("labels", "input", "output", "scaling"):
        file.metadata_props.add(key=key, value=json.dumps(card[key], ensure_ascii=False))
    try:
        library.checker.check_model(file)  # The converter keeps operators that ONNX lacks.
    except library.checker.ValidationError as error:
        raise _not_converted(name, error) from error
    return file.SerializeToString()


def _check(content: bytes, classifier: Classifier) -> None:
    """Raise RuntimeError if the outputs of onnxruntime and Keras differ."""
    import numpy as np

    shape = (2, classifier.height, classifier.width, classifier.channels)
    images = np.random.default_rng(0).integers(0, 256, shape).astype("float32")
    found = run(open_session(content), images)
    difference = float(np.abs(found - np.asarray(classifier.probabilities(images))).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the ONNX file of {classifier.model.name} differs from the model by {difference:.2g}")


def run(session: Any, images: np.ndarray) -> np.ndarray:
    """Run images ``[n, height, width, channels]`` with values 0–255, and return probabilities float32 ``[n, classes]``."""
    return session.run(["probabilities"], {"images": images.astype("float32")})[0]


def runner(path: Path) -> Callable[[Any], tuple[np.ndarray, list[str]]]:
    """A function that runs a file of `onnx` on encoded images (a list of bytes) or pixels uint8 ``[n, h, w, 3]``.

    The function returns probabilities and labels.

    Raises:
        InputError: onnxruntime is missing, or `onnx` did not write the file or its JSON.
    """
    check_installed(["onnxruntime"])
    content, card = single_file.read(path, "onnx")
    session = open_session(content)

    def classify(batch: Any) -> tuple[np.ndarray, list[str]]:
        values = run(session, single_file.views(batch, card))
        return values, [card["labels"][index] for index in values.argmax(axis=-1)]

    return classify
