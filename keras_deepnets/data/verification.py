"""Reading image files once: every one is decoded, the broken ones are found, and what fits stays in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_deepnets.data import transforms
from keras_deepnets.data.stores import ArrayPixels, FilePixels, PackedPixels

MEMORY_BUDGET = 1 << 30
"""Bytes of decoded images that are kept in memory."""

DECODE_LIMIT = 2 << 30
"""Bytes of files up to which each is decoded to verify it; of more only beginning and end are looked at."""

Pixels = ArrayPixels | PackedPixels | FilePixels


def read(paths: Sequence[str], sizes: Sequence[int]) -> tuple[Pixels, np.ndarray]:
    """Opens image files.

    Args:
        paths: the files.
        sizes: their sizes in bytes.

    Returns:
        Their pixels (RGB), decoded and in memory if they fit, row i being ``paths[i]``; and which files are broken,
        bool ``[n]`` (their rows must not be used).
    """
    if sum(sizes) > DECODE_LIMIT:
        with ThreadPoolExecutor(32) as threads:
            broken = np.fromiter((not good for good in threads.map(looks_whole, paths)), bool, len(paths))
        return FilePixels(np.asarray(paths, object)), broken
    # Photographs shrink about twelvefold as JPEG: pass some 32 MiB of pixels on at a time.
    batch_size = int(np.clip((32 << 20) // (12 * np.mean(sizes) + 1), 1, 256))
    return _decode(paths, batch_size)


def _decode(paths: Sequence[str], batch_size: int) -> tuple[Pixels, np.ndarray]:
    import tensorflow as tf

    def load(index, path):
        image = transforms.decode(tf.io.read_file(path))
        return index, tf.shape(image), tf.reshape(image, [-1])

    files = tf.data.Dataset.from_tensor_slices(tf.constant(list(paths), tf.string)).enumerate()
    images = files.map(load, tf.data.AUTOTUNE, deterministic=False).ignore_errors().ragged_batch(batch_size).prefetch(2)
    shapes = np.zeros((len(paths), 3), np.int32)
    broken = np.ones(len(paths), bool)
    chunks, total = [], 0
    for index, shape, values in images:
        index = index.numpy()
        shapes[index], broken[index] = shape.numpy(), False
        total += int(values.values.shape[0])
        if total <= MEMORY_BUDGET:
            chunks.append((index, values.values.numpy()))
        else:
            chunks.clear()
    if total > MEMORY_BUDGET:
        return FilePixels(np.asarray(paths, object)), broken
    return _pack(chunks, shapes), broken


def _pack(chunks: list[tuple[np.ndarray, np.ndarray]], shapes: np.ndarray) -> Pixels:
    """Puts decoded images, which came in any order, into their rows; frees the chunks as it goes."""
    sizes = np.unique(shapes[shapes[:, 0] > 0], axis=0)
    if len(sizes) == 1:  # one size: an array, in which a broken file is a black image that nobody uses
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
    """Whether a file begins as an image and, where the format says how, ends as one: the quick check of large sets."""
    try:
        with Path(path).open("rb") as file:
            head = file.read(8)
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
    return head.startswith(b"BM")
