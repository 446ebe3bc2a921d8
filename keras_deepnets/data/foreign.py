"""Decode image files that TensorFlow does not, with Pillow: TIFF, AVIF, JPEG 2000, PNM, animated WebP. Not for exported graphs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.data import decoding

if TYPE_CHECKING:
    import tensorflow as tf


def decode(
    contents: Any, channels: int = 3, window: decoding.Window | None = None, size: tuple[int, int] | None = None
) -> tf.Tensor:
    """`decoding.decode` that also reads the formats of Pillow."""
    return decoding.decode(contents, channels, window, _decode, size)


def pixels(contents: bytes) -> np.ndarray:
    """Decode an image file with Pillow: the first frame, upright, without transparency, as uint8 ``[h, w, 3]``.

    Raises:
        ValueError: The file is not an image or is truncated, or its values have no known scale (floating point).
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(contents)) as image:
            image.load()
            upright = _upright(image, ImageOps)
            if upright.mode.startswith("I"):  # 16 bits: keep the upper 8, as TensorFlow does for PNG
                grey = np.clip(np.asarray(upright).astype(np.int64), 0, 65_535) >> 8
                return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
            if upright.mode == "F":
                raise ValueError("floating-point values")
            return np.asarray(upright.convert("RGB"))
    except Exception as error:  # a damaged file can raise any exception in Pillow
        raise ValueError(f"not an image that Pillow can read ({error})") from error


def _upright(image: Any, operations: Any) -> Any:
    try:
        return operations.exif_transpose(image)
    except Exception:  # ignore a damaged EXIF block
        return image


def _decode(contents: Any) -> tf.Tensor:
    """`pixels` in a graph. Its errors become tf.errors.InvalidArgumentError."""
    import tensorflow as tf

    image = tf.numpy_function(pixels, [contents], tf.uint8, stateful=False)
    return tf.ensure_shape(image, [None, None, 3])
