"""Decode encoded images from untrusted clients: check them first, and isolate broken images from the rest of the batch.

The checks are part of the graph, because a server runs nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

MAX_PIXELS = 50_000_000
"""Default limit on the pixels of an image: 150 MB of RGB."""
MAX_SIDE = 65_535
"""Limit on either side of an image. JPEG cannot express more, and sizes are multiplied in 32 bits."""
KINDS = "JPEG, PNG, BMP, GIF or WebP"
"""Formats that exported graphs decode. A JPEG XL header does not limit the memory for its frames. Animated WebP is unsupported."""

_AT_ONCE = 4  # images decoded in parallel; each may take as much memory as the limit allows
_HEADER = 32  # bytes that contain the sizes of PNG, BMP, GIF and WebP
_GIF_STEPS = 65_536  # blocks to inspect: 16 MB if they are full


def checked(contents: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Return the same bytes after a check of the size in the header.

    Args:
        contents: An encoded image, string ``[]``.
        max_pixels: Limit on height times width. For a GIF the limit is on all frames together, because the decoder reads them all.

    Raises:
        tf.errors.InvalidArgumentError: Raised at run time: the format is not supported, or the image has no pixels or too many.
    """
    import tensorflow as tf

    # Padded with zeros if the file is shorter.
    header = tf.io.decode_raw(tf.strings.substr(contents, 0, _HEADER), tf.uint8, fixed_length=_HEADER)
    header = tf.cast(header, tf.int64)

    def number(start: int, size: int, big_endian: bool = False) -> tf.Tensor:
        weights = [256**place for place in range(size)]
        return tf.reduce_sum(header[start : start + size] * (weights[::-1] if big_endian else weights))

    def at(place: int, *magic: int) -> tf.Tensor:
        return tf.reduce_all(header[place : place + len(magic)] == list(magic))

    def begins(*magic: int) -> tf.Tensor:
        return at(0, *magic)

    def jpeg() -> tuple[tf.Tensor, ...]:
        height, width, _ = tf.unstack(tf.cast(tf.io.extract_jpeg_shape(contents), tf.int64))
        return height, width, height * width

    def png() -> tuple[tf.Tensor, ...]:
        width, height = number(16, 4, big_endian=True), number(20, 4, big_endian=True)
        return height, width, height * width

    def bmp() -> tuple[tf.Tensor, ...]:
        width, height = number(18, 4), number(22, 4)
        height = tf.where(height >= 2**31, 2**32 - height, height)  # negative: rows from the top
        return height, width, height * width

    def gif() -> tuple[tf.Tensor, ...]:
        width, height = number(6, 2), number(8, 2)
        return height, width, tf.maximum(height * width, _gif_pixels(contents, max_pixels))

    def webp() -> tuple[tf.Tensor, ...]:
        lossless = number(21, 4)  # 14 bits each: width - 1, height - 1
        sides = tf.case(
            [
                (at(12, *b"VP8 "), lambda: (number(26, 2) % 2**14, number(28, 2) % 2**14)),
                (at(12, *b"VP8L"), lambda: (lossless % 2**14 + 1, lossless // 2**14 % 2**14 + 1)),
                (at(12, *b"VP8X"), lambda: (number(24, 3) + 1, number(27, 3) + 1)),
            ],
            default=lambda: (unknown, unknown),
        )
        return sides[1], sides[0], sides[0] * sides[1]

    unknown = tf.zeros([], tf.int64)
    height, width, pixels = tf.case(
        [
            (begins(0xFF, 0xD8, 0xFF), jpeg),
            (begins(0x89, *b"PNG\r\n\x1a\n"), png),
            (begins(*b"BM"), bmp),
            (begins(*b"GIF8"), gif),
            (begins(*b"RIFF") & at(8, *b"WEBP"), webp),
        ],
        default=lambda: (unknown, unknown, unknown),
        exclusive=False,
    )
    fits = (tf.minimum(height, width) > 0) & (tf.maximum(height, width) <= MAX_SIDE) & (pixels <= max_pixels)
    message = f"not a {KINDS} of at most {max_pixels} pixels"
    with tf.control_dependencies([tf.debugging.Assert(fits, [message])]):
        return tf.identity(contents)


def _gif_pixels(contents: tf.Tensor, enough: int) -> tf.Tensor:
    """Pixels of all frames of a GIF, int64 ``[]``. Counting stops above ``enough``; too many blocks also give more than ``enough``."""
    import tensorflow as tf

    data = tf.cast(tf.io.decode_raw(contents, tf.uint8), tf.int32)
    end = tf.size(data)

    def byte(position: tf.Tensor) -> tf.Tensor:
        return tf.where(position < end, data[tf.minimum(position, end - 1)], 0)

    def word(position: tf.Tensor) -> tf.Tensor:
        return byte(position) + 256 * byte(position + 1)

    def table(flags: tf.Tensor) -> tf.Tensor:
        """Bytes of the colour table that follows."""
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, tf.bitwise.bitwise_and(flags, 7)), 0)

    def goes_on(position: tf.Tensor, pixels: tf.Tensor, inside: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        return (position < end) & (pixels <= enough)

    def step(position: tf.Tensor, pixels: tf.Tensor, inside: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, ...]:
        first = byte(position)
        frame, extension = ~inside & (first == 0x2C), ~inside & (first == 0x21)
        area = tf.cast(word(position + 5), tf.int64) * tf.cast(word(position + 7), tf.int64)
        after_frame = position + 11 + table(byte(position + 9))  # the descriptor, its colour table and the code size
        beyond = tf.where(frame, after_frame, tf.where(extension, position + 2, end))
        too_many = tf.where(steps >= _GIF_STEPS, tf.constant(enough + 1, tf.int64), 0)
        return (
            tf.where(inside, position + 1 + first, beyond),
            pixels + tf.where(frame, area, 0) + too_many,
            tf.where(inside, first != 0, frame | extension),  # data blocks end with an empty one
            steps + 1,
        )

    start = 13 + table(byte(tf.constant(10)))
    return tf.while_loop(goes_on, step, (start, tf.zeros([], tf.int64), tf.constant(False), tf.constant(0)))[1]


def views(
    encoded: tf.Tensor, view: Callable[[tf.Tensor], tf.Tensor], shape: tuple[int, int, int]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a batch image by image.

    Args:
        encoded: Image files, string ``[n]``.
        view: Function from one image file, string ``[]``, to a network's input, uint8 of `shape`. It may raise at run time.
        shape: Height, width and channels.

    Returns:
        Images uint8 ``[n, *shape]``, black where `view` raised, and a mask bool ``[n]``, False where it raised.
    """
    import tensorflow as tf

    def of_shape(contents: tf.Tensor) -> tuple[tf.Tensor]:
        return (tf.ensure_shape(view(contents), shape),)

    (pixels,), good = each(encoded, of_shape, (tf.zeros(shape, tf.uint8),))
    return pixels, good


def each(
    encoded: tf.Tensor, function: Callable[[tf.Tensor], tuple[tf.Tensor, ...]], nothing: tuple[tf.Tensor, ...]
) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
    """Apply a function to each image file of a batch, and continue after errors.

    Args:
        encoded: Image files, string ``[n]``.
        function: Function from one image file, string ``[]``, to tensors. It may raise at run time.
        nothing: The tensors for an image whose function raised. Their dtypes and ranks are those of the function.

    Returns:
        The tensors of all images, with a first axis of n, padded with zeros to the largest. And a mask bool ``[n]``, which is False where
        `function` raised.
    """
    import tensorflow as tf

    count = tf.shape(encoded, out_type=tf.int64)[0]
    # A graph has no other way to continue after a failed operation.
    options = tf.data.Options()
    options.autotune.enabled = False  # a pipeline of one batch needs no tuning thread
    options.experimental_optimization.apply_default_optimizations = False
    images = tf.data.Dataset.range(count).map(
        lambda index: (index, *function(encoded[index])), num_parallel_calls=_AT_ONCE, deterministic=True
    )
    none = tf.data.Dataset.from_tensors((tf.constant(-1, tf.int64), *nothing))
    together = images.ignore_errors().concatenate(none)
    known = all(spec.shape.is_fully_defined() for spec in together.element_spec)
    whole = (together.batch if known else together.padded_batch)(count + 1).with_options(options)
    indices, *values = whole.get_single_element()
    row = tf.range(tf.size(indices) - 1)
    # Store the row plus one, so that 0 marks missing images.
    rows = tf.scatter_nd(indices[:-1, tf.newaxis], row + 1, [count])
    good = rows > 0
    rows = tf.where(good, rows - 1, tf.size(indices) - 1)
    return tuple(tf.gather(value, rows) for value in values), good


def require_all(good: tf.Tensor, max_pixels: int = MAX_PIXELS) -> tf.Operation:
    """Fail with the index of the first image that is not good.

    Args:
        good: bool ``[n]``: whether each image could be decoded.
        max_pixels: Limit on pixels, for the message.
    """
    import tensorflow as tf

    index = tf.argmin(tf.cast(tf.concat([good, [False]], 0), tf.int32))
    text = f"image_bytes[{{}}] is not a {KINDS} of at most {max_pixels} pixels that can be decoded"
    return tf.debugging.Assert(tf.reduce_all(good), [tf.strings.format(text, index)])
