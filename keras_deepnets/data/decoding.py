"""Decode the bytes of image files to upright images. This works eagerly and inside `tf.function`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_deepnets.data import orientation
from keras_deepnets.data.channels import convert_channels
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

Window = Callable[[Any, Any], tuple[Any, Any, Any, Any]]
"""Function from an image's height and width to the part to keep: top, left, height, width (int32 scalars)."""

FINENESS = 3
"""A part of a JPEG is decoded at a reduced size only if this many times the rows and columns of the result remain.

The edges of the part then move by less than a third of a pixel of the result. Between these edges, windows of 128 photographs (COCO)
differ by at most 0.3 of 255 levels on average, and by 0.7 in the worst window (``benchmarks/reduced_decoding.py``).
"""


def decode(
    contents: Any,
    channels: int = 3,
    window: Window | None = None,
    foreign: Callable[[Any], tf.Tensor] | None = None,
    size: tuple[int, int] | None = None,
) -> tf.Tensor:
    """Decode one JPEG, PNG, BMP, GIF, WebP or JPEG XL image and turn it upright.

    The content decides the format, not the file name. The EXIF block of a JPEG, PNG or WebP defines the orientation (`orientation`). An
    animated GIF or JPEG XL gives its first frame; TensorFlow does not decode animated WebP. Transparency is dropped. Grey images are
    repeated to RGB, and RGB images are weighted to grey, as ``channels`` requires.

    Args:
        contents: Bytes of the file, a scalar string tensor or ``bytes``.
        channels: 3 (RGB) or 1 (grey).
        window: Chooses the part of the upright image to keep from its height and width. For JPEG only that part is decoded.
        foreign: Decodes formats that TensorFlow does not support, from their bytes to uint8 ``[h, w, 3]``, upright. None: such a file
            is an error.
        size: Height and width to which the caller resizes the part that ``window`` keeps. A JPEG's part of at least 2 · `FINENESS` times
            this size is decoded at a half, a quarter or an eighth of its size. Its edges are then rounded to whole pixels of that scale.
            None, or no window: full size.

    Returns:
        uint8 ``[height, width, channels]``, height and width unknown to the graph.

    Raises:
        InputError: ``channels`` is not 1 or 3.
        tf.errors.InvalidArgumentError: Raised at run time: the bytes are not an image, or the image is truncated.
    """
    import tensorflow as tf

    if channels not in (1, 3):
        raise InputError(f"channels={channels}: images have 1 (grey) or 3 (RGB) channels.")
    contents = tf.convert_to_tensor(contents)
    is_jpeg = tf.strings.substr(contents, 0, 2) == b"\xff\xd8"

    def rest() -> tf.Tensor:
        part = window
        if part is None:
            return _decoder(foreign)(contents)
        return tf.cond(
            is_jpeg,
            lambda: _decode_jpeg(contents, part, orientation.of(contents), size),
            lambda: cut(_decoder(foreign)(contents), part),
        )

    # Not inlined: the operations of a branch take time even if the branch is not taken.
    if window is not None and not tf.executing_eagerly():
        rest = tf.function(rest, autograph=False, experimental_attributes={"_noinline": True})
    plain = is_jpeg & ~orientation.may_have(contents, jpeg=True)
    image = tf.cond(plain, lambda: _decode_jpeg(contents, window, size=size), rest)
    return convert_channels(tf.ensure_shape(image, [None, None, 3]), channels)


@functools.cache
def _decoder(foreign: Callable[[Any], tf.Tensor] | None) -> Callable[[Any], tf.Tensor]:
    """A function from the bytes of a file to upright RGB. It is a graph, created once and never inlined."""
    import tensorflow as tf

    return tf.function(
        lambda contents: tf.ensure_shape(_decode_all(contents, foreign), [None, None, 3]),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


_UNKNOWN, _COMMON, _BMP, _CHANNELS, _JPEG = range(5)
# Decoders by the first two bytes of a file. The first entry is used for all other files.
_STARTS = {
    -1: _UNKNOWN,
    0xFFD8: _JPEG,
    0x8950: _COMMON,  # PNG
    0x4749: _COMMON,  # GIF
    0x424D: _BMP,
    0x5249: _CHANNELS,  # WebP, in RIFF
    0xFF0A: _CHANNELS,  # JPEG XL
    0x0000: _CHANNELS,  # JPEG XL in boxes; AVIF and JPEG 2000 use boxes too
}


def _decode_all(contents: tf.Tensor, foreign: Callable[[Any], tf.Tensor] | None) -> tf.Tensor:
    """Decode a file of any kind to upright RGB."""
    import tensorflow as tf

    first = tf.io.decode_raw(tf.strings.substr(contents, 0, 2), tf.uint16, fixed_length=2, little_endian=False)
    matches = tf.cast(first, tf.int32) == [*_STARTS]
    kind = tf.gather([*_STARTS.values()], tf.argmax(tf.cast(matches, tf.int32)))
    unknown = foreign or _decode_common

    def turned() -> tf.Tensor:
        image = _decode_channels(contents, unknown)
        return tf.cond(
            orientation.may_have(contents),
            lambda: orientation.upright(image, orientation.of(contents)),
            lambda: image,
        )

    branches = (
        lambda: unknown(contents),
        lambda: _decode_common(contents),
        lambda: _decode_bmp(contents),
        turned,
        lambda: _decode_jpeg(contents, None, orientation.of(contents)),
    )
    may_turn = (kind == _COMMON) & orientation.may_have(contents)
    return tf.switch_case(tf.where(may_turn, _CHANNELS, kind), branches)


def _decode_jpeg(
    contents: tf.Tensor, window: Window | None, turn: tf.Tensor | None = None, size: tuple[int, int] | None = None
) -> tf.Tensor:
    """Decode a JPEG or its window to RGB, turned upright if a turn is given. `decode` explains ``size``."""
    import tensorflow as tf

    # The accurate transform costs little and matches PIL and torch bit for bit. Decode to RGB even for grey:
    # the library cannot convert CMYK to grey.
    if window is None:
        image = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")
        return image if turn is None else orientation.upright(image, turn)
    height, width = tf.unstack(tf.io.extract_jpeg_shape(contents)[:2])
    if turn is not None:
        height, width = orientation.upright_size(height, width, turn)
    kept = window(height, width)
    part = tf.stack(kept) if turn is None else orientation.stored_window(kept, height, width, turn)

    def crop() -> tf.Tensor:
        return tf.io.decode_and_crop_jpeg(contents, part, channels=3, dct_method="INTEGER_ACCURATE")

    if size is None:
        image = crop()
    else:
        larger = tf.minimum(kept[2] // (FINENESS * size[0]), kept[3] // (FINENESS * size[1]))
        image = tf.cond(larger >= 2, lambda: _reduced(contents, part, larger), crop)
    return image if turn is None else orientation.upright(image, turn)


def _reduced(contents: tf.Tensor, part: tf.Tensor, larger: tf.Tensor) -> tf.Tensor:
    """Decode a part of a JPEG at the smallest of its half, quarter and eighth size that is at least one ``larger``-th of its size."""
    import tensorflow as tf

    def reduced(ratio: int) -> tf.Tensor:
        image = tf.io.decode_jpeg(contents, channels=3, ratio=ratio, dct_method="INTEGER_ACCURATE")
        first, last = part[:2] // ratio, (part[:2] + part[2:]) // ratio
        return image[first[0] : last[0], first[1] : last[1]]

    index = tf.cast(larger >= 4, tf.int32) + tf.cast(larger >= 8, tf.int32)
    return tf.switch_case(index, [functools.partial(reduced, ratio) for ratio in (2, 4, 8)])


def _decode_common(contents: tf.Tensor) -> tf.Tensor:
    """Decode a PNG or GIF to RGB; raise the error for bytes that are not an image."""
    import tensorflow as tf

    return tf.io.decode_image(contents, channels=3, expand_animations=False)


def _decode_channels(contents: tf.Tensor, unknown: Callable[[Any], tf.Tensor]) -> tf.Tensor:
    """Decode a still WebP, JPEG XL, PNG or GIF to RGB; call ``unknown`` for other files that start with the same bytes."""
    import tensorflow as tf

    head = tf.io.decode_raw(tf.strings.substr(contents, 0, 21), tf.uint8, fixed_length=21)
    # TensorFlow 2.21 decodes an animated WebP of three channels into four, beyond the end of the allocated memory.
    moving = tf.reduce_all(head[12:16] == list(b"VP8X")) & (tf.bitwise.bitwise_and(head[20], 2) > 0)
    boxes = tf.reduce_all(head[4:8] == list(b"ftyp")) | tf.reduce_all(head[4:8] == list(b"jP  "))
    # These decoders return the file's own channels, or none.
    return tf.cond(
        moving | boxes,
        lambda: unknown(contents),
        lambda: convert_channels(tf.io.decode_image(contents, channels=0, expand_animations=False), 3),
    )


def _decode_bmp(contents: tf.Tensor) -> tf.Tensor:
    """Decode a BMP with 8, 24 or 32 bits per pixel to RGB. TensorFlow returns indices for 8 bits, so the palette is applied here."""
    import tensorflow as tf

    header = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 0, 54), tf.uint8), tf.int32)
    image = tf.io.decode_bmp(contents, channels=0)

    def look_up():
        first = 14 + header[14]  # after the file header and the image header, whose first byte is its length
        # Fixed length, because a palette may have fewer than 256 colours.
        palette = tf.io.decode_raw(tf.strings.substr(contents, first, 1024), tf.uint8, fixed_length=1024)
        return tf.gather(tf.reshape(palette, [256, 4])[:, 2::-1], tf.cast(image[..., 0], tf.int32))

    return tf.cond(header[28] == 8, look_up, lambda: convert_channels(image, 3))


def cut(image: tf.Tensor, window: Window) -> tf.Tensor:
    """The part of ``image`` ``[h, w, c]`` that ``window`` chooses."""
    import tensorflow as tf

    shape = tf.shape(image)
    top, left, height, width = window(shape[0], shape[1])
    part = image[top : top + height, left : left + width]
    part.set_shape([None, None, image.shape[-1]])
    return part
