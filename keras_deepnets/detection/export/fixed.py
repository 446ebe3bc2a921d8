"""A detector for one image of fixed size: the function that the single-file exports convert, and the card of their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.detection import resizing
from keras_deepnets.detection.export.prepared import Prepared, describe
from keras_deepnets.errors import InputError
from keras_deepnets.export import weight_precision

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_deepnets.detection.detector import Detector

OUTPUTS = ("boxes", "scores", "labels", "count")


def checked_size(model: Detector, image_size: Any) -> tuple[int, int]:
    """Height and width of the images. Raise InputError unless they are positive multiples of `resizing.STRIDE`."""
    stride = resizing.STRIDE
    if image_size is None:
        raise InputError(
            f"{model.name} takes images of any size, but a file takes one: give image_size=(height, width), multiples of {stride}."
        )
    size = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    whole = len(size) == 2 and all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in size)
    if not whole or any(side % stride for side in size):
        raise InputError(f"image_size={image_size!r} must be a side or (height, width), multiples of {stride}.")
    return size[0], size[1]


def function(found: Prepared, size: tuple[int, int], constants: int | None = None) -> Any:
    """A concrete function of ``images`` float32 ``[1, h, w, 3]`` and ``sizes`` int32 ``[1, 2]`` to the outputs of a `Detector`.

    Args:
        found: The detector.
        size: Height and width.
        constants: Bytes of weights up to which they are constants.
    """
    import tensorflow as tf

    from keras_deepnets.detection.export.builtin import builtin
    from keras_deepnets.layers import inlined_blocks

    network = builtin(found.model)
    weights = weight_precision.Weights(network, "float32", constants)
    images, sizes = tf.TensorSpec([1, *size, 3], tf.float32, "images"), tf.TensorSpec([1, 2], tf.int32, "sizes")

    @tf.function(input_signature=[images, sizes], autograph=False)
    def detect(images: tf.Tensor, sizes: tf.Tensor) -> dict[str, tf.Tensor]:
        with weights.in_graph():
            return network({"images": images, "sizes": sizes}, training=False)

    with inlined_blocks():  # converters do not support functions
        return detect.get_concrete_function()


def card(original: Detector, found: Prepared, size: tuple[int, int]) -> dict[str, Any]:
    """The JSON of a single-file export."""
    height, width = size
    told = describe(original, found, {"height": height, "width": width})
    told["input"]["tensors"] = {
        "images": {"shape": [1, height, width, 3], "dtype": "float32"},
        "sizes": {"shape": [1, 2], "dtype": "int32"},
    }
    shapes = {"boxes": [1, found.most, 4], "scores": [1, found.most], "labels": [1, found.most], "count": [1]}
    told["output"] = {
        name: {"shape": shapes[name], "dtype": "float32" if name in ("boxes", "scores") else "int32"}
        for name in OUTPUTS
    }
    return told


def inputs(image: np.ndarray, height: int, width: int) -> dict[str, np.ndarray]:
    """The inputs of a file for one image.

    The image is resized to fit, as `resizing.resized` does, and padded with zeros at the bottom and at the right.

    Args:
        image: uint8 ``[h, w, 3]``.
        height: Rows of the file's images.
        width: Their columns.
    """
    scale = min(height / image.shape[0], width / image.shape[1])
    size = [min(limit, max(1, int(side * scale))) for side, limit in zip(image.shape[:2], (height, width), strict=True)]
    images = np.zeros((1, height, width, 3), "float32")
    images[0, : size[0], : size[1]] = resizing.resized(image, *size)
    return {"images": images, "sizes": np.asarray([size], "int32")}


def result(outputs: dict[str, Any], sizes: np.ndarray, original: Any) -> dict[str, np.ndarray]:
    """The outputs of a file as `detect` returns them, with boxes in pixels of an image of shape `original`."""
    count = int(outputs["count"][0])
    return {
        "boxes": resizing.restored(outputs["boxes"][0, :count], sizes[0], original),
        "scores": outputs["scores"][0, :count],
        "labels": outputs["labels"][0, :count].astype("int64"),
    }
