"""A labelled data set as TFRecord shards: a few large files instead of many small ones.

The files ``OUT/<split>-00000-of-00008.tfrecord`` hold examples with the field names of TensorFlow's ImageNet records
(`image/encoded`, `image/class/label`, …). Labels count from 0. ``OUT/shards.json`` describes the contents of the shards; loading
requires it. Image files are stored byte for byte. Each class is spread evenly over the shards, so that every shard resembles the
whole split.
"""

from __future__ import annotations

import concurrent.futures
import json
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_deepnets.data import files, splits
from keras_deepnets.data.image_data import ImageData, check_split, cut_out
from keras_deepnets.data.records import SHUFFLE_BYTES, Piece, RecordStore
from keras_deepnets.data.remote import Folder, RemotePath, names_in
from keras_deepnets.errors import InputError, NoSuchSplit
from keras_deepnets.files import digest

INDEX = "shards.json"
"""Name of the index file in the folder of the shards."""

FORMAT, VERSION = "keras_deepnets.shards", 1

COUNT_LIMIT = 2 << 30
"""Total bytes of shards up to which their records are counted before use. For larger data only the file sizes are checked."""

ENDING = ".tfrecord"
_AGAIN = "copy the whole folder again, or rewrite it with `keras-deepnets data shard`"
_FRAME = struct.Struct("<QI")  # length of a record and its checksum; another checksum follows the record
_TAIL = 4


@dataclass(frozen=True)
class Shard:
    """A shard file.

    Attributes:
        file: File name.
        examples: Number of examples.
        bytes: Size in bytes.
        sha256: SHA-256 digest, hexadecimal.
    """

    file: str
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Split:
    """The shards of a split.

    Attributes:
        examples: Number of examples.
        class_counts: Number of examples in each class, in the order of the labels.
        image_size: Height and width if all images share them, else None.
        shards: The files.
    """

    examples: int
    class_counts: tuple[int, ...]
    image_size: tuple[int, int] | None
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Index:
    """The contents of ``shards.json``.

    Attributes:
        source: Origin of the images.
        seed: Seed for the order of the examples, and for the splits of a folder of class folders.
        channels: 1 or 3.
        labels: Class names. The label of an example is an index into them.
        skipped: Files that could not be decoded and were left out.
        splits: The splits by name.
    """

    source: str
    seed: int
    channels: int
    labels: tuple[str, ...]
    skipped: tuple[str, ...]
    splits: dict[str, Split]


Report = Callable[[int, int], None]
"""Progress callback: takes the number of examples written and their total."""


def is_shards(folder: Folder) -> bool:
    """Whether a folder holds shards, complete or not."""
    if not folder.is_dir():
        return False
    return (folder / INDEX).is_file() or any(
        name.endswith(ENDING) and not files.is_ignored(name) for name in names_in(folder)
    )


def load(folder: Folder, split: str = "train", *, seed: int = 0, validation: int | float | None = None) -> ImageData:
    """Load one split of a folder of shards; see `keras_deepnets.data.load`.

    The file sizes are compared with the index. The records are counted too, up to 2 GiB and not on other file systems. The digests are
    not computed; use `verify` for that.

    Raises:
        InputError: The split does not exist. The index is missing, damaged or of an unknown version. A shard is missing, truncated,
            or has the wrong number of records. The validation size is invalid.
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
    check_split(str(folder), split, validation)  # before reading anything
    return cut_out(_data(folder, index, "train", ["train"]), split, validation, seed)


def verify(folder: Path, report: Report | None = None) -> Index:
    """Read every shard and compare its digest with the index.

    Args:
        folder: Folder of the shards.
        report: Progress callback: takes the number of bytes read and their total.

    Raises:
        InputError: `load` would raise it, or the bytes of a shard have changed.
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


def read_index(folder: Folder) -> Index:
    """Read the index of a folder of shards.

    Raises:
        InputError: The index is missing, damaged or of an unknown version.
    """
    missing = f"{folder} holds {ENDING} files but no {INDEX}, which describes them; {_AGAIN} (load a TFDS data set by its name)."
    return parsed_index(folder / INDEX, FORMAT, VERSION, _index, missing, "shards", _AGAIN)


def parsed_index(
    path: Folder, form: str, version: int, build: Callable[[dict[str, Any]], Any], missing: str, of: str, again: str
) -> Any:
    """Read an index file and build the index from its JSON.

    Args:
        path: The file.
        form: Its expected format.
        version: Its expected version of the format.
        build: Builds the index. Standard Python errors mean that the values do not fit.
        missing: Message if the file does not exist.
        of: What it is an index of.
        again: How to write the file again.

    Raises:
        InputError: The file is missing, damaged or of an unknown version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(missing) from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); {again}.") from error
    if not isinstance(values, dict) or values.get("format") != form:
        raise InputError(f"{path} is not an index of {of} (format {form!r}); {again}.")
    if values.get("version") != version:
        raise InputError(
            f"{path} has format version {values.get('version')!r}, but this keras_deepnets reads version {version}; update "
            f"keras_deepnets, or {again}."
        )
    try:
        return build(values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}); {again}.") from error


def _index(values: dict[str, Any]) -> Index:
    """Build the index from its JSON. Values that do not fit raise standard Python errors."""
    found = {}
    for name, item in values["splits"].items():
        shards = tuple(Shard(**shard) for shard in item["shards"])
        size = None if item["image_size"] is None else tuple(item["image_size"])
        split = Split(item["examples"], tuple(item["class_counts"]), size, shards)
        counts = {"its shards": sum(shard.examples for shard in shards), "its classes": sum(split.class_counts)}
        for what, count in counts.items():
            if count != split.examples:
                raise ValueError(f"{name} has {split.examples} examples, but {what} add up to {count}")
        if len(split.class_counts) != len(values["labels"]):
            raise ValueError(f"{len(values['labels'])} labels but counts of {len(split.class_counts)} classes")
        found[name] = split
    return Index(
        values["source"],
        values["seed"],
        values["channels"],
        tuple(values["labels"]),
        tuple(values["skipped"]),
        found,
    )


def _check_files(folder: Folder, shards: Sequence[Shard]) -> None:
    """Raise `InputError` unless the files exist, are complete and have the number of records in the index."""

    def check(shard: Shard) -> None:
        path = folder / shard.file
        try:
            size = path.stat().st_size
        except FileNotFoundError as error:
            raise InputError(f"{folder}: shard {shard.file} is missing; {_AGAIN}.") from error
        if size != shard.bytes:
            raise InputError(f"{path} has {size:,} bytes instead of {shard.bytes:,}; {_AGAIN}.")

    with concurrent.futures.ThreadPoolExecutor(32) as pool:  # another file system may take long to answer
        list(pool.map(check, shards))
    if isinstance(folder, RemotePath) or sum(shard.bytes for shard in shards) > COUNT_LIMIT:
        return
    for shard in shards:
        count = count_records(folder / shard.file)
        if count != shard.examples:
            raise InputError(
                f"{folder / shard.file} holds {count:,} whole records instead of {shard.examples:,}; {_AGAIN}."
            )


def count_records(path: Folder) -> int:
    """Count the whole records of a TFRecord file without reading their contents."""
    count, end, size = 0, 0, path.stat().st_size
    with path.open("rb") as file:
        while len(head := file.read(_FRAME.size)) == _FRAME.size:
            end += _FRAME.size + _FRAME.unpack(head)[0] + _TAIL
            if end > size:
                break
            file.seek(end)
            count += 1
    return count


def _data(folder: Folder, index: Index, split: str, names: Sequence[str]) -> ImageData:
    """The shards of one or more splits as one data set."""
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
