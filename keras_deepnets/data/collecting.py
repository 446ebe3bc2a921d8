"""Gathering images one after the other: as uint8, in memory up to a budget and in a file without a name above it."""

from __future__ import annotations

import hashlib
import tempfile
from typing import IO

import numpy as np

from keras_deepnets.data import caching, verification
from keras_deepnets.data.stores import ArrayPixels, DiskPixels, PackedPixels, empty
from keras_deepnets.errors import InputError

AT_ONCE = 256
"""Images that are converted together."""


class Converter:
    """Turns images of any numeric type into uint8, and refuses what is not 0–255.

    Args:
        name: what messages call the images.
        remedy: an expression that scales 0–1 to 0–255.
    """

    def __init__(self, name: str, remedy: str):
        self._name, self._remedy = name, remedy
        self._highest, self._seen, self._type = 0.0, 0, None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """The images ``[b, h, w, c]`` as uint8; values between whole numbers are rounded.

        Raises:
            InputError: other values than 0–255, or none above 1 in the first `AT_ONCE` images.
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
        if not (low >= 0 and high <= 255):  # nor are NaN
            raise InputError(
                f"{self._name}: images are {images.dtype} with values from {low:g} to {high:g}, and must be RGB or grey 0–255. Undo "
                "a scaling (a network scales its input itself); clip what a resize overshot."
            )
        self._highest, self._seen = max(self._highest, high), self._seen + len(images)
        if self._seen >= AT_ONCE:
            self.finish()
        return (values if images.dtype.kind in "iu" else np.rint(values)).astype(np.uint8)

    def finish(self) -> None:
        """Raises InputError if no value was above 1: images of 0–255 that are not black have such values."""
        if self._type is not None and self._highest <= 1:
            raise InputError(
                f"{self._name}: images are {self._type} and no value of the first {self._seen} is above {self._highest:g}: they "
                f"seem to be 0–1. Give 0–255: {self._remedy}. A network scales its input itself."
            )


class Collector:
    """Gathers images as they come, in memory up to the budget and in a file without a name above it.

    Args:
        name: what messages call them.
        convert: to uint8.
        sort: whether to put them in the order of the digests of their pixels rather than as they came.
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
        """How many images came."""
        return len(self._shapes)

    def add(self, images: np.ndarray) -> None:
        """Adds images of one size, ``[b, h, w, c]``."""
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
            self._write(images)

    def finish(self, labels: np.ndarray) -> tuple[ArrayPixels | PackedPixels, np.ndarray]:
        """The images, and their labels ``[n]`` in the same order."""
        if not self._shapes:
            raise InputError(f"{self._name}: no images; give at least one of each class.")
        self._convert.finish()
        count = len(self._shapes)
        if count != len(labels):
            raise InputError(
                f"{self._name}: {count:,} images and {len(labels):,} labels; give one label for each image."
            )
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
        while self._chunks:  # frees them as it goes
            for image in self._chunks.pop()[::-1]:
                number -= 1
                values[starts[number] : starts[number] + image.size] = image.ravel()
        if (shapes == shapes[0]).all():
            return ArrayPixels(values.reshape(len(order), *shapes[0]))
        return PackedPixels(values, shapes[order], channels)

    def _spill(self) -> None:
        """Goes on in a file, which is gone with the process, however that ends."""
        try:
            folder, self._room = caching.scratch()
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - its pixels are mapped into memory
        except (OSError, RuntimeError) as error:
            raise self._too_large(str(error)) from error
        for images in self._chunks:
            self._write(images)
        self._chunks.clear()

    def _write(self, images: np.ndarray) -> None:
        if self._bytes > self._room:
            raise self._too_large(f"at most {self._room / 1e9:.1f} GB may be kept on disk")
        try:
            self._file.write(np.ascontiguousarray(images))
        except OSError as error:
            raise self._too_large(str(error)) from error

    def _too_large(self, reason: str) -> InputError:
        return InputError(
            f"{self._name}: {self._bytes / 1e9:.1f} GB of pixels are too many ({reason}); give a folder of class folders, whose images "
            "are read as training goes, or smaller images."
        )
