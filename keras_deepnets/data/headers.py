"""Read the first bytes of an image file without decoding its pixels."""

from __future__ import annotations

import io
import struct

from keras_deepnets.data import foreign, orientation

_FORMATS = {b"BM": "BMP", b"GIF8": "GIF", b"RIFF": "WEBP", b"\xff\x0a": "JXL", b"\0\0\0\x0cJXL ": "JXL"}


def describe(encoded: bytes) -> tuple[str, int, int]:
    """The format (``"JPEG"``, ``"PNG"``, …), height and width of an encoded image. The size is that of the upright image.

    Raises:
        tf.errors.InvalidArgumentError: The bytes are not an image.
    """
    import tensorflow as tf

    if encoded.startswith(b"\xff\xd8\xff"):
        height, width, _ = tf.io.extract_jpeg_shape(encoded).numpy().tolist()
        return "JPEG", *_upright_size(encoded, height, width)
    if encoded.startswith(b"\x89PNG\r\n\x1a\n") and len(encoded) >= 24:
        width, height = struct.unpack(">II", encoded[16:24])
        return "PNG", *_upright_size(encoded, height, width)
    height, width, _ = foreign.decode(encoded).shape
    return _format(encoded), height, width


def _upright_size(encoded: bytes, height: int, width: int) -> tuple[int, int]:
    """Height and width of the upright image, from those in the header of a JPEG or PNG."""
    if not orientation.may_have(encoded):
        return height, width
    height, width = orientation.upright_size(height, width, orientation.of(encoded))
    return int(height), int(width)


def _format(encoded: bytes) -> str:
    """The format name of an image file that is neither JPEG nor PNG."""
    for start, name in _FORMATS.items():
        if encoded.startswith(start):
            return name
    from PIL import Image

    found = Image.open(io.BytesIO(encoded)).format
    assert found is not None  # Pillow names the format of every file that it opens
    return found
