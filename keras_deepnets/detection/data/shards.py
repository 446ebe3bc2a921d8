"""A detection data set as TFRecord shards: a few large files instead of many small ones.

The files ``OUT/<split>-00000-of-00008.tfrecord`` hold examples with the field names of TensorFlow's object detection records
(`image/encoded`, `image/object/bbox/xmin` as a fraction, `image/object/class/label` from 1, …). Image files are stored byte for byte;
the boxes belong to the upright image. ``OUT/<split>.npz`` holds the boxes in pixels and the place of each image, so that loading reads
no records and any order is possible. ``OUT/detection.json`` describes the files. It is written last, and loading requires it.
"""

from __future__ import annotations

import dataclasses
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_deepnets.data import files
from keras_deepnets.data.shards import ENDING, Shard, parsed_index
from keras_deepnets.data.shards import INDEX as CLASSIFICATION_INDEX
from keras_deepnets.detection.data.annotations import Annotation, Dropped
from keras_deepnets.detection.data.detection_data import DetectionData
from keras_deepnets.detection.data.images import ImageSource
from keras_deepnets.detection.data.layout import split_name
from keras_deepnets.errors import InputError, NoSuchSplit
from keras_deepnets.files import digest

INDEX = "detection.json"
"""Name of the index file in the folder of the shards."""

FORMAT, VERSION = "keras_deepnets.detection_shards", 1

_AGAIN = "copy the whole folder again, or write it again with write_shards"


@dataclass(frozen=True)
class Split:
    """The files of a split.

    Attributes:
        examples: Number of images.
        boxes: Number of boxes in the source, including those that were left out.
        clipped: Number of boxes that were clipped to their image.
        dropped: The boxes that were left out, by reason.
        annotations: The file of boxes and places.
        shards: The files of records.
    """

    examples: int
    boxes: int
    clipped: int
    dropped: dict[str, tuple[str, ...]]
    annotations: Shard
    shards: tuple[Shard, ...]


@dataclass(frozen=True)
class Index:
    """The contents of ``detection.json``.

    Attributes:
        source: Origin of the images.
        seed: Seed of the order of the images.
        classes: Class names with the background first.
        splits: The splits by name.
    """

    source: str
    seed: int
    classes: tuple[str, ...]
    splits: dict[str, Split]


def is_shards(folder: Path) -> bool:
    """Whether a folder holds shards, complete or not."""
    if not folder.is_dir():
        return False
    return (folder / INDEX).is_file() or any(not files.is_ignored(path.name) for path in folder.glob(f"*{ENDING}"))


def load(folder: Path, split: str, *, limit: int | None = None, cached: bool = True) -> DetectionData:
    """Load one split of a folder of shards.

    The sizes of the files are compared with the index. The digests of the records are not computed; use `verify` for that.

    Raises:
        NoSuchSplit: The folder has no such split.
        InputError: The index or a shard is missing, damaged or incomplete.
    """
    index = read_index(folder)
    found = split_name(split, index.splits)
    if found is None:
        raise NoSuchSplit(f"split {split!r}: {folder} has {', '.join(index.splits)}.")
    part = index.splits[found]
    _check_files(folder, (part.annotations, *part.shards))
    annotations = _annotations(folder, part)[:limit]
    dropped = Dropped(part.dropped, part.clipped, part.boxes)
    return DetectionData(str(folder), found, index.classes, annotations, dropped, cached)


def verify(folder: Path) -> Index:
    """Read every file and compare its digest with the index.

    Raises:
        InputError: `load` would raise it, or the bytes of a file have changed.
    """
    index = read_index(folder)
    every = [file for part in index.splits.values() for file in (part.annotations, *part.shards)]
    _check_files(folder, tuple(every))
    changed = [file.file for file in every if digest(folder / file.file) != file.sha256]
    if changed:
        raise InputError(f"{folder}: the bytes of {', '.join(changed)} are not those that were written; {_AGAIN}.")
    return index


def read_index(folder: Path) -> Index:
    """Read the index of a folder of shards.

    Raises:
        InputError: The index is missing, damaged or of an unknown version.
    """
    missing = f"{folder} holds {ENDING} files but no {INDEX}, so it is unfinished; {_AGAIN}."
    if (folder / CLASSIFICATION_INDEX).is_file():
        missing = f"{folder} holds shards for classification, without boxes; load it with keras_deepnets.data.load."
    return parsed_index(folder / INDEX, FORMAT, VERSION, _index, missing, "detection shards", _AGAIN)


def _index(values: dict[str, Any]) -> Index:
    """Build the index from its JSON. Values that do not fit raise standard Python errors."""
    found = {}
    for name, item in values["splits"].items():
        item = dict(item)
        shards = tuple(Shard(**shard) for shard in item.pop("shards"))
        dropped = {reason: tuple(names) for reason, names in item.pop("dropped").items()}
        split = Split(shards=shards, dropped=dropped, annotations=Shard(**item.pop("annotations")), **item)
        if sum(shard.examples for shard in shards) != split.examples:
            raise ValueError(f"{name} has {split.examples} examples, but its shards hold another number")
        found[name] = split
    return Index(values["source"], values["seed"], tuple(values["classes"]), found)


def to_json(index: Index) -> dict[str, Any]:
    """The index as plain values."""
    return {"format": FORMAT, "version": VERSION} | dataclasses.asdict(index)


def _check_files(folder: Path, every: tuple[Shard, ...]) -> None:
    """Raise `InputError` unless the files exist and are complete."""
    for file in every:
        path = folder / file.file
        if not path.is_file():
            raise InputError(f"{folder}: {file.file} is missing; {_AGAIN}.")
        if (size := path.stat().st_size) != file.bytes:
            raise InputError(f"{path} has {size:,} bytes instead of {file.bytes:,}; {_AGAIN}.")


def _annotations(folder: Path, part: Split) -> tuple[Annotation, ...]:
    """The annotations in the file of a split."""
    path = folder / part.annotations.file
    if digest(path) != part.annotations.sha256:
        raise InputError(f"{path} is damaged; {_AGAIN}.")
    try:
        with np.load(path, allow_pickle=False) as stored:
            values = dict(stored)
    except (ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}); {_AGAIN}.") from error
    ends = np.cumsum(values["counts"])
    paths = [str(folder / shard.file) for shard in part.shards]
    found = []
    for row, (begin, end) in enumerate(zip(ends - values["counts"], ends, strict=True)):
        place = ImageSource(paths[values["shard"][row]], int(values["offset"][row]), int(values["length"][row]))
        height, width = values["shape"][row].tolist()
        objects = (values[key][begin:end] for key in ("boxes", "labels", "crowd", "difficult", "area"))
        found.append(Annotation(place, str(values["image_id"][row]), width, height, *objects))
    return tuple(found)
