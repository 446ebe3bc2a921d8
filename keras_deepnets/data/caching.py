"""Cache of resized images on disk, for data sets that do not fit in memory: each image is decoded once, in the first epoch."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.data import decoding
from keras_deepnets.data.stores import IndexedStore, Pixels, Shape
from keras_deepnets.files import keras_home

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_deepnets.data.pipelines import View

DISK_BUDGET = 64 << 30
"""Bytes that the images of one data set may take on disk. At most half of the free space is used."""


@dataclass(frozen=True, eq=False)
class CachedPixels:
    """The images of ``source`` at the view's size. A repeated read comes from the cache instead of the decoder.

    The file has no name. It disappears with the process, however the process ends, so it cannot become stale or be left behind.
    """

    source: Pixels
    view: View
    images: np.ndarray = field(repr=False)
    present: np.ndarray = field(repr=False)
    in_memory = False

    @property
    def image_shape(self) -> Shape:
        """The view's height, width and channels."""
        return self.view.shape

    def payload(self, row: tf.Tensor) -> tf.Tensor:
        """Image number ``row``."""
        import tensorflow as tf

        def opened() -> tf.Tensor:
            image = self.view(self.source.open(self.source.payload(row)))
            return tf.numpy_function(self._keep, [row, image], tf.uint8)

        present, image = tf.numpy_function(
            lambda row: (self.present[row], self.images[row]), [row], (tf.bool, tf.uint8)
        )
        return tf.ensure_shape(tf.cond(tf.ensure_shape(present, []), lambda: image, opened), self.image_shape)

    def _keep(self, row: np.ndarray, image: np.ndarray) -> np.ndarray:
        self.images[row] = image
        self.present[row] = True  # after the pixels: a concurrent reader at worst decodes the image again
        return image

    def open(
        self, payload: Any, window: decoding.Window | None = None, size: tuple[int, int] | None = None
    ) -> tf.Tensor:
        """Return the payload, which is the image."""
        return payload if window is None else decoding.cut(payload, window)


def scratch() -> tuple[Path, int]:
    """The folder for unnamed files, created if missing, and the number of bytes that one file may take.

    Raises:
        OSError: The folder cannot be created.
        RuntimeError: The home folder is unknown.
    """
    folder = keras_home() / "datasets" / "keras_deepnets"  # the system's temporary folder is often in memory
    folder.mkdir(parents=True, exist_ok=True)
    return folder, min(DISK_BUDGET, shutil.disk_usage(folder).free // 2)


def on_disk(store: IndexedStore, view: View) -> IndexedStore:
    """The store's examples with a disk cache, or the store itself if the disk has no room for one."""
    count = int(store.rows.max()) + 1
    size = count * math.prod(view.shape)
    try:
        folder, room = scratch()
        if size > room:
            return store
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # otherwise a disk that fills up later would kill the process
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            images = np.memmap(file, np.uint8, "r+", shape=(count, *view.shape))
    except (OSError, RuntimeError):  # no space, not writable or no home folder: decode the images each time
        return store
    return replace(store, pixels=CachedPixels(store.pixels, view, images, np.zeros(count, bool)))
