"""Collect images one after the other as uint8: in memory up to a budget, in an unnamed file above it."""

from __future__ import annotations

import hashlib
import tempfile
from typing import IO

import numpy as np

from keras_deepnets.data import caching, verification
from keras_deepnets.data.stores import ArrayPixels, DiskPixels, PackedPixels, empty
from keras_deepnets.errors import InputError

AT_ONCE = 256
"""Number of images to convert at once."""


class Converter:
    """Converts images of any numeric type to uint8 and rejects values outside 0–255.

    Args:
        name: Name of the images, for messages.
        remedy: Expression that scales 0–1 to 0–255, for messages.
    """

    def __init__(self, name: str, remedy: str):
        self._name, self._remedy = name, remedy
        self._highest, self._seen = 0.0, 0
        self._type: np.dtype | None = None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Convert images ``[b, h, w, c]`` to uint8; fractional values are rounded.

        Raises:
            InputError: A value is outside 0–255, or no value in the first `AT_ONCE` images is above 1.
        """
        if images.dtype == np.uint8:
            return images
        if images.dtype.kind not in "biuf" and "float" not in images.dtype.name:
            raise InputError(
                f"{self._name}: images are {images.dtype}; decode them first, e.g. tf.io.decode_image(bytes, 3, expand_animations=False)."
            )
        self._type = images.dtype
        values = images if images.dtype.kind in "iu" else np.asarray(images, np.float32)
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 255):  # also catches NaN
            raise InputError(
                f"{self._name}: images are {images.dtype} with values from {low:g} to {high:g}, but must be RGB or grey 0–255. Undo "
                "any scaling (a network scales its input itself); clip values that a resize pushed out of range."
            )
        self._highest, self._seen = max(self._highest, high), self._seen + len(images)
        if self._seen >= AT_ONCE:
            self.finish()
        return (values if images.dtype.kind in "iu" else np.rint(values)).astype(np.uint8)

    def finish(self) -> None:
        """Raise InputError if no value was above 1: images of 0–255 that are not black have larger values."""
        if self._type is not None and self._highest <= 1:
            raise InputError(
                f"{self._name}: images are {self._type} and no value of the first {self._seen} is above {self._highest:g}: the values "
                f"seem to be 0–1. Scale them to 0–255: {self._remedy}. A network scales its input itself."
            )


class Collector:
    """Collects images in memory up to the budget, and in an unnamed file above it.

    Args:
        name: Name of the images, for messages.
        convert: Converter to uint8.
        sort: Whether to sort the images by the digests of their pixels instead of keeping their order.
    """

    def __init__(self, name: str, convert: Converter, *, sort: bool = False):
        self._name, self._convert, self._sort = name, convert, sort
        self._chunks: list[np.ndarray] = []
        self._shapes: list[tuple[int, ...]] = []
        self._digests: list[bytes] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._room = 0

    @property
    def size(self) -> int:
        """Number of images added so far."""
        return len(self._shapes)

    def add(self, images: np.ndarray) -> None:
        """Add images of equal size, ``[b, h, w, c]``."""
        images = self._convert(images)
        if self._shapes and images.shape[-1] != self._shapes[0][-1]:
            raise InputError(
                f"{self._name}: some images have {self._shapes[0][-1]} channels and others {images.shape[-1]}."
            )
        self._shapes += [images.shape[1:]] * len(images)
        if self._sort:
            images = np.ascontiguousarray(images)
            self._digests += [hashlib.blake2b(image, digest_size=16).digest() for image in images]
        self._bytes += images.nbytes
        if self._file is None and self._bytes > verification.MEMORY_BUDGET:
            self._spill()
        if self._file is None:
            self._chunks.append(images)
        else:
            self._write(self._file, images)

    def finish(self, labels: np.ndarray) -> tuple[ArrayPixels | PackedPixels, np.ndarray]:
        """Return the images, and their labels ``[n]`` in the same order."""
        if not self._shapes:
            raise InputError(f"{self._name}: no images; give at least one of each class.")
        self._convert.finish()
        count = len(self._shapes)
        if count != len(labels):
            raise InputError(f"{self._name}: {count:,} images and {len(labels):,} labels; give one label per image.")
        order = np.arange(count)
        if self._sort:
            keys = list(zip(self._digests, self._shapes, labels.tolist(), strict=True))
            order = np.array(sorted(range(count), key=keys.__getitem__), np.int64)
        return self._pixels(order), labels[order]

    def _pixels(self, order: np.ndarray) -> ArrayPixels | PackedPixels:
        shapes = np.array(self._shapes, np.int32)
        channels = int(shapes[0, -1])
        sizes = shapes.astype(np.int64).prod(axis=1)
        if self._file is not None:
            self._file.flush()
            starts = np.cumsum(sizes) - sizes
            return DiskPixels(np.memmap(self._file, np.uint8, "r"), shapes[order], channels, starts[order])
        starts = np.empty_like(sizes)
        starts[order] = np.cumsum(sizes[order]) - sizes[order]
        values, number = empty([self._bytes]), len(order)
        while self._chunks:  # frees each chunk after copying it
            for image in self._chunks.pop()[::-1]:
                number -= 1
                values[starts[number] : starts[number] + image.size] = image.ravel()
        if (shapes == shapes[0]).all():
            return ArrayPixels(values.reshape(len(order), *shapes[0]))
        return PackedPixels(values, shapes[order], channels)

    def _spill(self) -> None:
        """Move the images to a file, which disappears with the process, however the process ends."""
        try:
            folder, self._room = caching.scratch()
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - its pixels are mapped into memory
        except (OSError, RuntimeError) as error:
            raise self._too_large(str(error)) from error
        for images in self._chunks:
            self._write(self._file, images)
        self._chunks.clear()

    def _write(self, file: IO[bytes], images: np.ndarray) -> None:
        if self._bytes > self._room:
            raise self._too_large(f"at most {self._room / 1e9:.1f} GB may be stored on disk")
        try:
            file.write(np.ascontiguousarray(images).data)
        except OSError as error:
            raise self._too_large(str(error)) from error

    def _too_large(self, reason: str) -> InputError:
        return InputError(
            f"{self._name}: {self._bytes / 1e9:.1f} GB of pixels are too many ({reason}); give a folder of class folders, whose images "
            "are read during training, or smaller images."
        )
