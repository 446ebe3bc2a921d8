"""Find objects in images of any size."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.detection import resizing
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    from keras_deepnets.detection.detector import Detector


def detect(model: Detector, images: Any, batch_size: int = 1) -> list[dict[str, np.ndarray]]:
    """Find objects in images of any size.

    Args:
        model: detector.
        images: paths of image files, or uint8 arrays ``[h, w, 3]`` (RGB). A single one is a list of one. An array ``[n, h, w, 3]`` is a
            list of n.
        batch_size: images per call of the model. Images of a batch are padded to the largest. The padding changes features near the
            border of the smaller images, as in torchvision.

    Returns:
        One dictionary per image, best first: ``boxes`` float32 ``[n, 4]``, ``scores`` float32 ``[n]`` and ``labels`` int64 ``[n]``.
        The boxes are (x1, y1, x2, y2) in pixels of the given image.

    Raises:
        ValueError: an image cannot be read, has another dtype or shape, or the model is not a detector.
    """
    return list(detections(model, images, batch_size))


def detections(model: Detector, images: Any, batch_size: int = 1) -> Iterator[dict[str, np.ndarray]]:
    """As `detect`, one image after the other. Files are read when their batch is due."""
    from keras_deepnets.detection.detector import Detector

    if not isinstance(model, Detector):
        raise InputError(f"{getattr(model, 'name', model)} is not a detector; build one with keras_deepnets.detection.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"detect: batch_size={batch_size!r} must be a whole number of at least 1.")
    alone = isinstance(images, (str, Path)) or (isinstance(images, np.ndarray) and images.ndim != 4)
    given: Any = [images] if alone else images
    waiting = iter(given)
    while batch := [as_pixels(image) for image in itertools.islice(waiting, batch_size)]:
        yield from _of_batch(model, batch)


def _of_batch(model: Detector, images: Sequence[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    batch, sizes = resizing.batched(images, model.min_size, model.max_size)
    found = run(model, {"images": batch, "sizes": sizes})
    for place, image in enumerate(images):
        count = int(found["count"][place])
        yield {
            "boxes": resizing.restored(found["boxes"][place, :count], sizes[place], image.shape),
            "scores": found["scores"][place, :count],
            "labels": found["labels"][place, :count].astype("int64"),
        }


def run(model: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Outputs of a model as NumPy arrays. The model is compiled once into a function for all sizes of images."""
    import keras

    function = getattr(model, "_detect_function", None)
    if function is None:
        function = model
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            images = tf.TensorSpec([None, None, None, 3], tf.float32)
            signature = {"images": images, "sizes": tf.TensorSpec([None, 2], tf.int32)}
            function = tf.function(lambda given: model(given, training=False), input_signature=[signature])
        object.__setattr__(model, "_detect_function", function)
    return {name: keras.ops.convert_to_numpy(value) for name, value in function(inputs).items()}


def as_pixels(image: Any) -> np.ndarray:
    """The pixels of an image file or array: uint8 ``[h, w, 3]``, upright. Raises InputError if it is not an image."""
    if isinstance(image, (str, Path)):
        from keras_deepnets.data import foreign

        path = Path(image)
        try:
            return np.asarray(foreign.decode(path.read_bytes()))
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
        except Exception as error:  # TensorFlow and Pillow raise many kinds of exceptions
            raise InputError(f"{path} is not an image that can be decoded.") from error
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise InputError(
            f"detect: an image is {image.dtype} {image.shape}; give uint8 [height, width, 3] or the path of a file."
        )
    return image
