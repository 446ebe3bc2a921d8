"""Write a labelled data set as TFRecord shards."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_deepnets.data import headers, sources, splits
from keras_deepnets.data.image_data import ImageData
from keras_deepnets.data.shards import ENDING, FORMAT, INDEX, VERSION, Index, Report, Shard, Split
from keras_deepnets.data.stores import IndexedStore, indexed
from keras_deepnets.errors import InputError
from keras_deepnets.files import digest, write_json, written_aside

SHARD_BYTES = 1 << 27
"""Approximate size of a shard if the number of shards is not given."""


def write(
    source: str | os.PathLike,
    out: str | os.PathLike,
    shards: int | None = None,
    *,
    split: str | None = None,
    seed: int = 0,
    skip_broken: bool = False,
    report: Report | None = None,
) -> Index:
    """Write a data set as TFRecord shards, which `keras_deepnets.data.load` reads.

    The files of a folder of class folders are stored unchanged. Images of any other source, which `load` holds in memory, are stored
    as PNG. The same source, ``shards`` and ``seed`` always give byte-identical files. A folder without split folders is split by
    ``seed``, as `load` splits it.

    Args:
        source: A source that `load` takes.
        out: A new or empty folder. It stays empty until everything is written.
        shards: Number of shards per split. None: as many as give about 128 MiB each.
        split: The split to write. None: all splits of the source.
        seed: Seed for the order of the examples.
        skip_broken: Whether to leave out files that cannot be decoded and list them in the index, instead of raising.
        report: Progress callback.

    Returns:
        The index.

    Raises:
        InputError: ``out`` is a file, is not empty, or is inside ``source``. A split has fewer examples than shards. `load` refuses
            the source, images are broken and ``skip_broken`` is False, or the data set is already stored in record files.
    """
    target = check_arguments(source, out, shards, split)
    sets = _load_sets(source, split, seed, skip_broken)
    for name, data in sets.items():
        if not isinstance(data.store, IndexedStore):
            raise InputError(f"{data.name} is already stored in record files; load it by its name.")
        if shards is not None and data.size < shards:
            raise InputError(f"shards={shards}: the {name} split of {data.name} has only {data.size} examples.")
    with _parents_of(target), written_aside(target) as aside:
        aside.mkdir()
        index = _Writer(aside, sets, shards, seed, skip_broken, report).write()
        write_json(aside / INDEX, {"format": FORMAT, "version": VERSION} | dataclasses.asdict(index))
    return index


def check_arguments(source: str | os.PathLike, out: str | os.PathLike, shards: int | None, split: str | None) -> Path:
    """Check the arguments of `write` before anything is read, and return the folder to create."""
    target = Path(out).expanduser().resolve()
    if shards is not None and (isinstance(shards, bool) or shards != int(shards) or not 0 < shards <= 99_999):
        raise InputError(f"shards={shards!r} is not a whole number from 1 to 99,999.")
    if split is not None and split not in splits.SPLITS:
        raise InputError(f"split {split!r} is not one of {', '.join(splits.SPLITS)}.")
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file; name a new or empty folder for the shards.")
    if target.is_dir() and any(target.iterdir()):
        raise InputError(f"{target} is not empty; name a new or empty folder for the shards.")
    folder = Path(source).expanduser().resolve()
    if folder.is_dir() and target.is_relative_to(folder):
        raise InputError(
            f"{target} is inside the image folder, where it would be mistaken for a class; name a folder outside it."
        )
    return target


def _load_sets(source: str | os.PathLike, split: str | None, seed: int, skip_broken: bool) -> dict[str, ImageData]:
    """The data to write, by split."""
    if split is not None:
        return {split: sources.load(source, split, seed=seed, skip_broken=skip_broken)}
    return sources.load_splits(source, seed=seed, skip_broken=skip_broken)


@contextlib.contextmanager
def _parents_of(target: Path) -> Iterator[None]:
    """Create the parent folders, and remove them again if the block fails."""
    missing = [folder for folder in target.parents if not folder.exists()]  # innermost first
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for folder in missing:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


class _Writer:
    """Writes the shards of one or more splits into a folder."""

    def __init__(
        self,
        folder: Path,
        sets: dict[str, ImageData],
        shards: int | None,
        seed: int,
        skip_broken: bool,
        report: Report | None,
    ):
        self._folder, self._sets, self._shards, self._seed = folder, sets, shards, seed
        self._skip_broken, self._report = skip_broken, report
        self._skipped = [*dict.fromkeys(name for data in sets.values() for name in data.skipped)]
        self._done, self._total = 0, sum(data.size for data in sets.values())

    def write(self) -> Index:
        """Write all splits."""
        first = next(iter(self._sets.values()))
        found = {name: self._split(name, data) for name, data in self._sets.items()}
        channels = first.image_shape[-1]
        return Index(first.name, self._seed, channels, first.labels, tuple(self._skipped), found)

    def _split(self, split: str, data: ImageData) -> Split:
        store = indexed(data.store)
        names = store.names or tuple(map(str, store.rows))
        contents = _contents(data)
        count = self._shards or _suitable_count(data)
        class_counts, shards = np.zeros(data.classes, np.int64), []
        sizes: set[tuple[int, int]] = set()
        for number, hand in enumerate(deal(store.labels, names, count, self._seed)):
            path = self._folder / f"{split}-{number:05d}-of-{count:05d}{ENDING}"
            written = self._shard(path, hand, names, contents, data, sizes)
            class_counts += np.bincount(store.labels[written], minlength=data.classes)
            shards.append(Shard(path.name, len(written), path.stat().st_size, digest(path)))
        return Split(
            int(class_counts.sum()),
            tuple(class_counts.tolist()),
            sizes.pop() if len(sizes) == 1 else None,
            tuple(shards),
        )

    def _shard(self, path: Path, hand: Sequence[int], names, contents, data: ImageData, sizes: set) -> list[int]:
        """Write one file and return the numbers of the examples in it."""
        import tensorflow as tf

        labels, written = indexed(data.store).labels, []
        with tf.io.TFRecordWriter(str(path)) as writer:
            for index in hand:
                label = int(labels[index])
                encoded = contents(index)
                try:
                    form, height, width = headers.describe(encoded)
                except tf.errors.InvalidArgumentError as error:  # large data sets are not fully decoded before
                    if not self._skip_broken:
                        raise InputError(
                            f"{data.name}: {names[index]} cannot be decoded; repair or remove it, or leave broken images "
                            "out with skip_broken=True (--skip-broken)."
                        ) from error
                    self._skipped.append(names[index])
                else:
                    size = (height, width)
                    example = _example(
                        encoded, form, size, data.image_shape[-1], label, data.labels[label], names[index]
                    )
                    writer.write(example)
                    sizes.add(size)
                    written.append(index)
                self._done += 1
                if self._report is not None:
                    self._report(self._done, self._total)
        return written


def deal(labels: np.ndarray, names: Sequence[str], count: int, seed: int) -> list[list[int]]:
    """Distribute examples over shards. Each class is spread evenly, to within one example, and shuffled within a shard.

    Args:
        labels: int ``[n]``.
        names: One stable identity per example, such as a relative path.
        count: Number of shards.
        seed: Chooses the order.

    Returns:
        The numbers of the examples in each shard, in order.
    """
    order = splits.shuffled(names, seed)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    by_class = sorted(order, key=np.asarray(labels).__getitem__)
    return [sorted(by_class[number::count], key=rank.__getitem__) for number in range(count)]


def _suitable_count(data: ImageData) -> int:
    """Number of shards of about `SHARD_BYTES` for the data set."""
    paths = _paths(data)
    # Of images in memory, sides that differ between images count as 256 pixels.
    in_memory = data.size * int(np.prod([side or 256 for side in data.image_shape]))
    total = sum(path.stat().st_size for path in paths) if paths else in_memory
    return min(max(1, round(total / SHARD_BYTES)), data.size)


def _paths(data: ImageData) -> list[Path]:
    """The files of a data set of class folders; empty for any other source."""
    return [Path(data.name, name) for name in indexed(data.store).names]


def _contents(data: ImageData) -> Callable[[int], bytes]:
    """A function from the number of an example to the bytes of its image file."""
    import tensorflow as tf

    if paths := _paths(data):
        return lambda index: paths[index].read_bytes()
    store = indexed(data.store)
    return lambda index: tf.io.encode_png(store.open(store.pixels.payload(store.rows[index]))).numpy()


def _example(
    encoded: bytes, form: str, size: tuple[int, int], channels: int, label: int, text: str, name: str
) -> bytes:
    """A serialised ``tf.train.Example``."""
    import tensorflow as tf

    def numbers(*values: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    def raw(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def words(value: str) -> Any:
        return raw(value.encode("utf-8", "surrogateescape"))

    features = {
        "image/encoded": raw(encoded),
        "image/format": words(form),
        "image/height": numbers(size[0]),
        "image/width": numbers(size[1]),
        "image/channels": numbers(channels),
        "image/colorspace": words("RGB" if channels == 3 else "Grayscale"),
        "image/class/label": numbers(label),
        "image/class/text": words(text),
        "image/filename": words(name),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)  # a protobuf map has no defined order
