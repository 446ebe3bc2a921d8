"""TFLite files for devices: images in, probabilities out, built-in operators only."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.export import calibrating, exporters, model_card, single_file, tflite_metadata, weight_precision
from keras_deepnets.export.classifier import Classifier, classifier_of
from keras_deepnets.export.elsewhere import on_tensorflow

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_deepnets.data import ImageData

QUANTIZATIONS = ("float16", "dynamic", "int8", "int16x8")
CALIBRATED = ("int8", "int16x8")
"""Quantisation modes that quantise activations and so need their ranges."""

MOST_CONSTANTS = 100_000_000
"""Bytes of weights that are traced as constants. As constants, they make the converter use thirty times their size in memory, but
only eight times as variables. The converter saves and loads each variable, which takes time. So constants pay off for networks of
small layers, however many there are."""


@on_tensorflow
@exporters.for_any_model
def tflite(
    model: keras.Model,
    path: str | os.PathLike[str],
    quantize: str | None = None,
    calibration: np.ndarray | Sequence[np.ndarray] | tf.data.Dataset | ImageData | str | os.PathLike[str] | None = None,
    *,
    labels: Sequence[str] | None = None,
    integer_io: bool = True,
    batch: int | None = 1,
    calibration_images: int = calibrating.IMAGES,
    image_size: int | tuple[int, int] | None = None,
) -> Path:
    """Write a ``.tflite`` file, and ``<path>.json`` with its input, output, scaling, labels and quantisation.

    The input is ``images`` ``[batch, height, width, channels]``, RGB with values 0–255; the scaling is part of the file. The output is
    ``probabilities`` ``[batch, classes]``. Both are float32, or integers if the activations are integers and `integer_io` is True:
    uint8 for ``"int8"`` (pixels go in unscaled: the scale is 1 or close to it), int16 for ``"int16x8"``. The JSON holds the scale and the
    zero point; a probability is ``scale · (value - zero_point)``.

    The file holds only built-in operators. Convolution weights are quantised per channel. Embedded metadata and ``labels.txt`` give the
    same facts to the task libraries of TFLite and MediaPipe.

    A detector has other inputs, outputs and options: see `keras_deepnets.detection.export.tflite`, which this function calls.

    Args:
        model: An image classifier, as for `saved_model`. Batch normalisation is folded.
        path: The file to write, ``….tflite``. An existing file is replaced.
        quantize: None is float32. ``"float16"`` stores float16 weights (half the size). ``"dynamic"`` stores int8 weights (a quarter).
            ``"int8"`` does all arithmetic in integers (a quarter and the fastest). ``"int16x8"`` has int16 activations and int8
            weights (a quarter). It is closer to float32 but slow, because runtimes only have reference kernels for it.
        calibration: Typical images with values 0–255 for ``"int8"`` and ``"int16x8"``. They set the ranges of the activations. It is
            an array uint8 ``[n, h, w, c]``, a list of images ``[h, w, c]`` of any size, or an `ImageData`. A `tf.data.Dataset` of
            images or of (images, labels), batched or not, works too, and so does any source of `keras_deepnets.data.load`. Such a
            source (a folder of class folders, ``"digits"``, …) gives its training images. Fewer than 200 images cause a warning.
        labels: Names in the order of the outputs. Default: the model's own, else ``"0"``, ``"1"``, ….
        integer_io: Whether input and output are integers if the activations are. False: float32.
        batch: Images per call. None: any number; the program that runs the file then calls ``resize_tensor_input``.
        calibration_images: Maximum number of calibration images. They are evenly spaced, so that data sorted by class covers all
            classes. A dataset of unknown cardinality gives its first images.
        image_size: Only for a detector: the side of the images in pixels, or (height, width).

    Returns:
        The path.

    Raises:
        InputError: The model or the labels are not supported, or a layer has no built-in operator. `quantize` is unknown, or `batch` or
            `calibration_images` is below 1. Calibration is missing or holds no images. The file cannot be written. No partial files
            remain.
    """
    path = single_file.check(path, ".tflite")
    exporters.check_no_image_size(image_size)
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise InputError(f"quantize={quantize!r} is not one of None, {', '.join(map(repr, QUANTIZATIONS))}.")
    if quantize in CALIBRATED and calibration is None:
        raise InputError(
            f"quantize={quantize!r} needs calibration: give about 200 typical images with values 0–255 "
            "(uint8 array [n, h, w, c], tf.data of images, an ImageData, or a folder)."
        )
    if batch is not None and not _is_count(batch):
        raise InputError(f"batch={batch!r} is not a whole number from 1, or None for any number of images.")
    if not _is_count(calibration_images):
        raise InputError(f"calibration_images={calibration_images!r} is not a whole number from 1; 200 works well.")
    classifier = classifier_of(model, labels, for_device=True)
    views = calibrating.views(calibration, classifier, calibration_images) if quantize in CALIBRATED else []
    content = _convert(classifier, quantize, views, integer_io, batch)
    card = model_card.describe(model, classifier)
    facts = _tensor_facts(content)
    card["input"] |= facts["input"]
    card |= {"output": facts["output"], "quantize": quantize, "calibration_images": len(views)}
    single_file.write(path, tflite_metadata.attach(content, card), card)
    return path


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def open_interpreter(**kwargs: Any) -> Any:
    """A TFLite interpreter with allocated tensors: from ai-edge-litert if it is installed, otherwise from TensorFlow."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import warnings

        import tensorflow as tf

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the deprecation warning points to the package that is not installed
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
    weights = weight_precision.Weights(classifier.model, "float32", MOST_CONSTANTS)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32, name="images")], autograph=False)
    def serve(images: tf.Tensor) -> dict[str, tf.Tensor]:
        with weights.in_graph():
            return {"probabilities": classifier.probabilities(images)}

    with inlined_blocks():  # the converter does not support functions
        function = serve.get_concrete_function()
    return converted(function, classifier.model.name, quantize, views, integer_io)


def converted(
    function: Any, name: str, quantize: str | None, views: Sequence[np.ndarray] = (), integer_io: bool = True
) -> bytes:
    """The TFLite file of a concrete function.

    Args:
        function: Concrete function with a dictionary of outputs.
        name: Name of the model, for messages.
        quantize: None or one of `QUANTIZATIONS`.
        views: Typical inputs, for `CALIBRATED`.
        integer_io: Whether input and output are integers if the activations are.

    Raises:
        InputError: An operation has no built-in operator.
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = list(function.graph.variables)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    # Built-in operators only: a missing operator must fail here, not on the device.
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
    with _conversion_errors(name):
        return converter.convert()


@contextlib.contextmanager
def _conversion_errors(name: str) -> Iterator[None]:
    """Turn the converter's report of missing TFLite operators, or of unsupported quantisation, into a one-line InputError."""
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        yield
    except ConverterError as error:
        missing = sorted(set(re.findall(r"'(tf\.\w+)' op", str(error))))
        what = ", ".join(missing) if missing else str(error).strip().splitlines()[0]
        raise InputError(
            f"{name} cannot be converted with TFLite's built-in operators ({what}); replace the layers that need other operators."
        ) from error
    except (RuntimeError, ValueError) as error:
        what = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"{name} cannot be converted with this quantize ({what}); give another one, or replace the named layer."
        ) from error


def _tensor_facts(content: bytes) -> dict[str, dict[str, Any]]:
    """Name, shape, dtype and quantisation of the input and output of a TFLite file, read from the file itself."""
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
