"""A detector as an ONNX file: one image of fixed size, with non-maximum suppression inside."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.detection.export import fixed
from keras_deepnets.detection.export.prepared import TASK, prepared
from keras_deepnets.export import onnx_export, single_file
from keras_deepnets.export.elsewhere import on_tensorflow

if TYPE_CHECKING:
    import numpy as np

    from keras_deepnets.detection.detector import Detector

OPSET = 17
BOX_TOLERANCE, SCORE_TOLERANCE = 0.05, 1e-3
"""Largest difference between the file and Keras, in pixels and in scores."""


@on_tensorflow
def onnx(
    model: Detector,
    path: str | os.PathLike[str],
    image_size: int | tuple[int, int] | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> Path:
    """Write an ``.onnx`` file, and ``<path>.json`` with its inputs, outputs, scaling and labels. The metadata of the file hold them too.

    The inputs and outputs are those of `keras_deepnets.detection.export.tflite`. The file holds operators of ONNX's own set 17, and
    non-maximum suppression is part of it. If onnxruntime is installed, the file is run once and compared with the Keras model before it
    is moved into place.

    Args:
        model: The detector. Batch normalisation is folded.
        path: The file to write, ``….onnx``. An existing file is replaced.
        image_size: Side of the images in pixels, or (height, width). Multiples of 32.
        labels: Class names by label number, the background first. Default: the model's own, else ``"background"``, ``"1"``, ….

    Returns:
        The path.

    Raises:
        InputError: The packages of the extra ``onnx`` are missing. The model is not a detector, or the labels or `image_size` are not
            supported. A layer has no ONNX operator, or the file cannot be written. No partial files remain.
        RuntimeError: The outputs of the file differ from those of the model.
    """
    path = single_file.check(path, ".onnx")
    onnx_export.check_installed()
    size = fixed.checked_size(model, image_size)
    found = prepared(model, labels)
    card = fixed.card(model, found, size)
    traced = fixed.function(found, size)
    content = _converted(traced, model.name, card)
    if find_spec("onnxruntime") is not None:
        _check(content, traced, size, model.name)
    single_file.write(path, content, card)
    return path


def _converted(traced: Any, name: str, card: dict[str, Any]) -> bytes:
    import tensorflow as tf
    import tf2onnx

    signature = list(traced.structured_input_signature[0])
    with onnx_export.quiet(), onnx_export.conversion_errors(name):
        again = tf.function(lambda images, sizes: traced(images, sizes), input_signature=signature, autograph=False)
        file, _ = tf2onnx.convert.from_function(again, input_signature=signature, opset=OPSET)
        import onnx as library

        library.checker.check_model(file)  # The converter keeps operators that ONNX lacks.
    for key in ("task", "labels", "input", "output", "scaling"):
        file.metadata_props.add(key=key, value=json.dumps(card[key], ensure_ascii=False))
    return file.SerializeToString()


def _check(content: bytes, traced: Any, size: tuple[int, int], name: str) -> None:
    """Raise RuntimeError if the outputs of onnxruntime and TensorFlow differ."""
    import numpy as np
    import tensorflow as tf

    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype("uint8")
    given = fixed.inputs(image, *size)
    expected = traced(*(tf.constant(given[key]) for key in ("images", "sizes")))
    found = run(onnx_export.open_session(content), given)
    for key, tolerance in (("count", 0), ("boxes", BOX_TOLERANCE), ("scores", SCORE_TOLERANCE)):
        difference = float(np.abs(found[key] - expected[key].numpy()).max(initial=0))
        if not difference <= tolerance:
            raise RuntimeError(f"the ONNX file of {name} differs from the model by {difference:.2g} in its {key}")


def run(session: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a session by name."""
    return dict(zip(fixed.OUTPUTS, session.run(list(fixed.OUTPUTS), given), strict=True))


def runner(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function that runs a file of `onnx` on one image, uint8 ``[h, w, 3]``, and returns what `detect` does.

    Raises:
        InputError: onnxruntime is missing, or `onnx` did not write the file or its JSON.
    """
    onnx_export.check_installed(["onnxruntime"])
    content, card = single_file.read(path, "onnx", TASK)
    session = onnx_export.open_session(content)
    height, width = card["input"]["height"], card["input"]["width"]

    def detect(image: np.ndarray) -> dict[str, np.ndarray]:
        given = fixed.inputs(image, height, width)
        return fixed.result(run(session, given), given["sizes"], image.shape)

    return detect
