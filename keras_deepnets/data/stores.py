"""Storage of a data set's pixels: an array, a packed buffer, files or a stream of records.

Every store gives the pipelines a dataset of (payload, label) in fixed or seeded order, a function that opens a
payload, and a shape. A payload is an image or the bytes of a file. `open` decodes it as late as possible, so that only the
required window is decoded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from keras_deepnets.data import decoding, foreign, parallel

if TYPE_CHECKING:
    import tensorflow as tf

Shape = tuple["int | None", "int | None", int]
_ALIGNMENT = 64
"""Bytes. TensorFlow requires memory aligned to a multiple of it."""


class Store(Protocol):
    """The interface of a store, as the pipelines use it."""

    @property
    def size(self) -> int:
        """Number of examples."""
        ...

    @property
    def image_shape(self) -> Shape:
        """Height and width (None where they differ), and channels."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether reading needs no file access and no decoding."""
        ...

    def read(self, seed: Any | None = None) -> tf.data.Dataset:
        """(payload, label int64) of every example: in the fixed order, or shuffled by a stateless ``seed`` ``[2]``."""
        ...

    def open(
        self, payload: Any, window: decoding.Window | None = None, size: tuple[int, int] | None = None
    ) -> tf.Tensor:
        """The image of a payload, uint8 ``[h, w, c]``, or the part of it that ``window`` chooses.

        The part may be smaller if the caller resizes it to ``size`` anyway (`decoding.decode`).
        """
        ...

    def part(self, index: int, count: int) -> Store:
        """Part number ``index`` of ``count`` parts of the examples, which are nearly of one size."""
        ...

    def divide(self, size: int, seed: int) -> tuple[Store, Store]:
        """Cut ``size`` examples out by ``seed``, and return (the rest, these examples)."""
        ...


class Pixels(Protocol):
    """The interface of the images of an `IndexedStore`."""

    @property
    def image_shape(self) -> Shape:
        """Height and width (None where they differ), and channels."""
        ...

    @property
    def in_memory(self) -> bool:
        """Whether reading needs no file access and no decoding."""
        ...

    def payload(self, row: tf.Tensor) -> tf.Tensor:
        """The payload of image number ``row``."""
        ...

    def open(
        self, payload: Any, window: decoding.Window | None = None, size: tuple[int, int] | None = None
    ) -> tf.Tensor:
        """See `Store.open`."""
        ...


def empty(shape: Sequence[int]) -> np.ndarray:
    """An uninitialised uint8 array whose memory `tensor_of` shares."""
    size = math.prod(shape)
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].reshape(shape)


def aligned(array: np.ndarray) -> np.ndarray:
    """A uint8 array in memory that `tensor_of` shares: the array itself, or one copy of it."""
    if _is_aligned(array):
        return array
    copy = empty(array.shape)
    copy[...] = array
    return copy


def tensor_of(array: np.ndarray) -> tf.Tensor:
    """The array as a tensor in main memory. An aligned array is not copied; TensorFlow's own conversion would make two copies."""
    import tensorflow as tf

    with tf.init_scope(), tf.device("CPU:0"):  # create it outside the graph that asks for it first
        if _is_aligned(array) and array.size:
            return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
        return tf.convert_to_tensor(array)


def _is_aligned(array: np.ndarray) -> bool:
    return array.flags.c_contiguous and array.flags.writeable and array.ctypes.data % _ALIGNMENT == 0


@dataclass(frozen=True, eq=False)
class ArrayPixels:
    """Images of one size, uint8 ``[n, h, w, c]``."""

    images: np.ndarray
    in_memory = True

    @property
    def image_shape(self) -> Shape:
        """Height, width, channels."""
        return self.images.shape[1:]

    @cached_property
    def tensor(self) -> tf.Tensor:
        """The images as one tensor in main memory, created once. Pipelines gather from it."""
        return tensor_of(self.images)

    def payload(self, row: tf.Tensor) -> tf.Tensor:
        """Image number ``row``."""
        return self.tensor[row]

    def open(
        self, payload: Any, window: decoding.Window | None = None, size: tuple[int, int] | None = None
    ) -> tf.Tensor:
        """Return the payload, which is the image."""
        return payload if window is None else decoding.cut(payload, window)


@dataclass(frozen=True, eq=False)
class PackedPixels:
    """Images of different sizes, stored one after the other in one buffer.

    Attributes:
        values: uint8 ``[sum of h·w·c]``.
        shapes: int32 ``[n, 3]``, one image per row.
        channels: Channels of all images.
    """

    values: np.ndarray
    shapes: np.ndarray
    channels: int
    in_memory = True

    @property
    def image_shape(self) -> Shape:
        """None, None, channels, because the sizes differ."""
        return (None, None, self.channels)

    @cached_property
    def starts(self) -> np.ndarray:
        """Offset of each image in `values`, int64 ``[n]``."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def sizes(self) -> np.ndarray:
        """Number of values of each image, int64 ``[n]``."""
        return self.shapes.astype(np.int64).prod(axis=1)

    @cached_property
    def tensors(self) -> tuple[tf.Tensor, ...]:
        """Values, shapes, starts and sizes as tensors in main memory."""
        return tuple(tensor_of(values) for values in (self.values, self.shapes, self.starts, self.sizes))

    def payload(self, row: tf.Tensor) -> tf.Tensor:
        """Image number ``row``."""
        import tensorflow as tf

        values, shapes, starts, sizes = self.tensors
        image = tf.reshape(values[starts[row] : starts[row] + sizes[row]], shapes[row])
        return tf.ensure_shape(image, self.image_shape)

    def open(
        self, payload: Any, window: decoding.Window | None = None, size: tuple[int, int] | None = None
    ) -> tf.Tensor:
        """Return the payload, which is the image."""
        return payload if window is None else decoding.cut(payload, window)

    def image(self, row: int) -> np.ndarray:
        """Image number ``row``, uint8 ``[h, w, channels]``."""
        start = self.starts[row]
        return self.values[start : start + self.sizes[row]].reshape(self.shapes[row])

    def chunks(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The pixels of the images ``rows``, one image per item, uint8 ``[h·w, channels]``."""
        for row in rows:
            yield self.image(row).reshape(-1, self.channels)


@dataclass(frozen=True, eq=False)
class DiskPixels(PackedPixels):
    """`PackedPixels` in a file: ``values`` is a `numpy.memmap`, and an image is read when it is needed.

    Attributes:
        starts: Offset of each image in ``values``, int64 ``[n]``.
    """

    starts: np.ndarray = field(repr=False)
    in_memory = False

    @cached_property
    def image_shape(self) -> Shape:
        """Height and width (None where they differ), and channels."""
        first = self.shapes[0]
        return tuple(first.tolist()) if (self.shapes == first).all() else (None, None, self.channels)

    def payload(self, row: tf.Tensor) -> tf.Tensor:
        """Image number ``row``."""
        import tensorflow as tf

        return tf.ensure_shape(tf.numpy_function(self.image, [row], tf.uint8), self.image_shape)


@dataclass(frozen=True, eq=False)
class FilePixels:
    """Image files, read and decoded each time they are needed."""

    paths: np.ndarray
    channels: int = 3
    in_memory = False

    @property
    def image_shape(self) -> Shape:
        """None, None, channels, because the sizes are not known in advance."""
        return (None, None, self.channels)

    @cached_property
    def tensor(self) -> tf.Tensor:
        """The paths as one string tensor."""
        import tensorflow as tf

        with tf.init_scope(), tf.device("CPU:0"):  # create it outside the graph that asks for it first
            return tf.constant(list(self.paths), tf.string)

    def payload(self, row: tf.Tensor) -> tf.Tensor:
        """The bytes of file number ``row``."""
        import tensorflow as tf

        return tf.io.read_file(self.tensor[row])

    def open(
        self, payload: Any, window: decoding.Window | None = None, size: tuple[int, int] | None = None
    ) -> tf.Tensor:
        """Decode the bytes of a file."""
        return foreign.decode(payload, self.channels, window, size)


@dataclass(frozen=True, eq=False)
class IndexedStore:
    """Examples with random access: rows of pixels that several splits may share.

    Attributes:
        pixels: The images.
        rows: int64 ``[n]``: the images that belong to this data set.
        labels: int64 ``[n]``, one per row.
        names: Stable identities by which a seed splits, e.g. relative paths. Empty: the row numbers.
    """

    pixels: Pixels
    rows: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] = field(default=(), repr=False)

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(self.rows)

    @property
    def image_shape(self) -> Shape:
        """Height and width (None where they differ), and channels."""
        return self.pixels.image_shape

    @property
    def in_memory(self) -> bool:
        """Whether reading needs no file access and no decoding."""
        return self.pixels.in_memory

    @cached_property
    def tensors(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Rows and labels as tensors in main memory."""
        import tensorflow as tf

        with tf.init_scope(), tf.device("CPU:0"):  # create them outside the graph that asks for them first
            return tf.convert_to_tensor(self.rows), tf.convert_to_tensor(self.labels)

    def read(self, seed: Any | None = None, choose: Callable[[Any], Any] | None = None) -> tf.data.Dataset:
        """See `Store.read`. Any order is possible, so a shuffle is a true permutation.

        ``choose`` turns the positions of all examples, int64 ``[n]``, into those to read.
        """
        import tensorflow as tf

        rows, labels = self.tensors
        order = tf.range(self.size, dtype=tf.int64)
        if seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, seed, alg="philox")
        dataset = tf.data.Dataset.from_tensor_slices(order if choose is None else choose(order))
        return dataset.map(
            lambda index: (self.pixels.payload(rows[index]), labels[index]),
            num_parallel_calls=None if self.in_memory else parallel.calls(),
        ).with_options(parallel.options())

    def open(
        self, payload: Any, window: decoding.Window | None = None, size: tuple[int, int] | None = None
    ) -> tf.Tensor:
        """See `Store.open`."""
        return self.pixels.open(payload, window, size)

    def take(self, chosen: np.ndarray) -> IndexedStore:
        """The examples where ``chosen`` (bool ``[n]``) is True. The pixels are shared, not copied."""
        names = tuple(name for name, wanted in zip(self.names, chosen, strict=True) if wanted) if self.names else ()
        return replace(self, rows=self.rows[chosen], labels=self.labels[chosen], names=names)

    def part(self, index: int, count: int) -> IndexedStore:
        """The ``index``-th of ``count`` runs of examples of nearly equal size."""
        positions = np.arange(self.size) * count // max(self.size, 1)
        return self.take(positions == index)

    def divide(self, size: int, seed: int) -> tuple[IndexedStore, IndexedStore]:
        """See `Store.divide`. Each class is in proportion."""
        chosen = self._chosen(size, seed)
        return self.take(~chosen), self.take(chosen)

    def sample(self, size: int, seed: int) -> IndexedStore:
        """``size`` examples chosen by ``seed``: each class in proportion, with at least one example each if possible."""
        return self.take(self._chosen(size, seed, leave=0))

    def _chosen(self, size: int, seed: int, leave: int = 1) -> np.ndarray:
        from keras_deepnets.data import splits

        names = self.names or [str(row) for row in self.rows]
        return splits.stratified(self.labels, names, size, seed, leave)


def indexed(store: Store) -> IndexedStore:
    """The store itself, typed. The caller knows that it has random access."""
    assert isinstance(store, IndexedStore)
    return store


def from_arrays(images: np.ndarray, labels: np.ndarray) -> IndexedStore:
    """Create a store of images in memory, uint8 ``[n, h, w, c]``, and labels ``[n]``."""
    return in_order(ArrayPixels(aligned(images)), labels)


def in_order(pixels: Pixels, labels: np.ndarray) -> IndexedStore:
    """Create a store of all images in their order, and labels ``[n]``."""
    return IndexedStore(pixels, np.arange(len(labels), dtype=np.int64), labels.astype(np.int64))


def from_images(images: Sequence[np.ndarray], labels: np.ndarray) -> IndexedStore:
    """Create a store of images of different sizes, each uint8 ``[h, w, c]`` with the same c, and labels ``[n]``."""
    shapes = np.array([image.shape for image in images], np.int32)
    pixels = PackedPixels(np.concatenate([image.ravel() for image in images]), shapes, int(shapes[0, 2]))
    return in_order(pixels, labels)
