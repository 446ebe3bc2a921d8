"""A labelled set as TFRecord shards: a few large files in place of very many small ones.

``OUT/<split>-00000-of-00008.tfrecord`` hold examples with the field names of TensorFlow's ImageNet records (`image/encoded`,
`image/class/label`, …; labels count from 0); ``OUT/shards.json`` says what the shards hold, and without it nothing loads. Image files
are stored byte for byte. The classes are dealt out to the shards like cards, so that each shard is a small likeness of the split.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_deepnets.data import files, headers, splits
from keras_deepnets.data.image_data import ImageData, check_split, cut_out
from keras_deepnets.data.records import SHUFFLE_BYTES, Piece, RecordStore
from keras_deepnets.data.stores import IndexedStore
from keras_deepnets.errors import InputError, NoSuchSplit
from keras_deepnets.training.files import digest, write_json, written_aside

INDEX = "shards.json"
"""The file beside the shards."""

FORMAT, VERSION = "keras_deepnets.shards", 1

SHARD_BYTES = 1 << 27
"""About how large a shard is where nobody says how many there are."""

COUNT_LIMIT = 2 << 30
"""Bytes of shards up to which their records are counted before they are used; of more only the files' sizes are looked at."""

_ENDING = ".tfrecord"
_AGAIN = "copy the whole folder again, or write it anew with `keras-deepnets data shard`"
_FRAME = struct.Struct("<QI")  # length of a record and its checksum; after the record comes another checksum
_TAIL = 4


@dataclass(frozen=True)
class Shard:
    """One file.

    Attributes:
        file: its name.
        examples: how many it holds.
        bytes: its size.
        sha256: its digest, hexadecimal.
    """

    file: str
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """The shards of a split.

    Attributes:
        examples: how many.
        class_counts: how many of each class, in the order of the labels.
        image_size: height and width where all images share them, else None.
        shards: the files.
    """

    examples: int
    class_counts: tuple[int, ...]
    image_size: tuple[int, int] | None
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Index:
    """What ``shards.json`` says.

    Attributes:
        source: where the images came from.
        seed: of the order, and of what belongs to which split of a folder of class folders.
        channels: 1 or 3.
        labels: class names; an example's label is an index into them.
        skipped: files that could not be decoded and were left out.
        splits: by name.
    """

    source: str
    seed: int
    channels: int
    labels: tuple[str, ...]
    skipped: tuple[str, ...]
    splits: dict[str, Split]


Report = Callable[[int, int], None]
"""Is told how many examples are written, and how many there are."""


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
    """Writes a set as TFRecord shards, which `keras_deepnets.data.load` reads.

    The files of a folder of class folders are stored as they are; the images of any other source, which `load` holds in memory, as PNG.
    The same source, ``shards`` and ``seed`` give the same files to the last byte. A folder without split folders is split by ``seed`` as
    `load` splits it.

    Args:
        source: what `load` takes.
        out: a new or empty folder. Nothing is there before all is written.
        shards: how many for each split; None: as many as make them about 128 MiB each.
        split: the one to write; None: every split that the source has.
        seed: of the order of the examples.
        skip_broken: leave out files that cannot be decoded, and list them in the index, instead of raising.
        report: is told of progress.

    Returns:
        The index.

    Raises:
        InputError: ``out`` holds something, is a file, or lies inside ``source``; fewer examples than shards; a source that `load`
            refuses, broken images without ``skip_broken``, or a set that is kept in record files already.
    """
    target = check_arguments(source, out, shards, split)
    sets = _load_sets(source, split, seed, skip_broken)
    for name, data in sets.items():
        if not isinstance(data.store, IndexedStore):
            raise InputError(f"{data.name} is kept in record files already; load it by its name.")
        if shards is not None and data.size < shards:
            raise InputError(f"shards={shards}: the {name} split of {data.name} has only {data.size} examples.")
    with _parents_of(target), written_aside(target) as aside:
        aside.mkdir()
        index = _Writer(aside, sets, shards, seed, skip_broken, report).write()
        write_json(aside / INDEX, {"format": FORMAT, "version": VERSION} | dataclasses.asdict(index))
    return index


def check_arguments(source: str | os.PathLike, out: str | os.PathLike, shards: int | None, split: str | None) -> Path:
    """What `write` can refuse before anything is read; the folder that it will make."""
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
        raise InputError(f"{target} lies inside the folder of the images, where it would be taken for a class.")
    return target


def _load_sets(source: str | os.PathLike, split: str | None, seed: int, skip_broken: bool) -> dict[str, ImageData]:
    """What is written, by split."""
    from keras_deepnets.data import sources

    if split is not None:
        return {split: sources.load(source, split, seed=seed, skip_broken=skip_broken)}
    return sources.load_splits(source, seed=seed, skip_broken=skip_broken)


@contextlib.contextmanager
def _parents_of(target: Path) -> Iterator[None]:
    """Makes the folders above, and removes those again if the block fails."""
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
    """Writes the shards of some splits into a folder."""

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
        """Writes them all."""
        first = next(iter(self._sets.values()))
        found = {name: self._split(name, data) for name, data in self._sets.items()}
        channels = first.image_shape[-1]
        return Index(first.name, self._seed, channels, first.labels, tuple(self._skipped), found)

    def _split(self, split: str, data: ImageData) -> Split:
        names = data.store.names or tuple(map(str, data.store.rows))
        contents = _contents(data)
        count = self._shards or _suitable_count(data)
        class_counts, sizes, shards = np.zeros(data.classes, np.int64), set(), []
        for number, hand in enumerate(deal(data.store.labels, names, count, self._seed)):
            path = self._folder / f"{split}-{number:05d}-of-{count:05d}{_ENDING}"
            written = self._shard(path, hand, names, contents, data, sizes)
            class_counts += np.bincount(data.store.labels[written], minlength=data.classes)
            shards.append(Shard(path.name, len(written), path.stat().st_size, digest(path)))
        return Split(
            int(class_counts.sum()),
            tuple(class_counts.tolist()),
            sizes.pop() if len(sizes) == 1 else None,
            tuple(shards),
        )

    def _shard(self, path: Path, hand: Sequence[int], names, contents, data: ImageData, sizes: set) -> list[int]:
        """Writes one file; the numbers of the examples that are in it."""
        import tensorflow as tf

        written = []
        with tf.io.TFRecordWriter(str(path)) as writer:
            for index in hand:
                label = int(data.store.labels[index])
                encoded = contents(index)
                try:
                    form, height, width = headers.describe(encoded)
                except tf.errors.InvalidArgumentError as error:  # of large sets not every file was decoded before
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
    """Divides examples among shards: each class in equal parts, to one example, and mixed within a shard.

    Args:
        labels: int ``[n]``.
        names: one an example, stable identities such as relative paths.
        count: how many shards.
        seed: another seed, another order.

    Returns:
        The numbers of the examples in each shard, in their order.
    """
    order = splits.shuffled(names, seed)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    by_class = sorted(order, key=np.asarray(labels).__getitem__)
    return [sorted(by_class[number::count], key=rank.__getitem__) for number in range(count)]


def _suitable_count(data: ImageData) -> int:
    """How many shards of about `SHARD_BYTES` the set makes."""
    paths = _paths(data)
    total = sum(path.stat().st_size for path in paths) if paths else data.size * int(np.prod(data.image_shape))
    return min(max(1, round(total / SHARD_BYTES)), data.size)


def _paths(data: ImageData) -> list[Path]:
    """The files of a set of class folders; none of any other."""
    return [Path(data.name, name) for name in data.store.names]


def _contents(data: ImageData) -> Callable[[int], bytes]:
    """From an example's number to the bytes of an image file."""
    import tensorflow as tf

    if paths := _paths(data):
        return lambda index: paths[index].read_bytes()
    store = data.store
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
    return example.SerializeToString(deterministic=True)  # a map has no order of its own


def is_shards(folder: Path) -> bool:
    """Whether a folder holds shards, or what is left of them."""
    if not folder.is_dir():
        return False
    return (folder / INDEX).is_file() or any(
        entry.name.endswith(_ENDING) and not files.is_ignored(entry.name) for entry in os.scandir(folder)
    )


def load(folder: Path, split: str = "train", *, seed: int = 0, validation: int | float | None = None) -> ImageData:
    """Loads one split of a folder of shards; see `keras_deepnets.data.load`.

    The files' sizes are compared with the index, and up to 2 GiB the records are counted. The digests are not computed: `verify` does that.

    Raises:
        InputError: no such split; an index that is missing, damaged or of an unknown version; a shard that is missing, cut short, or
            holds another number of records; a bad validation size.
    """
    index = read_index(folder)
    has_validation = "validation" in index.splits and validation is None
    available = [
        name for name in splits.SPLITS if name in index.splits or (name == "validation" and "train" in index.splits)
    ]
    if split != "all" and split not in available:
        raise NoSuchSplit(f"split {split!r}: {folder} has {', '.join(dict.fromkeys([*available, 'all']))}.")
    if split == "all":
        return _data(folder, index, split, [name for name in splits.SPLITS if name in index.splits])
    if split == "test" or (split == "validation" and has_validation):
        return _data(folder, index, split, [split])
    check_split(str(folder), split, validation)  # before anything is read
    return cut_out(_data(folder, index, "train", ["train"]), split, validation, seed)


def verify(folder: Path, report: Report | None = None) -> Index:
    """Reads every shard and compares its digest with the index.

    Args:
        folder: of the shards.
        report: is told how many bytes were read, and how many there are.

    Raises:
        InputError: as `load`, or shards whose bytes are not those that were written.
    """
    index = read_index(folder)
    shards = [shard for split in index.splits.values() for shard in split.shards]
    _check_files(folder, shards)
    done, total, changed = 0, sum(shard.bytes for shard in shards), []
    for shard in shards:
        if digest(folder / shard.file) != shard.sha256:
            changed.append(shard.file)
        done += shard.bytes
        if report is not None:
            report(done, total)
    if changed:
        raise InputError(f"{folder}: the bytes of {', '.join(changed)} are not those that were written; {_AGAIN}.")
    return index


def read_index(folder: Path) -> Index:
    """The index of a folder of shards.

    Raises:
        InputError: it is missing, damaged, or of an unknown version.
    """
    path = folder / INDEX
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} holds {_ENDING} files but no {INDEX}, which says what they are; {_AGAIN} (a TFDS set is loaded by its name)."
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); {_AGAIN}.") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(f"{path} is no index of shards (format {FORMAT!r}); {_AGAIN}.")
    if values.get("version") != VERSION:
        raise InputError(
            f"{path} has format version {values.get('version')!r} and this keras_deepnets reads version {VERSION}; update "
            "keras_deepnets, or write the shards anew with `keras-deepnets data shard`."
        )
    try:
        return _index(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}); {_AGAIN}.") from error


def _index(values: dict[str, Any]) -> Index:
    """The index of its JSON; whatever does not fit raises one of Python's errors."""
    found = {}
    for name, item in values["splits"].items():
        shards = tuple(Shard(**shard) for shard in item["shards"])
        size = None if item["image_size"] is None else tuple(item["image_size"])
        split = Split(item["examples"], tuple(item["class_counts"]), size, shards)
        counts = {"its shards": sum(shard.examples for shard in shards), "its classes": sum(split.class_counts)}
        for what, count in counts.items():
            if count != split.examples:
                raise ValueError(f"{name} has {split.examples} examples and {what} add up to {count}")
        if len(split.class_counts) != len(values["labels"]):
            raise ValueError(f"{len(values['labels'])} labels and counts of {len(split.class_counts)} classes")
        found[name] = split
    return Index(
        values["source"],
        values["seed"],
        values["channels"],
        tuple(values["labels"]),
        tuple(values["skipped"]),
        found,
    )


def _check_files(folder: Path, shards: Sequence[Shard]) -> None:
    """Raises `InputError` unless the files are there, whole, and hold what the index says."""
    for shard in shards:
        path = folder / shard.file
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise InputError(f"{folder}: shard {shard.file} is missing; {_AGAIN}.") from error
        if size != shard.bytes:
            raise InputError(f"{path} has {size:,} bytes in place of {shard.bytes:,}; {_AGAIN}.")
    if sum(shard.bytes for shard in shards) > COUNT_LIMIT:
        return
    for shard in shards:
        count = count_records(folder / shard.file)
        if count != shard.examples:
            raise InputError(
                f"{folder / shard.file} holds {count:,} whole records in place of {shard.examples:,}; {_AGAIN}."
            )


def count_records(path: Path) -> int:
    """How many whole records a TFRecord file holds; their contents are not looked at."""
    count, end, size = 0, 0, path.stat().st_size
    with path.open("rb") as file:
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            end += _FRAME.size + _FRAME.unpack(head)[0] + _TAIL
            if end > size:
                break
            file.seek(end)
            count += 1
    return count


def _data(folder: Path, index: Index, split: str, names: Sequence[str]) -> ImageData:
    """The shards of some splits as one set."""
    parts = [index.splits[name] for name in names]
    shards = [shard for part in parts for shard in part.shards]
    _check_files(folder, shards)
    examples, total = sum(part.examples for part in parts), sum(shard.bytes for shard in shards)
    if not examples:
        raise NoSuchSplit(f"split {split!r} of {folder} has no examples; choose another split.")
    sizes = {part.image_size for part in parts}
    store = RecordStore(
        tuple(Piece(str(folder / shard.file), 0, shard.examples) for shard in shards),
        _parse,
        index.channels,
        max(1, min(SHUFFLE_BYTES * examples // total, examples)),
        (sizes.pop() or (None, None)) if len(sizes) == 1 else (None, None),
        tuple(map(sum, zip(*(part.class_counts for part in parts), strict=True))),
    )
    return ImageData(str(folder), split, index.labels, store)


def _parse(record: Any) -> tuple[Any, Any]:
    """Encoded image and label of a serialised example."""
    import tensorflow as tf

    features = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/class/label": tf.io.FixedLenFeature([], tf.int64),
    }
    example = tf.io.parse_single_example(record, features)
    return example["image/encoded"], example["image/class/label"]
