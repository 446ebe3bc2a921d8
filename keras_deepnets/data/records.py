"""Examples streamed from record files that do not fit in memory: in order, or shuffled by shard and then within chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from keras_deepnets.data import decoding, foreign, parallel, splits
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

SHUFFLE_BYTES = 1 << 28
"""Approximate bytes of encoded examples that are shuffled together. The same amount is read ahead meanwhile."""

_OPEN_FILES = 16


@dataclass(frozen=True)
class Piece:
    """A run of records in one TFRecord file.

    Attributes:
        path: Path of the file.
        skip: Number of records before the run.
        take: Number of records in the run.
    """

    path: str
    skip: int
    take: int


@dataclass(frozen=True, eq=False)
class RecordStore:
    """A data set whose examples are encoded images in TFRecord files.

    Attributes:
        pieces: Location of the records.
        parse: Function from a serialised record to (encoded image, label int64).
        channels: 1 or 3.
        chunk: Number of examples shuffled together.
        height_width: Height and width of every image in pixels. None, None if they differ or are not known in advance.
        class_counts: Number of examples in each class, if known without reading them.
    """

    pieces: tuple[Piece, ...]
    parse: Callable[[Any], tuple[Any, Any]]
    channels: int
    chunk: int
    height_width: tuple[int | None, int | None] = (None, None)
    class_counts: tuple[int, ...] | None = None
    in_memory = False

    @property
    def size(self) -> int:
        """Number of examples."""
        return sum(piece.take for piece in self.pieces)

    @property
    def image_shape(self) -> tuple[int | None, int | None, int]:
        """Height and width (None if not known in advance), and channels."""
        return (*self.height_width, self.channels)

    def read(self, seed: Any | None = None) -> tf.data.Dataset:
        """See `Store.read`. A seed shuffles the files, reads several files in parallel, and shuffles chunks of their records."""
        import tensorflow as tf

        order = tf.range(len(self.pieces), dtype=tf.int64)
        if seed is not None:
            order = tf.random.experimental.stateless_shuffle(order, seed, alg="philox")
        paths = tf.constant([piece.path for piece in self.pieces])
        skips = tf.constant([piece.skip for piece in self.pieces], tf.int64)
        takes = tf.constant([piece.take for piece in self.pieces], tf.int64)

        def records(piece):
            return tf.data.TFRecordDataset(paths[piece]).skip(skips[piece]).take(takes[piece])

        pieces = tf.data.Dataset.from_tensor_slices(order)
        dataset = pieces.interleave(
            records, _OPEN_FILES, 16, num_parallel_calls=min(_OPEN_FILES, parallel.calls()), deterministic=True
        )
        if seed is not None:
            # Not Dataset.shuffle: its order also depends on the global seed and on the number of earlier iterations.
            def shuffle(number, chunk):
                return tf.random.experimental.stateless_shuffle(
                    chunk, tf.random.experimental.stateless_fold_in(seed, number, alg="philox"), alg="philox"
                )

            dataset = dataset.batch(self.chunk).enumerate().map(shuffle).prefetch(1).unbatch()
        return dataset.map(self.parse, parallel.calls(), deterministic=True).with_options(parallel.options())

    def open(
        self, payload: Any, window: decoding.Window | None = None, size: tuple[int, int] | None = None
    ) -> tf.Tensor:
        """See `Store.open`: decode the image, or for JPEG only the window."""
        return foreign.decode(payload, self.channels, window, size)

    def part(self, index: int, count: int) -> RecordStore:
        """The ``index``-th of ``count`` runs of records of nearly equal size."""
        return self.between(self.size * index // count, self.size * (index + 1) // count)

    def between(self, start: int, stop: int) -> RecordStore:
        """Records number ``start`` to ``stop``."""
        return replace(self, pieces=cut_pieces(self.pieces, start, stop), class_counts=None)

    def divide(self, size: int, seed: int) -> tuple[RecordStore, RecordStore]:
        """See `Store.divide`: cut out a run of records at a position chosen by ``seed``. The records were shuffled when written."""
        if not 0 < size < self.size:
            raise InputError(f"{size} of {self.size} examples cannot be cut out: none would be left.")
        start = splits.number(seed, self.size - size + 1)
        cut = cut_pieces(self.pieces, start, start + size)
        rest = cut_pieces(self.pieces, 0, start) + cut_pieces(self.pieces, start + size, self.size)
        return replace(self, pieces=rest, class_counts=None), replace(self, pieces=cut, class_counts=None)


def cut_pieces(pieces: Sequence[Piece], start: int, stop: int) -> tuple[Piece, ...]:
    """Records number ``start`` to ``stop`` of the concatenated pieces."""
    found, before = [], 0
    for piece in pieces:
        first, last = max(start - before, 0), min(stop - before, piece.take)
        if first < last:
            found.append(Piece(piece.path, piece.skip + first, last - first))
        before += piece.take
    return tuple(found)
