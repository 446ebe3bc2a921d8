"""Examples streamed from record files, too large for memory: read in order, or shuffled by shard and then within chunks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from keras_deepnets.data import foreign, splits, transforms
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

SHUFFLE_BYTES = 1 << 28
"""About how many bytes of encoded examples are shuffled together; as many again are read meanwhile."""

_OPEN_FILES = 16


@dataclass(frozen=True)
class Piece:
    """A run of records in one TFRecord file.

    Attributes:
        path: of the file.
        skip: how many records come before it.
        take: how many belong to it.
    """

    path: str
    skip: int
    take: int


@dataclass(frozen=True, eq=False)
class RecordStore:
    """A set whose examples are encoded images in TFRecord files.

    Attributes:
        pieces: where the records are.
        parse: from a serialised record to (encoded image, label int64).
        channels: 1 or 3.
        chunk: how many examples are shuffled together.
        height_width: of every image, pixels; None, None where they differ or are not known beforehand.
        class_counts: how many examples each class has, where that is known without reading them.
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
        """How many examples."""
        return sum(piece.take for piece in self.pieces)

    @property
    def image_shape(self) -> tuple[int | None, int | None, int]:
        """Height, width (None where they are not known beforehand), channels."""
        return (*self.height_width, self.channels)

    def read(self, seed: Any | None = None) -> tf.data.Dataset:
        """See `Store.read`. A seed shuffles the files, reads several at a time, and shuffles chunks of what comes."""
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
            records, cycle_length=_OPEN_FILES, block_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )
        if seed is not None:
            # Not Dataset.shuffle: its order depends on the global seed too, and on how often it was iterated over.
            def shuffle(number, chunk):
                return tf.random.experimental.stateless_shuffle(
                    chunk, tf.random.experimental.stateless_fold_in(seed, number, alg="philox"), alg="philox"
                )

            dataset = dataset.batch(self.chunk).enumerate().map(shuffle).prefetch(1).unbatch()
        return dataset.map(self.parse, tf.data.AUTOTUNE, deterministic=True)

    def open(self, payload: Any, window: transforms.Window | None = None) -> tf.Tensor:
        """See `Store.open`: decodes the image, of a JPEG only the window."""
        return foreign.decode(payload, self.channels, window)

    def divide(self, size: int, seed: int) -> tuple[RecordStore, RecordStore]:
        """See `Store.divide`: a run of records at a place chosen by ``seed``; who wrote them shuffled them."""
        if not 0 < size < self.size:
            raise InputError(f"{size} of {self.size} examples cannot be cut out and leave some.")
        start = splits.number(seed, self.size - size + 1)
        cut = cut_pieces(self.pieces, start, start + size)
        rest = cut_pieces(self.pieces, 0, start) + cut_pieces(self.pieces, start + size, self.size)
        return tuple(replace(self, pieces=pieces, class_counts=None) for pieces in (rest, cut))


def cut_pieces(pieces: Sequence[Piece], start: int, stop: int) -> tuple[Piece, ...]:
    """The records number ``start`` to ``stop`` of all the pieces in a row."""
    found, before = [], 0
    for piece in pieces:
        first, last = max(start - before, 0), min(stop - before, piece.take)
        if first < last:
            found.append(Piece(piece.path, piece.skip + first, last - first))
        before += piece.take
    return tuple(found)
