"""OpenVINO files: the same classifier for Intel's and AMD's processors, straight from TensorFlow's graph."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import tempfile
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

EXTRA = "keras-deepnets[openvino]"
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
"""Values of `precision`, and OpenVINO's names for them."""
QUANTIZATIONS = ("int8",)
"""Values of `quantize`."""
TOLERANCE = 1e-4
"""Maximum difference between probabilities of a float32 file and of the Keras model."""


@on_tensorflow
@exporters.for_any_model
def openvino(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    quantize: str | None = None,
    calibration: Any = None,
    calibration_images: int = calibrating.IMAGES,
    precision: str = "float32",
    batch: int | None = None,
    labels: Sequence[str] | None = None,
) -> Path:
    """Write OpenVINO's ``.xml`` with its ``.bin``, and ``<path>.json`` with input, output, scaling and labels.

    The input is ``images`` uint8 ``[batch, height, width, channels]``, RGB with values 0–255; the scaling is part of the file. The
    output is ``probabilities`` float32 ``[batch, classes]``. A float32 file is run once and compared with the Keras model before it is
    moved into place.

    Args:
        model: An image classifier, as for `saved_model`. Batch normalisation is folded.
        path: The file to write, ``….xml``. Existing files are replaced. If the process is killed between the replacement of the
            ``.bin`` and of the ``.xml``, `predict` refuses the pair.
        quantize: ``"int8"`` for convolutions and matrix products in integers, by NNCF.
        calibration: Representative images for int8, as for `tflite`.
        calibration_images: Maximum number of calibration images to read.
        precision: Type in which the other operations compute: ``"float32"``, or ``"bfloat16"`` on processors that can. Weights are
            stored as float32.
        batch: Images per call. Default: any number. OpenVINO prepares each number of images on its first call.
        labels: Names in the order of the outputs. Default: the model's own, else ``"0"``, ``"1"``, ….

    Returns:
        The path.

    Raises:
        InputError: A package of the extra ``openvino`` is missing. The model, the labels or an option are not supported, or
            calibration images are missing. The files cannot be written. No partial files remain.
        RuntimeError: The outputs of a float32 file differ from those of the model.
    """
    path = single_file.check(path, ".xml")
    _check_options(quantize, calibration, precision, batch)
    check_installed(("openvino", "nncf") if quantize else ("openvino",))
    classifier = classifier_of(model, labels)
    card = model_card.describe(model, classifier)
    shape = [batch, classifier.height, classifier.width, classifier.channels]
    card["input"] |= {"name": "images", "shape": shape, "dtype": "uint8"}
    card["output"] = {"name": "probabilities", "shape": [batch, classifier.classes], "dtype": "float32"}
    card |= {"precision": precision, "quantize": quantize}
    views = calibrating.views(calibration, classifier, calibration_images) if quantize else []
    with _quiet():
        network = _convert(classifier)
        if quantize:
            network = _quantised(network, views)
        network.reshape({0: [-1 if size is None else size for size in shape]})
        network.set_rt_info(PRECISIONS[precision], ["runtime_options", "INFERENCE_PRECISION_HINT"])
        if not quantize and precision == "float32":
            _check(network, classifier, batch)
        content, weights = _serialised(network)
    card["weights"] = {"file": path.with_suffix(".bin").name, "sha256": hashlib.sha256(weights).hexdigest()}
    single_file.write(path, content, card, {".bin": weights})
    return path


def check_installed(packages: Sequence[str] = ("openvino",)) -> None:
    """Raise an InputError that names the extra if one of its packages is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise InputError(f"OpenVINO needs {' and '.join(missing)}, not installed here: pip install '{EXTRA}'.")


def check_precision(precision: str) -> None:
    """Raise an InputError if OpenVINO files have no such precision."""
    if precision not in PRECISIONS:
        raise InputError(f"precision={precision!r} is not {' or '.join(map(repr, PRECISIONS))}.")


def _check_options(quantize: str | None, calibration: Any, precision: str, batch: int | None) -> None:
    calibrating.check(quantize, calibration, QUANTIZATIONS)
    check_precision(precision)
    if batch is not None and (not isinstance(batch, int) or isinstance(batch, bool) or batch < 1):
        raise InputError(f"batch={batch!r} must be a whole number of at least 1, or None for any.")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars and advice of NNCF."""
    logger = logging.getLogger("nncf")
    level = logger.level
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            logger.setLevel(level)


def _convert(classifier: Classifier) -> Any:
    """The whole classifier, from pixels to probabilities, as OpenVINO's model."""
    import openvino as library
    import tensorflow as tf

    from keras_deepnets.export import weight_precision
    from keras_deepnets.layers import inlined_blocks

    weights = weight_precision.Weights(classifier.model, "float32")
    shape = [None, classifier.height, classifier.width, classifier.channels]

    def outputs(images: tf.Tensor) -> dict[str, tf.Tensor]:
        with weights.in_graph():
            found = classifier.model(classifier.scaled(images), training=False)
            return {"probabilities": classifier.as_probabilities(found)}

    signature = [tf.TensorSpec(shape, tf.uint8, name="images")]
    with inlined_blocks():
        graph = tf.function(outputs, input_signature=signature, autograph=False).get_concrete_function()
    try:
        network = library.convert_model(graph)
    except Exception as error:  # its own types, which are not public
        raise InputError(f"{classifier.model.name} cannot be converted to OpenVINO ({_first_line(error)}).") from error
    network.inputs[0].set_names({"images"})
    network.outputs[0].set_names({"probabilities"})
    return network


def _quantised(network: Any, views: Sequence[np.ndarray]) -> Any:
    """The network in int8, with activation ranges from views float32 ``[1, height, width, channels]``."""
    import nncf

    images = nncf.Dataset([view.astype("uint8") for view in views])
    # Asymmetric activations: the inputs of sums and of pre-activation units are negative too.
    return nncf.quantize(network, images, preset=nncf.QuantizationPreset.MIXED, subset_size=len(views))


def _serialised(network: Any) -> tuple[bytes, bytes]:
    """The contents of the ``.xml`` and ``.bin``."""
    import openvino as library

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.xml"
        library.save_model(network, file, compress_to_fp16=False)
        return file.read_bytes(), file.with_suffix(".bin").read_bytes()


def _check(network: Any, classifier: Classifier, batch: int | None) -> None:
    """Raise RuntimeError if the outputs of OpenVINO and Keras differ."""
    import numpy as np

    shape = (batch or 2, classifier.height, classifier.width, classifier.channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = compiled(network, "float32")(images)
    difference = float(np.abs(found - np.asarray(classifier.probabilities(images.astype("float32")))).max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"the OpenVINO file of {classifier.model.name} differs from the model by {difference:.2g}")


def compiled(network: Any, precision: str, threads: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    """Compile OpenVINO's model, or the file at a path, for this processor.

    Args:
        network: The model or the path.
        precision: As for `openvino`.
        threads: Number of threads. 0: OpenVINO decides.

    Returns:
        A function from images uint8 ``[n, height, width, channels]`` to probabilities float32 ``[n, classes]``.
    """
    import openvino as library

    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],  # without it, OpenVINO takes bfloat16 where it is faster
        "PERFORMANCE_HINT": "LATENCY",
    }
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    program = library.Core().compile_model(network, "CPU", options)
    return lambda images: program({0: images})[0]


def opened(path: Path, threads: int = 0) -> tuple[Callable[[np.ndarray], np.ndarray], single_file.Card]:
    """A compiled file of `openvino`, as of `compiled`, and its JSON.

    Raises:
        InputError: OpenVINO is missing, or `openvino` did not write the files.
    """
    check_installed()
    content, card = single_file.read(path, "openvino")
    try:
        weights = path.with_suffix(".bin").read_bytes()
        precision, expected = card["precision"], card["weights"]["sha256"]
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read ({error.strerror}); export.openvino writes it next to the .xml; keep them together."
        ) from error
    except (KeyError, TypeError) as error:
        raise single_file.not_ours(path, "openvino", f"it lacks {error}") from error
    if hashlib.sha256(weights).hexdigest() != expected:
        raise single_file.not_ours(path, "openvino", "the .bin is damaged, or belongs to another .xml")
    import openvino as library

    try:
        return compiled(library.Core().read_model(content, weights), precision, threads), card
    except RuntimeError as error:
        raise single_file.not_ours(path, "openvino", str(error)) from error


def runner(path: Path) -> Callable[[Any], tuple[np.ndarray, list[str]]]:
    """A function that runs a file of `openvino` on encoded images (a list of bytes) or pixels uint8 ``[n, h, w, 3]``.

    The function returns probabilities and labels.

    Raises:
        InputError: OpenVINO is missing, or `openvino` did not write the files.
    """
    import numpy as np

    run, card = opened(path)
    size = card["input"]["shape"][0]

    def classify(batch: Any) -> tuple[np.ndarray, list[str]]:
        views = single_file.views(batch, card)
        values = np.concatenate([_padded(run, part, size) for part in _parts(views, size or len(views))])
        return values, [card["labels"][index] for index in values.argmax(axis=-1)]

    return classify


def _parts(views: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (views[start : start + size] for start in range(0, len(views), size))


def _padded(run: Callable[[np.ndarray], np.ndarray], views: np.ndarray, size: int | None) -> np.ndarray:
    """Run a batch, filled up to `size` with copies of its last image."""
    import numpy as np

    missing = 0 if size is None else size - len(views)
    return np.array(run(np.pad(views, [(0, missing), (0, 0), (0, 0), (0, 0)], "edge"))[: len(views)])


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
