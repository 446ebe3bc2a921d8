"""Read image files once: decode each file, find the broken ones, and keep the pixels in memory if they fit."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.data import foreign, memory, parallel
from keras_deepnets.data.stores import ArrayPixels, FilePixels, PackedPixels, Pixels

if TYPE_CHECKING:
    import tensorflow as tf

MEMORY_BUDGET = memory.share(8, 1 << 30, 16 << 30)
"""Bytes of decoded images to keep in memory."""

DECODE_LIMIT = 2 << 30
"""Total bytes of files up to which each file is decoded to verify it. For larger data only the start and end are checked."""

_SMALL_FILE = 1 << 14
# BMP; JPEG XL; TIFF in either byte order; JPEG 2000; PBM, PGM and PPM as text and in bytes.
_STARTS = (b"BM", b"\xff\x0a", b"II*\0", b"MM\0*", b"\xff\x4f\xff\x51", *(b"P%d" % number for number in range(1, 7)))
_BOXES = (b"JXL ", b"ftyp", b"jP  ")  # JPEG XL, AVIF and JPEG 2000
_BATCH = 128


def read(paths: Sequence[str], sizes: Sequence[int]) -> tuple[Pixels, np.ndarray]:
    """Open image files.

    Args:
        paths: The files.
        sizes: Their sizes in bytes.

    Returns:
        The RGB pixels of the files, decoded in memory if they fit; row i is ``paths[i]``. And a mask of broken files, bool ``[n]``,
        whose rows must not be used.
    """
    if sum(sizes) > DECODE_LIMIT:
        with ThreadPoolExecutor(32) as threads:
            broken = np.fromiter((not good for good in threads.map(looks_whole, paths)), bool, len(paths))
        return FilePixels(np.asarray(paths, object)), broken
    return _decode(paths, _BATCH if np.mean(sizes) < _SMALL_FILE else None)


def _decode(paths: Sequence[str], batch_size: int | None) -> tuple[Pixels, np.ndarray]:
    """Decode all files, and keep the pixels until they exceed the budget."""
    shapes = np.zeros((len(paths), 3), np.int32)
    broken = np.ones(len(paths), bool)
    chunks, total = [], 0
    for rows, some_shapes, pixels in _decoded(paths, batch_size):
        shapes[rows], broken[rows] = some_shapes, False
        total += int(pixels.shape[0])
        if total <= MEMORY_BUDGET:
            chunks.append((rows, pixels.numpy()))
        else:
            chunks.clear()
    if total > MEMORY_BUDGET:
        return FilePixels(np.asarray(paths, object)), broken
    return _pack(chunks, shapes), broken


def _decoded(paths: Sequence[str], batch_size: int | None) -> Iterator[tuple[np.ndarray, np.ndarray, tf.Tensor]]:
    """Rows, shapes ``[n, 3]`` and all pixels of the images that can be decoded, in any order, one or more images per item."""
    import tensorflow as tf

    def load(row, path):
        image = foreign.decode(tf.io.read_file(path))
        return row, tf.shape(image), tf.reshape(image, [-1])

    files = tf.data.Dataset.from_tensor_slices(tf.constant(list(paths), tf.string)).enumerate()
    images = files.map(load, parallel.calls(), deterministic=False).ignore_errors().with_options(parallel.options())
    if batch_size is None:
        for row, shape, pixels in images:
            yield row.numpy()[None], shape.numpy()[None], pixels
    else:  # for small images the Python overhead would exceed the decoding
        for rows, shape, pixels in images.ragged_batch(batch_size).prefetch(2):
            yield rows.numpy(), shape.numpy(), pixels.values


def _pack(chunks: list[tuple[np.ndarray, np.ndarray]], shapes: np.ndarray) -> Pixels:
    """Put decoded images into their rows and free each chunk afterwards. The images come in any order."""
    sizes = np.unique(shapes[shapes[:, 0] > 0], axis=0)
    if len(sizes) == 1:  # one size: use an array, in which a broken file is an unused black image
        images = np.zeros((len(shapes), *sizes[0]), np.uint8)
        while chunks:
            rows, pixels = chunks.pop()
            images[rows] = pixels.reshape(-1, *sizes[0])
        return ArrayPixels(images)
    lengths = shapes.astype(np.int64).prod(axis=1)
    ends = np.cumsum(lengths)
    values = np.empty(int(ends[-1]), np.uint8)
    while chunks:
        rows, pixels = chunks.pop()
        start = 0
        for row in rows:
            values[ends[row] - lengths[row] : ends[row]] = pixels[start : start + lengths[row]]
            start += lengths[row]
    return PackedPixels(values, shapes, 3)


def looks_whole(path: str) -> bool:
    """Whether a file starts like an image and, if the format allows the test, ends like one: the quick check of large data sets."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(16)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 64))
            tail = file.read().rstrip(b"\0")
    except OSError:
        return False
    if head.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" in tail
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return b"IEND" in tail
    if head.startswith(b"GIF8"):
        return tail.endswith(b";")
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP" and size >= 8 + int.from_bytes(head[4:8], "little")
    if head[4:8] in _BOXES:
        return True
    return head.startswith(_STARTS)
