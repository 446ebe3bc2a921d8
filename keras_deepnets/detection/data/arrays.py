"""Images and boxes already in memory."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from keras_deepnets.detection.data import cleaning
from keras_deepnets.detection.data.annotations import RawAnnotation
from keras_deepnets.detection.data.detection_data import DetectionData
from keras_deepnets.detection.data.images import ImageSource
from keras_deepnets.errors import InputError


def from_arrays(
    images: Sequence[np.ndarray] | np.ndarray,
    boxes: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    classes: Sequence[str],
    *,
    crowd: Sequence[np.ndarray] | None = None,
    difficult: Sequence[np.ndarray] | None = None,
    name: str = "arrays",
    split: str = "all",
    on_bad_boxes: str = "drop",
) -> DetectionData:
    """Create a data set from arrays. The images are kept as PNG.

    Args:
        images: uint8 ``[h, w, 3]`` each.
        boxes: For each image ``[n, 4]``: x1, y1, x2, y2 in pixels.
        labels: For each image integers ``[n]`` from 1: label k means class number k, and the first class has label 1.
        classes: Names of the classes; a first name ``"background"`` is the name of label 0.
        crowd: For each image bool ``[n]``. None: all False.
        difficult: For each image bool ``[n]``. None: all False.
        name: Name of the data set, for messages.
        split: Name of the split, for messages.
        on_bad_boxes: ``"drop"`` or ``"error"``; see `load`.

    Raises:
        InputError: Shapes, dtypes or lengths do not fit, a label is 0 or has no class, or boxes look like fractions.
    """
    names, _ = cleaning.label_map(name, {}, classes)
    given = {"boxes": boxes, "labels": labels, "crowd": crowd, "difficult": difficult}
    for what, values in given.items():
        if values is not None and len(values) != len(images):
            raise InputError(f"{name}: {len(images)} images but {what} of {len(values)}; give one array per image.")
    if not len(images):
        raise InputError(f"{name}: no images; give at least one.")
    texts: dict[Hashable, str] = dict(enumerate(names))
    raws = [
        _raw(
            name,
            index,
            {what: values[index] for what, values in given.items() if values is not None},
            image,
            len(names),
        )
        for index, image in enumerate(images)
    ]
    numbers: dict[Hashable, int] = {label: label for label in range(1, len(names))}
    annotations, dropped = cleaning.clean(name, raws, numbers, texts, on_bad_boxes)
    return DetectionData(name, split, names, annotations, dropped)


def _raw(name: str, index: int, given: dict[str, np.ndarray], image: np.ndarray, count: int) -> RawAnnotation:
    """The annotation of one image. ``count`` is the number of classes with the background."""
    import tensorflow as tf

    where = f"{name}, image {index}"
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise InputError(f"{where} is {image.dtype} {image.shape}; give uint8 [height, width, 3].")
    boxes, labels = np.asarray(given["boxes"], np.float64), np.asarray(given["labels"])
    if boxes.shape != (len(labels), 4) and (boxes.size or labels.size):
        raise InputError(f"{where}: boxes are {boxes.shape} for labels {labels.shape}; give [n, 4] and [n].")
    if labels.size and (not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1):
        raise InputError(f"{where}: labels are {labels.dtype} {labels.shape}; give integers [n].")
    for label in labels.tolist():
        if not 0 < label < count:
            raise InputError(
                f"{where}: label {label}; objects have labels from 1 to {count - 1}, because label 0 is the background."
            )
    return RawAnnotation(
        ImageSource(where, contents=tf.io.encode_png(image).numpy()),
        f"{index:06d}",
        boxes.reshape(-1, 4),
        tuple(labels.tolist()),
        crowd=given.get("crowd"),
        difficult=given.get("difficult"),
    )
