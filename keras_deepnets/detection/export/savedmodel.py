"""A detector as a SavedModel ready for TF Serving: encoded images in, boxes, scores and class names out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_deepnets.detection import resizing
from keras_deepnets.detection.export.prepared import describe, prepared
from keras_deepnets.detection.export.serving_graph import serving
from keras_deepnets.errors import InputError
from keras_deepnets.export import model_card, savedmodel
from keras_deepnets.export.decoding import MAX_PIXELS
from keras_deepnets.export.elsewhere import on_tensorflow

if TYPE_CHECKING:
    from keras_deepnets.detection.detector import Detector

BATCH_SIZES = (1, 2, 4)
"""Default numbers of images in the warm-up requests."""


@on_tensorflow
def saved_model(
    model: Detector,
    directory: str | os.PathLike[str],
    labels: Sequence[str] | None = None,
    version: int | None = None,
    fold: bool = True,
    *,
    precision: str = "float32",
    on_error: str = "fail",
    max_pixels: int = MAX_PIXELS,
    data: str | os.PathLike[str] | None = None,
    accuracy: float | Mapping[str, float | str] | None = None,
    batch_sizes: Sequence[int] | None = None,
) -> Path:
    """Write ``directory/<version>/``, a SavedModel with two signatures. The version appears only when it is complete.

    ``serving_default`` takes ``image_bytes``, string ``[None]``: JPEG, PNG, BMP, GIF or still WebP files of any sizes. They are turned
    upright by their EXIF orientation. ``serving_images`` takes ``images``, uint8 ``[None, None, None, 3]``: RGB, all of one size. Both
    resize and pad as `keras_deepnets.detection.detect` does, and return

    * ``boxes`` float32 ``[None, d, 4]``: x1, y1, x2, y2 in pixels of the upright image, best first, filled up with zeros,
    * ``scores`` float32 ``[None, d]``,
    * ``classes`` int64 ``[None, d]``: label numbers from 1; 0 after the last detection,
    * ``labels`` string ``[None, d]``: the names of the classes; empty after the last detection,
    * ``count`` int32 ``[None]``: the number of detections.

    The results equal those of `detect` with the same batches. The graph computes in float32 and runs on any device without this
    library. The folder also contains ``assets/labels.txt``, ``model_card.json`` and TF Serving's warm-up requests.

    A broken or too large encoded image makes its request fail. The error names the index of the image. The size is checked in the
    header, so a too large image is never decoded.

    Args:
        model: The detector.
        directory: The model's folder, which TF Serving watches. It is created if missing.
        labels: Class names by label number, the background first. Default: the model's own, else ``"background"``, ``"1"``, ….
        version: A whole number. Default: one more than the largest in the folder.
        fold: Whether to fold batch normalisation into convolutions (same outputs, faster).
        precision: Dtype of the stored weights. ``"bfloat16"`` and ``"float16"`` halve their size. They are widened to float32 at each
            call.
        on_error: ``"fail"`` or ``"skip"``. With ``"skip"``, a broken encoded image gets the count -1 and no detections. The other images
            of its request are processed.
        max_pixels: Limit on height times width of an encoded image. For a GIF the limit is on all frames together.
        data: Training data of the network, for the model card.
        accuracy: Accuracy of the network, for the model card: one number, or several by name, with strings about them.
        batch_sizes: Numbers of images in the warm-up requests. `serving_config` uses them as the server's batch sizes. Default: 1, 2, 4.

    Returns:
        The path of the version.

    Raises:
        InputError: The model is not a detector. The labels or an option are not supported, the version exists, or the folder cannot be
            written. No partial files remain.
    """
    directory = Path(directory)
    told = savedmodel.told_facts(data, accuracy)
    options, sizes = savedmodel.check_options(
        BATCH_SIZES if batch_sizes is None else batch_sizes,
        precision=precision,
        on_error=on_error,
        max_pixels=max_pixels,
    )
    savedmodel.check_version(directory, version)
    found = prepared(model, labels, fold)
    height, width = resizing.resized_size(3, 4, found.min_size, found.max_size)
    if height * width > max_pixels:
        raise InputError(
            f"max_pixels={max_pixels} is less than the {height} × {width} pixels of a warm-up request; give more."
        )
    view = {"min_size": found.min_size, "max_size": found.max_size, "stride": resizing.STRIDE}
    facts = describe(model, found, view) | told
    facts |= {"weights": model_card.weights(model), "detections": found.most}
    return savedmodel.write_version(directory, version, serving(found, options), facts, options, (height, width), sizes)
