"""EXIF orientation: read it from a file and turn the image upright.

All steps are TensorFlow operations, so that an exported graph turns images as the data pipeline does. A missing or damaged EXIF
block means orientation 1 (upright). It is never an error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

UPRIGHT = 1

# For each orientation: whether to swap rows and columns, then whether to reverse the rows, and whether to reverse the columns.
_TURNS = ((0, 0, 0), (0, 0, 0), (0, 0, 1), (0, 1, 1), (0, 1, 0), (1, 0, 0), (1, 0, 1), (1, 1, 1), (1, 1, 0))

_ANY = -1  # matches any byte in the patterns below
_JPEG = 0
# For JPEG, PNG and WebP: the file's first bytes, the first bytes of an EXIF segment, and the position of the first segment.
_FILES = ((0xFF, 0xD8), b"\x89PNG\r\n\x1a\n", (*b"RIFF", _ANY, _ANY, _ANY, _ANY, *b"WEBP"))
_EXIF = ((0xFF, 0xE1, _ANY, _ANY, *b"Exif\0\0"), (_ANY, _ANY, _ANY, _ANY, *b"eXIf"), b"EXIF")
_FIRST = (2, 8, 12)
# Weights of a segment's first bytes in its length, and the offset of its contents.
_LENGTHS = ((0, 0, 1 << 8, 1), (1 << 24, 1 << 16, 1 << 8, 1), (0, 0, 0, 0, 1, 1 << 8, 1 << 16, 1 << 24))
_CONTENTS = (4, 8, 8)
_ITSELF = (2, 0, 0)  # the length of a JPEG segment includes the length field
_AFTER = (0, 4, 0)  # a PNG chunk ends with a checksum
_PADDING = (0, 0, 1)  # a WebP chunk of odd length is padded

_HEAD = 12  # bytes read from each segment
_STEPS = 4096  # segments to inspect: a file with millions of empty ones must not keep a server busy

_TAG, _SHORT, _LONG = 0x0112, 3, 4
_ENTRY = 12  # bytes of a directory entry: tag, type, count, value
# Byte ranges of the fields of an entry: tag, type, count, value of a SHORT, value of a LONG.
_FIELDS = ((0, 2), (2, 4), (4, 8), (8, 10), (8, 12))


def may_have(contents: Any, jpeg: bool = False) -> tf.Tensor:
    """Whether a file may hold an EXIF block, bool ``[]``. The test is fast and never misses one.

    Args:
        contents: Bytes of the file, string ``[]``.
        jpeg: Whether the answer is needed for a JPEG only. The search is then several times as fast.
    """
    import tensorflow as tf

    # The marker is "Exif" in JPEG, "eXIf" in PNG and "EXIF" in WebP. One operation searches the bytes for all three.
    marker = "Exif" if jpeg else "(?i)exif"
    without = tf.strings.regex_replace(contents, marker, "", replace_global=False)
    return tf.not_equal(tf.strings.length(without), tf.strings.length(contents))


def of(contents: Any) -> tf.Tensor:
    """The orientation from the EXIF block of a JPEG, PNG or WebP file, int32 ``[]`` from 1 to 8. It is 1 without such a block.

    Args:
        contents: Bytes of the file, string ``[]``.
    """
    return _graph()(contents)


@functools.cache
def _graph() -> Callable[[Any], tf.Tensor]:
    """`of` as a graph, created once and never inlined, because most files do not need it."""
    import tensorflow as tf

    return tf.function(
        lambda contents: _of_block(_block(contents)),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
        experimental_attributes={"_noinline": True},
    )


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turn an image ``[h, w, c]`` upright, as Pillow's ``ImageOps.exif_transpose`` does."""
    import tensorflow as tf

    swap, rows, columns = _turn(orientation)
    channels = image.shape[-1]
    # Both operations return the image unchanged if it is already upright. A slice with negative steps takes ten times as long.
    image = tf.transpose(image, tf.stack([swap, 1 - swap, 2]))
    image = tf.raw_ops.Reverse(tensor=image, dims=tf.stack([rows > 0, columns > 0, False]))
    return tf.ensure_shape(image, [None, None, channels])


def upright_size(height: Any, width: Any, orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width of the upright image, from those of the stored image."""
    import tensorflow as tf

    swapped = orientation >= 5
    return tf.where(swapped, width, height), tf.where(swapped, height, width)


def stored_window(window: tuple[Any, ...], height: Any, width: Any, orientation: tf.Tensor) -> tf.Tensor:
    """Map a window of the upright image to the stored image.

    Args:
        window: Top, left, height and width of the window, int32, in pixels of the upright image.
        height: Height of the upright image.
        width: Width of the upright image.
        orientation: int32 ``[]``.

    Returns:
        Top, left, height and width in the stored image, int32 ``[4]``.
    """
    import tensorflow as tf

    swap, reversed_rows, reversed_columns = _turn(orientation)
    top, left, rows, columns = window
    top = tf.where(reversed_rows > 0, height - top - rows, top)
    left = tf.where(reversed_columns > 0, width - left - columns, left)
    return tf.where(swap > 0, tf.stack([left, top, columns, rows]), tf.stack([top, left, rows, columns]))


def _turn(orientation: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """Whether to swap the axes, reverse the rows and reverse the columns: each 0 or 1, int32."""
    import tensorflow as tf

    return tuple(tf.unstack(tf.gather(tf.constant(_TURNS, tf.int32), orientation)))


def _bytes(contents: tf.Tensor, start: tf.Tensor, count: int) -> tf.Tensor:
    """`count` bytes from `start` on, int64 ``[count]``; zeros beyond the end."""
    import tensorflow as tf

    start = tf.minimum(start, tf.cast(tf.strings.length(contents), tf.int64))
    part = tf.strings.substr(contents, start, np.int64(count))
    return tf.cast(tf.io.decode_raw(part, tf.uint8, fixed_length=count), tf.int64)


def _table(rows: tuple, fill: int) -> np.ndarray:
    """Rows of up to `_HEAD` numbers as int64 ``[n, _HEAD]``."""
    return np.array([[*row, *[fill] * (_HEAD - len(row))] for row in rows], np.int64)


def _matches(head: tf.Tensor, patterns: tuple) -> tf.Tensor:
    """The patterns that a head starts with, bool ``[n]``."""
    import tensorflow as tf

    table = _table(patterns, _ANY)
    return tf.reduce_all((head == table) | (table == _ANY), axis=1)


def _block(contents: tf.Tensor) -> tf.Tensor:
    """The EXIF block of a file from its TIFF header on, string ``[]``; empty if there is none."""
    import tensorflow as tf

    end = tf.cast(tf.strings.length(contents), tf.int64)
    zero = np.int64(0)
    formats = _matches(_bytes(contents, zero, _HEAD), _FILES)
    kind = tf.argmax(tf.cast(formats, tf.int32))
    rows = (_CONTENTS, _ITSELF, _AFTER, _PADDING)
    contents_at, itself, after, padding = (tf.gather(np.array(row, np.int64), kind) for row in rows)
    weights = tf.gather(_table(_LENGTHS, 0), kind)

    def searches(place: tf.Tensor, begin: tf.Tensor, length: tf.Tensor, steps: tf.Tensor) -> tf.Tensor:
        return (place < end) & (begin == 0) & (steps < _STEPS)

    def look(place: tf.Tensor, begin: tf.Tensor, length: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, ...]:
        head = _bytes(contents, place, _HEAD)
        length = tf.reduce_sum(head * weights) - itself
        onward = place + contents_at + length + after + length % 2 * padding
        # A JPEG marker may follow any number of 0xFF bytes. The compressed image after 0xDA has no segments.
        marker = head[1]
        ended = (head[0] != 0xFF) | (marker == 0xD9) | (marker == 0xDA)
        in_jpeg = tf.where(ended, end, tf.where(marker == 0xFF, place + 1, tf.maximum(onward, place + 2)))
        begin = tf.where(tf.gather(_matches(head, _EXIF), kind), place + contents_at, zero)
        return tf.where(kind == _JPEG, in_jpeg, onward), begin, length, steps + 1

    first = tf.where(tf.reduce_any(formats), tf.gather(np.array(_FIRST, np.int64), kind), end)
    _, begin, length, _ = tf.while_loop(searches, look, (first, tf.zeros_like(end), tf.zeros_like(end), tf.constant(0)))
    block = tf.strings.substr(contents, tf.minimum(begin, end), tf.where(begin > 0, tf.nn.relu(length), zero))
    # JPEG has this prefix, and some WebP writers keep it.
    prefixed = tf.strings.substr(block, 0, 6) == b"Exif\0\0"
    return tf.strings.substr(block, tf.where(prefixed, 6, 0), tf.strings.length(block))


def _of_block(block: tf.Tensor) -> tf.Tensor:
    """The orientation in an EXIF block, which is a TIFF file without pixels. Truncated entries are ignored."""
    import tensorflow as tf

    head = _bytes(block, np.int64(0), 8)
    little = head[0] == ord("I")
    # Some writers swap the bytes of the number 42.
    known = (head[0] == head[1]) & (little | (head[0] == ord("M"))) & (head[2] + head[3] == 42)
    directory = tf.reduce_sum(head * _weights(((4, 8),), 8, little)[:, 0])
    count = tf.reduce_sum(_bytes(block, directory, 2) * _weights(((0, 2),), 2, little)[:, 0])
    start = tf.minimum(directory + 2, tf.cast(tf.strings.length(block), tf.int64))
    entries = tf.io.decode_raw(tf.strings.substr(block, start, count * _ENTRY), tf.uint8)
    whole = tf.size(entries) // _ENTRY
    entries = tf.cast(tf.reshape(entries[: whole * _ENTRY], [-1, _ENTRY]), tf.int64)
    fields = tf.matmul(entries, _weights(_FIELDS, _ENTRY, little))
    tag, kind, values, short, long = tf.unstack(fields, axis=1)
    value = tf.where(kind == _SHORT, short, long)
    states = (tag == _TAG) & ((kind == _SHORT) | (kind == _LONG)) & (values == 1) & (value >= 1) & (value <= 8)
    found = tf.concat([[np.int64(UPRIGHT)], tf.boolean_mask(value, states & known)], 0)
    return tf.cast(found[-1], tf.int32)


def _weights(fields: tuple[tuple[int, int], ...], size: int, little: tf.Tensor) -> tf.Tensor:
    """The weights of bytes in numbers, int64 ``[size, fields]``, for a byte order.

    Args:
        fields: First byte of each number, and the byte after its last.
        size: Number of bytes.
        little: Whether the first byte is the least significant, bool ``[]``.
    """
    import tensorflow as tf

    big, small = np.zeros((2, size, len(fields)), np.int64)
    for column, (first, stop) in enumerate(fields):
        small[first:stop, column] = 256 ** np.arange(stop - first)
        big[first:stop, column] = small[first:stop, column][::-1]
    return tf.where(little, small, big)
