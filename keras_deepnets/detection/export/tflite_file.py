"""A detector as a TFLite file: one image of fixed size, with non-maximum suppression inside, built-in operators only."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.detection.export import fixed
from keras_deepnets.detection.export.prepared import TASK, prepared
from keras_deepnets.errors import InputError
from keras_deepnets.export import litert, single_file
from keras_deepnets.export.elsewhere import on_tensorflow

if TYPE_CHECKING:
    import numpy as np

    from keras_deepnets.detection.detector import Detector

QUANTIZATIONS = ("float16", "dynamic")


@on_tensorflow
def tflite(
    model: Detector,
    path: str | os.PathLike[str],
    image_size: int | tuple[int, int] | None = None,
    quantize: str | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> Path:
    """Write a ``.tflite`` file, and ``<path>.json`` with its inputs, outputs, scaling, labels and quantisation.

    The input ``images`` is float32 ``[1, height, width, 3]``: RGB with values 0–255, padded with zeros at the bottom and at the right.
    The input ``sizes`` is int32 ``[1, 2]``: the height and width without the padding. The outputs are those of a `Detector`: ``boxes``,
    ``scores``, ``labels`` and ``count``. The boxes are in pixels of the input. The signature ``serving_default`` has these names.

    The file holds only built-in operators, and non-maximum suppression is part of it. `keras_deepnets.detection.export.predict` runs it
    on images of any size. The numbers of proposals and candidates decide how long an image takes: build the detector with fewer, like
    ``proposals=100, candidates=100``, for a device.

    Args:
        model: The detector. Batch normalisation is folded.
        path: The file to write, ``….tflite``. An existing file is replaced.
        image_size: Side of the images in pixels, or (height, width). Multiples of 32.
        quantize: None is float32. ``"float16"`` stores float16 weights (half the size). ``"dynamic"`` stores int8 weights (a quarter).
        labels: Class names by label number, the background first. Default: the model's own, else ``"background"``, ``"1"``, ….

    Returns:
        The path.

    Raises:
        InputError: The model is not a detector, or the labels are not supported. `image_size` or `quantize` is invalid. A layer has no
            built-in operator, or the file cannot be written. No partial files remain.
    """
    path = single_file.check(path, ".tflite")
    size = fixed.checked_size(model, image_size)
    if quantize is not None and quantize not in QUANTIZATIONS:
        raise InputError(
            f"quantize={quantize!r}: a detector takes None, {', '.join(map(repr, QUANTIZATIONS))}; boxes need more than 8 bits."
        )
    found = prepared(model, labels)
    content = litert.converted(fixed.function(found, size, litert.MOST_CONSTANTS), model.name, quantize)
    single_file.write(path, content, fixed.card(model, found, size) | {"quantize": quantize})
    return path


def runner(path: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A function that runs a file of `tflite` on one image, uint8 ``[h, w, 3]``, and returns what `detect` does.

    Raises:
        InputError: `tflite` did not write the file or its JSON.
    """
    content, card = single_file.read(path, "tflite", TASK)
    try:
        interpreter = litert.open_interpreter(model_content=content, num_threads=os.cpu_count())
        run: Any = interpreter.get_signature_runner("serving_default")
    except (ValueError, RuntimeError) as error:
        raise single_file.not_ours(path, "tflite", str(error)) from error
    height, width = card["input"]["height"], card["input"]["width"]

    def detect(image: np.ndarray) -> dict[str, np.ndarray]:
        given = fixed.inputs(image, height, width)
        return fixed.result(run(**given), given["sizes"], image.shape)

    return detect
