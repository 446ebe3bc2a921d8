"""TFLite files for devices: one image in, probabilities out, nothing but built-in operators."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.export import _card, _files, _precision
from keras_deepnets.export._classifier import Classifier, classifier_of

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_deepnets.data import ImageData

QUANTIZATIONS = ("float16", "dynamic", "int8", "int16x8")
CALIBRATED = ("int8", "int16x8")
"""The quantisations of activations, whose ranges must be known."""
CALIBRATION_IMAGES = 200
"""At most so many images calibrate: ranges hardly move after that, and each costs a float32 forward pass."""

MOST_CONSTANTS = 100_000_000
"""Bytes of weights that are traced as constants. The converter takes thirty times their memory then, and eight times as variables, which it
saves and loads: that takes time for each variable, so that it is the networks of small layers, however many, that gain."""


def tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    quantize: str | None = None,
    calibration: np.ndarray | tf.data.Dataset | ImageData | str | os.PathLike[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
    integer_io: bool = True,
    batch: int | None = 1,
) -> Path:
    """Writes a ``.tflite`` file and ``<path>.json`` with its input, output, scaling, labels and quantisation.

    The input is ``images`` ``[batch, height, width, channels]``, RGB with values 0–255 (the scaling is inside); the output
    ``probabilities`` ``[batch, classes]``. Both are float32, or integers where the activations are and `integer_io` is left on: uint8
    with ``"int8"`` (pixels go in as they are: scale 1, or next to it), int16 with ``"int16x8"``. The JSON says the scale and the zero
    point; a probability is ``scale · (value - zero_point)``. The file holds nothing but built-in operators; weights of convolutions
    are quantised a channel at a time.

    Args:
        model: an image classifier as `saved_model` takes it. Batch normalisation is folded.
        path: the file to write, ``….tflite``; what is there is replaced.
        quantize: None (float32), ``"float16"`` (weights; half the size), ``"dynamic"`` (weights int8; a quarter), ``"int8"`` (all
            arithmetic in integers; a quarter and the fastest) or ``"int16x8"`` (activations int16, weights int8; a quarter, nearer to
            float32, and slow: runtimes have only their reference kernels for it).
        calibration: for ``"int8"`` and ``"int16x8"``: typical images with values 0–255, from which the ranges of the activations are
            read: an array uint8 ``[n, h, w, c]``, a `tf.data.Dataset` of images or of (images, labels), batched or not, an
            `ImageData`, or what `keras_deepnets.data.load` takes (a folder of class folders, ``"digits"``, …: its training images).
            200 images serve well and are the most that are read; more are thinned evenly where their number is known.
        labels: names in the order of the outputs; by default the model's own, else ``"0"``, ``"1"``, …
        integer_io: whether input and output are integers where the activations are; False: float32.
        batch: images at once; None: any number, for which the program that runs the file calls ``resize_tensor_input``.

    Returns:
        The path.

    Raises:
        InputError: the model or the labels do not fit, a layer has no built-in operator, unknown `quantize`, a `batch` below 1,
            calibration is missing or no images, or the file cannot be written. Nothing is left behind.
    """
    path = check_file(path, ".tflite")
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise InputError(f"quantize={quantize!r} is not one of None, {', '.join(map(repr, QUANTIZATIONS))}.")
    if quantize in CALIBRATED and calibration is None:
        raise InputError(
            f"quantize={quantize!r} needs calibration: give about 200 typical images with values 0–255 "
            "(uint8 array [n, h, w, c], tf.data of images, an ImageData, or a folder)."
        )
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or batch < 1):
        raise InputError(f"batch={batch!r} is not a whole number from 1, or None for any number of images.")
    classifier = classifier_of(model, labels, for_device=True)
    views = list(_calibration_views(calibration, classifier)) if quantize in CALIBRATED else []
    content = _convert(classifier, quantize, views, integer_io, batch)
    card = _card.describe(model, classifier)
    facts = _tensor_facts(content)
    card["input"] |= facts["input"]
    card |= {"output": facts["output"], "quantize": quantize, "calibration_images": len(views)}
    write_with_card(path, content, card)
    return path


def check_file(path: str | os.PathLike[str], ending: str) -> Path:
    """The path as one that a file can be written to; InputError where it ends otherwise or is a folder."""
    path = Path(path)
    if path.suffix != ending:
        raise InputError(f"path {str(path)!r} does not end in {ending}; name the file so.")
    if path.is_dir():
        raise InputError(f"path {str(path)!r} is a folder; name a file.")
    return path


def write_with_card(path: Path, content: bytes, card: dict[str, Any]) -> None:
    """Writes an artifact of one file and its JSON, to which the file's hash is added: both or neither."""
    beside = card_path(path)
    with _files.folder_aside(path.parent) as aside, _files.write_errors(path):
        (aside / path.name).write_bytes(content)
        _files.write_json(aside / beside.name, card | {"sha256": sha256(content)})
        (aside / beside.name).replace(beside)
        (aside / path.name).replace(path)


def card_path(path: Path) -> Path:
    """Where the JSON of an artifact of one file lies."""
    return path.with_name(path.name + ".json")


def sha256(content: bytes) -> str:
    """The hash by which a file and its JSON know each other: TensorFlow's interpreter crashes on a torn file."""
    return hashlib.sha256(content).hexdigest()


def open_interpreter(**kwargs: Any) -> Any:
    """An interpreter with its tensors allocated: ai-edge-litert's if installed, else the one inside TensorFlow."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import warnings

        import tensorflow as tf

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its deprecation points to the package that is not installed
            interpreter = tf.lite.Interpreter(**kwargs)
    else:
        interpreter = Interpreter(**kwargs)
    interpreter.allocate_tensors()
    return interpreter


def _convert(
    classifier: Classifier, quantize: str | None, views: list[np.ndarray], integer_io: bool, batch: int | None
) -> bytes:
    import tensorflow as tf

    from keras_deepnets.layers import inlined_blocks

    shape = [batch, classifier.height, classifier.width, classifier.channels]
    weights = _precision.Weights(classifier.model, "float32", MOST_CONSTANTS)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="images")], autograph=False)
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        with weights.in_graph():
            return {"probabilities": classifier.probabilities(images)}

    module = tf.Module()
    with inlined_blocks():  # the converter has no functions
        function = serve.get_concrete_function()
    module.weights = list(function.graph.variables)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    # Nothing else: a missing operator is an error here and not a crash on the device.
    operators = tf.lite.OpsSet
    converter.target_spec.supported_ops = [operators.TFLITE_BUILTINS]
    if quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantize in CALIBRATED:
        wide = quantize == "int16x8"
        converter.target_spec.supported_ops = [
            operators.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            if wide
            else operators.TFLITE_BUILTINS_INT8
        ]
        if integer_io:
            converter.inference_input_type = converter.inference_output_type = tf.int16 if wide else tf.uint8
        converter.representative_dataset = lambda: ([view] for view in views)
    with _conversion_errors(classifier.model.name):
        return converter.convert()


@contextlib.contextmanager
def _conversion_errors(name: str) -> Iterator[None]:
    """Turns what the converter says of operators that TFLite lacks into a one-line InputError."""
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        yield
    except ConverterError as error:
        missing = sorted(set(re.findall(r"'(tf\.\w+)' op", str(error))))
        what = ", ".join(missing) if missing else str(error).strip().splitlines()[0]
        raise InputError(
            f"{name} cannot be converted with TFLite's built-in operators ({what}); replace the layers that use others."
        ) from error


def _tensor_facts(content: bytes) -> dict[str, dict[str, Any]]:
    """Name, shape, dtype and quantisation of a TFLite file's input and output, as the file itself says."""
    interpreter = open_interpreter(model_content=content)
    signature = interpreter.get_signature_list()["serving_default"]
    ends = {"input": interpreter.get_input_details(), "output": interpreter.get_output_details()}
    return {end: _facts_of(details[0], signature[f"{end}s"][0]) for end, details in ends.items()}


def _facts_of(details: dict[str, Any], name: str) -> dict[str, Any]:
    import numpy as np

    scale, zero_point = details["quantization"]
    return {
        "name": name,
        "tensor": details["name"],
        "shape": [None if side < 0 else side for side in details["shape_signature"].tolist()],
        "dtype": np.dtype(details["dtype"]).name,
        "quantization": {"scale": float(scale), "zero_point": int(zero_point)} if scale else None,
    }


def _calibration_views(calibration: Any, classifier: Classifier) -> Iterator[np.ndarray]:
    """Calibration images as the network sees them: float32 ``[1, height, width, channels]``, values 0–255."""
    import numpy as np

    brightest, view = 0.0, None
    for image in itertools.islice(_calibration_images(calibration), CALIBRATION_IMAGES):
        first = view is None
        brightest = max(brightest, float(image.max()))
        view = np.array(classifier.view(_pixels(image)[np.newaxis]), "float32")
        if first:
            # One black and one white pixel: the input's range is then 0–255 whatever the images, its scale 1, its zero point 0.
            view[0, 0, 0], view[0, 0, 1] = 0, 255
        yield view
    if view is None:
        raise InputError("calibration has no images; give about 200 typical ones.")
    if brightest <= 1:
        raise InputError(
            f"calibration images have no value above {brightest:g}; give pixels with values 0–255, not scaled."
        )


def _calibration_images(calibration: Any) -> Iterator[np.ndarray]:
    """Single images of whatever was given, thinned evenly where there are many."""
    import numpy as np

    if isinstance(calibration, (str, os.PathLike)):
        from keras_deepnets import data as datasets

        calibration = datasets.load(calibration, "train")
    if hasattr(calibration, "examples"):
        data = calibration.examples()
        # Examples may lie class by class: every n-th one, so that all classes take part.
        yield from _calibration_images(data.shard(max(1, calibration.size // CALIBRATION_IMAGES), 0))
    elif hasattr(calibration, "as_numpy_iterator"):
        for element in calibration.as_numpy_iterator():
            images = element[0] if isinstance(element, tuple) else element
            if not isinstance(images, np.ndarray) or images.ndim not in (3, 4):
                raise InputError(
                    "calibration must give images [h, w, c] or batches [n, h, w, c], alone or with labels."
                )
            yield from images if images.ndim == 4 else [images]
    else:
        images = np.asarray(calibration)
        if images.ndim != 4:
            raise InputError(f"calibration has the shape {images.shape}; give images [n, h, w, c].")
        positions = np.linspace(0, len(images) - 1, min(len(images), CALIBRATION_IMAGES)).astype(int)
        yield from images[positions]


def _pixels(image: np.ndarray) -> np.ndarray:
    """The image as uint8."""
    import numpy as np

    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise InputError(f"a calibration image has the shape {image.shape}; give images [h, w, 1 or 3].")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "fiu" or not (image.min() >= 0 and image.max() <= 255):
        raise InputError(
            f"a calibration image is {image.dtype} from {image.min()} to {image.max()}; give pixels with values 0–255, not scaled."
        )
    return np.rint(image).astype("uint8")
