"""TFLite files for devices: one image in, probabilities out, nothing but built-in operators."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.export import calibrating, model_card, single_file, tflite_metadata, weight_precision
from keras_deepnets.export.classifier import Classifier, classifier_of

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_deepnets.data import ImageData

QUANTIZATIONS = ("float16", "dynamic", "int8", "int16x8")
CALIBRATED = ("int8", "int16x8")
"""The quantisations of activations, whose ranges must be known."""

MOST_CONSTANTS = 100_000_000
"""Bytes of weights that are traced as constants. The converter takes thirty times their memory then, and eight times as variables, which it
saves and loads: that takes time for each variable, so that it is the networks of small layers, however many, that gain."""


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
) -> Path:
    """Writes a ``.tflite`` file and ``<path>.json`` with its input, output, scaling, labels and quantisation.

    The input is ``images`` ``[batch, height, width, channels]``, RGB with values 0–255 (the scaling is inside); the output
    ``probabilities`` ``[batch, classes]``. Both are float32, or integers where the activations are and `integer_io` is left on: uint8
    with ``"int8"`` (pixels go in as they are: scale 1, or next to it), int16 with ``"int16x8"``. The JSON says the scale and the zero
    point; a probability is ``scale · (value - zero_point)``. The file holds nothing but built-in operators; weights of convolutions
    are quantised a channel at a time. Metadata inside, with ``labels.txt``, say the same to the task libraries of TFLite and MediaPipe.

    Args:
        model: an image classifier as `saved_model` takes it. Batch normalisation is folded.
        path: the file to write, ``….tflite``; what is there is replaced.
        quantize: None (float32), ``"float16"`` (weights; half the size), ``"dynamic"`` (weights int8; a quarter), ``"int8"`` (all
            arithmetic in integers; a quarter and the fastest) or ``"int16x8"`` (activations int16, weights int8; a quarter, nearer to
            float32, and slow: runtimes have only their reference kernels for it).
        calibration: for ``"int8"`` and ``"int16x8"``: typical images with values 0–255, from which the ranges of the activations are
            read: an array uint8 ``[n, h, w, c]``, a list of images ``[h, w, c]`` of any sizes, a `tf.data.Dataset` of images or of
            (images, labels), batched or not, an `ImageData`, or what `keras_deepnets.data.load` takes (a folder of class folders,
            ``"digits"``, …: its training images). Fewer than 200 are warned of.
        labels: names in the order of the outputs; by default the model's own, else ``"0"``, ``"1"``, …
        integer_io: whether input and output are integers where the activations are; False: float32.
        batch: images at once; None: any number, for which the program that runs the file calls ``resize_tensor_input``.
        calibration_images: how many images calibrate at most: evenly spaced ones, so that all classes take part where they lie class
            by class; the first ones of a dataset whose cardinality is not known.

    Returns:
        The path.

    Raises:
        InputError: the model or the labels do not fit, a layer has no built-in operator, unknown `quantize`, a `batch` or
            `calibration_images` below 1, calibration is missing or no images, or the file cannot be written. Nothing is left behind.
    """
    path = single_file.check(path, ".tflite")
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
        raise InputError(f"calibration_images={calibration_images!r} is not a whole number from 1; 200 serve well.")
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
    weights = weight_precision.Weights(classifier.model, "float32", MOST_CONSTANTS)

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
    """Turns what the converter says of operators that TFLite lacks, or the quantiser of what it cannot do, into a one-line InputError."""
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        yield
    except ConverterError as error:
        missing = sorted(set(re.findall(r"'(tf\.\w+)' op", str(error))))
        what = ", ".join(missing) if missing else str(error).strip().splitlines()[0]
        raise InputError(
            f"{name} cannot be converted with TFLite's built-in operators ({what}); replace the layers that use others."
        ) from error
    except (RuntimeError, ValueError) as error:
        what = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"{name} cannot be converted so ({what}); give another quantize, or replace the layer that is named."
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
