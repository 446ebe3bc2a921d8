"""Decoded images by number, kept after the first use: in memory if they fit, otherwise on disk, otherwise not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.data import caching, foreign, parallel, verification
from keras_deepnets.detection.data.images import ImageSource

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True, eq=False)
class Cache:
    """Decoded images one after the other in one buffer.

    Attributes:
        values: uint8 ``[sum of h·w·3]``, in memory or a `numpy.memmap` of a file without a name.
        starts: Offset of each image, int64 ``[n]``.
        shapes: Height and width of each image, int64 ``[n, 2]``.
        present: Whether the image was decoded already, bool ``[n]``.
    """

    values: np.ndarray = field(repr=False)
    starts: np.ndarray = field(repr=False)
    shapes: np.ndarray = field(repr=False)
    present: np.ndarray = field(repr=False)

    def image(self, row: int) -> np.ndarray:
        """Image number ``row``, uint8 ``[h, w, 3]``; without rows if it is not present."""
        height, width = self.shapes[row].tolist() if self.present[row] else (0, 0)
        start = int(self.starts[row])
        return self.values[start : start + height * width * 3].reshape(height, width, 3)

    def keep(self, row: int, image: np.ndarray) -> np.ndarray:
        """Store an image and return it."""
        start = int(self.starts[row])
        self.values[start : start + image.size] = image.ravel()
        self.present[row] = True  # after the pixels: a concurrent reader at worst decodes the image again
        return image


@dataclass(frozen=True, eq=False)
class Images:
    """The images of a data set.

    Attributes:
        sources: Places of the encoded images.
        shapes: Height and width of each image, int64 ``[n, 2]``.
        cached: Whether to keep decoded images.
    """

    sources: Sequence[ImageSource] = field(repr=False)
    shapes: np.ndarray = field(repr=False)
    cached: bool = True

    @cached_property
    def cache(self) -> Cache | None:
        """The buffer of decoded images, or None if neither memory nor disk has room for it."""
        lengths = self.shapes.prod(axis=1) * 3
        values = _buffer(int(lengths.sum())) if self.cached else None
        if values is None:
            return None
        return Cache(values, np.cumsum(lengths) - lengths, self.shapes, np.zeros(len(lengths), bool))

    def load(self, row: tf.Tensor) -> tf.Tensor:
        """Image number ``row``, uint8 ``[h, w, 3]``, as a TensorFlow operation."""
        import tensorflow as tf

        cache = self.cache
        if cache is None:
            return self._decoded(row)
        kept = tf.numpy_function(cache.image, [row], tf.uint8)

        def decoded() -> tf.Tensor:
            return tf.numpy_function(cache.keep, [row, self._decoded(row)], tf.uint8)

        image = tf.cond(tf.size(kept) > 0, lambda: kept, decoded)
        return tf.ensure_shape(image, [None, None, 3])

    def decodable(self) -> list[int]:
        """The numbers of the images that can be decoded to the size in their header."""
        import tensorflow as tf

        shapes = tf.constant(self.shapes)

        def right(row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            size = tf.shape(self.load(row), tf.int64)[:2]
            return row, tf.reduce_all(size == shapes[row])

        rows = tf.data.Dataset.range(len(self.sources)).map(right, parallel.calls()).ignore_errors()
        rows = rows.with_options(parallel.options())
        return [int(row) for row, good in rows.as_numpy_iterator() if good]

    def _decoded(self, row: tf.Tensor) -> tf.Tensor:
        return foreign.decode(self._contents(row))

    def _contents(self, row: tf.Tensor) -> tf.Tensor:
        """The bytes of an image. TensorFlow reads whole files, Python ranges of record files."""
        import tensorflow as tf

        if self._paths is not None:
            return tf.io.read_file(self._paths[row])
        contents = tf.numpy_function(lambda index: self.sources[index].read(), [row], tf.string)
        return tf.ensure_shape(contents, [])

    @cached_property
    def _paths(self) -> tf.Tensor | None:
        import tensorflow as tf

        if not all(source.is_file for source in self.sources):
            return None
        with tf.init_scope(), tf.device("CPU:0"):  # create it outside the graph that asks for it first
            return tf.constant([source.path for source in self.sources], tf.string)


def _buffer(size: int) -> np.ndarray | None:
    """A buffer for decoded images in memory or on disk, or None without room for it."""
    if size <= verification.MEMORY_BUDGET:
        return np.empty(size, np.uint8)
    try:
        folder, room = caching.scratch()
        if size > room:
            return None
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # otherwise a disk that fills up later would kill the process
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return np.memmap(file, np.uint8, "r+", shape=(size,))
    except (OSError, RuntimeError):  # no space, not writable or no home folder: decode the images each time
        return None
