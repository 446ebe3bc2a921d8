"""Calibration images for activation ranges: evenly spaced over the source, in the network's view."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from keras_deepnets.data import ImageData
    from keras_deepnets.export.classifier import Classifier

IMAGES = 200
"""Default number of calibration images. Ranges hardly change beyond it, and each image costs a float32 forward pass."""


def check(quantize: str | None, calibration: Any, known: Sequence[str]) -> None:
    """Raise InputError if a quantisation is not one of `known`, or if calibration images are given without it or missing with it."""
    if quantize is not None and quantize not in known:
        raise InputError(f"quantize={quantize!r} is not {' or '.join(map(repr, known))} or None.")
    if (quantize is None) != (calibration is None):
        needs = "needs" if calibration is None else "takes no"
        raise InputError(f"quantize={quantize!r} {needs} calibration images, which give the ranges of the activations.")


def views(calibration: Any, classifier: Classifier, most: int = IMAGES) -> list[np.ndarray]:
    """Calibration images in the network's view: float32 ``[1, height, width, channels]``, values 0–255.

    Args:
        calibration: Calibration data, as `export.tflite` takes it.
        classifier: The classifier whose evaluation view is applied.
        most: Maximum number of images to read. They come from the whole source if its size is known.

    Raises:
        InputError: The source is empty, or it does not hold images with values 0–255.
    """
    import numpy as np

    brightest, found = 0.0, []
    for image in _images(calibration, most):
        pixels = _pixels(image)
        brightest = max(brightest, float(image.max()))
        found.append(np.array(classifier.view(pixels[np.newaxis]), "float32"))
    if not found:
        raise InputError(f"calibration has no images; give about {IMAGES} typical ones.")
    if brightest <= 1:
        raise InputError(
            f"calibration images have no value above {brightest:g}; give pixels with values 0–255, not scaled."
        )
    # One black and one white pixel fix the input's range to 0–255 for any images, with scale 1 and zero point 0.
    found[0][0, 0, 0], found[0][0, 0, 1] = 0, 255
    if said := too_few(len(found), most):
        warnings.warn(said, stacklevel=5)
    return found


def too_few(count: int, most: int = IMAGES) -> str | None:
    """A one-line warning if a source has too few images for reliable ranges; None if it has enough, or the caller asked for few."""
    enough = min(most, IMAGES)
    if count >= enough:
        return None
    return f"calibration has only {count} images; use about {IMAGES} typical ones for ranges that also hold for other images."


def _images(calibration: Any, most: int) -> Iterable[np.ndarray]:
    """At most `most` single images from any supported source."""
    import numpy as np

    if isinstance(calibration, (str, os.PathLike)):
        from keras_deepnets import data as datasets

        calibration = datasets.load(calibration, "train")
    if hasattr(calibration, "examples"):
        return _of_data(calibration, most)
    if hasattr(calibration, "as_numpy_iterator"):
        return _of_dataset(calibration, most)
    if not isinstance(calibration, (list, tuple)):  # images in a list may differ in size
        calibration = np.asarray(calibration)
        if calibration.ndim != 4:
            raise InputError(f"calibration has shape {calibration.shape}; give images [n, h, w, c].")
    return [np.asarray(image) for image in _evenly(calibration, most)]


def _positions(size: int, most: int) -> np.ndarray:
    """At most `most` indices below `size`, evenly spaced from first to last, because examples may be sorted by class."""
    import numpy as np

    return np.linspace(0, size - 1, min(size, most)).astype(int)


def _evenly(images: Sequence[Any], most: int) -> list[Any]:
    return [images[position] for position in _positions(len(images), most)]


def _of_data(data: ImageData, most: int) -> Iterator[np.ndarray]:
    """Open only the chosen images. Other images are not read if the data can be indexed."""
    import numpy as np
    import tensorflow as tf

    chosen = np.isin(np.arange(data.size), _positions(data.size, most))
    store: Any = data.store
    if hasattr(store, "take"):
        payloads = store.take(chosen).read()
    else:
        mask = tf.constant(chosen)
        payloads = store.read().enumerate().filter(lambda index, _: mask[index]).map(lambda _, example: example)
    return payloads.map(lambda payload, _: store.open(payload)).as_numpy_iterator()


def _of_dataset(dataset: tf.data.Dataset, most: int) -> list[np.ndarray]:
    """Evenly spaced images if the number of elements is known, otherwise the first ones."""
    elements, kept, place, chosen = int(dataset.cardinality()), [], 0, None
    for element in dataset.as_numpy_iterator():
        images = _of_element(element)
        if chosen is None:
            chosen = _candidates(elements, len(images), most)
        kept += [image for index, image in enumerate(images, place) if index in chosen]
        place += len(images)
        if place > chosen[-1]:
            break
    return _evenly(kept, most)


def _candidates(elements: int, batch: int, most: int) -> Sequence[int]:
    """Indices of the images to keep. There are `elements` elements (negative: unknown) of `batch` images each."""
    if elements < 0:
        return range(most)
    sure = (elements - 1) * batch + 1  # the last batch may be smaller
    return _positions(sure, most).tolist() if sure > most else range(elements * batch)


def _of_element(element: Any) -> np.ndarray:
    """The images ``[n, h, w, c]`` of an element of a dataset."""
    import numpy as np

    images = element[0] if isinstance(element, tuple) else element
    if not isinstance(images, np.ndarray) or images.ndim not in (3, 4):
        raise InputError("calibration must give images [h, w, c] or batches [n, h, w, c], with or without labels.")
    if 0 in images.shape:
        raise InputError(f"calibration gives images of shape {images.shape}, which have no pixels; leave them out.")
    return images if images.ndim == 4 else images[np.newaxis]


def _pixels(image: np.ndarray) -> np.ndarray:
    """Convert the image to uint8."""
    import numpy as np

    if image.ndim != 3 or image.shape[-1] not in (1, 3):
        raise InputError(f"a calibration image has shape {image.shape}; give images [h, w, 1 or 3].")
    if 0 in image.shape:
        raise InputError(f"a calibration image has shape {image.shape}, so no pixels; leave it out.")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "fiu" or not (image.min() >= 0 and image.max() <= 255):
        raise InputError(
            f"a calibration image is {image.dtype}, from {image.min()} to {image.max()}; give pixels with values 0–255, not scaled."
        )
    return np.rint(image).astype("uint8")
