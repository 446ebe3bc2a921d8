"""Write a detection data set as TFRecord shards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_deepnets.data import headers, splits
from keras_deepnets.data.shard_writing import SHARD_BYTES, check_arguments
from keras_deepnets.data.shards import ENDING, Shard
from keras_deepnets.detection.data.annotations import Annotation
from keras_deepnets.detection.data.detection_data import DetectionData
from keras_deepnets.detection.data.shards import INDEX, Index, Split, to_json
from keras_deepnets.errors import InputError
from keras_deepnets.files import digest, write_errors, write_json, written_aside

_HEAD, _TAIL = 12, 4  # bytes around a record: its length and checksums


def write(
    data: DetectionData | Mapping[str, DetectionData],
    folder: str | os.PathLike,
    shards: int | None = None,
    *,
    seed: int = 0,
) -> Index:
    """Write a data set as TFRecord shards, which `keras_deepnets.detection.data.load` reads.

    The same data, ``shards`` and ``seed`` always give byte-identical files.

    Args:
        data: The data set, or several splits by name.
        folder: A new or empty folder. It stays empty until everything is written.
        shards: Number of shards per split. None: as many as give about 128 MiB each.
        seed: Seed of the order of the images.

    Returns:
        The index.

    Raises:
        InputError: ``folder`` is a file, is not empty or is not writable. A split has fewer images than ``shards``. The
            splits have different classes.
    """
    sets = dict(data) if isinstance(data, Mapping) else {data.split: data}
    if not sets:
        raise InputError("data={} holds no split; give a data set, or several by name.")
    first = next(iter(sets.values()))
    for name, some in sets.items():
        if some.classes != first.classes:
            raise InputError(
                f"split {name!r} has other classes than the first one; load all splits with the same classes=[…]."
            )
        if shards is not None and some.size < shards:
            raise InputError(f"shards={shards}: the {name} split of {some.name} has only {some.size} images.")
    # Shards may be inside the source, where they cannot be mistaken for a class. So no source is passed.
    target = check_arguments(Path(folder) / INDEX, folder, shards, None)
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_aside(target) as aside:
            aside.mkdir()
            found = {name: _split(aside, name, some, shards, seed) for name, some in sets.items()}
            index = Index(first.name, seed, first.classes, found)
            write_json(aside / INDEX, to_json(index))
    return index


@dataclass(frozen=True)
class _Places:
    """The order of the written images, and the place of each: shard, offset and length."""

    rows: list[int] = field(default_factory=list)
    shards: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)


def _split(folder: Path, name: str, data: DetectionData, shards: int | None, seed: int) -> Split:
    """Write the files of one split."""
    order = splits.shuffled([each.image_id for each in data.annotations], seed)
    count = shards or _suitable_count(data)
    places, written = _Places(), []
    for number in range(count):
        path = folder / f"{name}-{number:05d}-of-{count:05d}{ENDING}"
        rows = order[number::count]
        _shard(path, number, rows, data, places)
        written.append(Shard(path.name, len(rows), path.stat().st_size, digest(path)))
    path = folder / f"{name}.npz"
    np.savez(path, **_arrays([data.annotations[row] for row in places.rows], places))
    described = Shard(path.name, data.size, path.stat().st_size, digest(path))
    dropped = dict(data.dropped.names)
    return Split(data.size, data.dropped.boxes, data.dropped.clipped, dropped, described, tuple(written))


def _suitable_count(data: DetectionData) -> int:
    """Number of shards of about 128 MiB."""
    total = sum(each.image.size for each in data.annotations)
    return min(max(1, round(total / SHARD_BYTES)), data.size)


def _shard(path: Path, number: int, rows: Sequence[int], data: DetectionData, places: _Places) -> None:
    """Write one file of records, and add the places of its images."""
    import tensorflow as tf

    begin = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            annotation = data.annotations[row]
            encoded = annotation.image.read()
            record = _example(encoded, annotation, data.classes)
            writer.write(record)
            places.rows.append(row)
            places.shards.append(number)
            places.offsets.append(begin + _HEAD + record.index(encoded))
            places.lengths.append(len(encoded))
            begin += _HEAD + len(record) + _TAIL


def _arrays(annotations: Sequence[Annotation], places: _Places) -> dict[str, Any]:
    """The arrays of the file beside the records."""
    objects = {
        key: np.concatenate([getattr(each, key) for each in annotations])
        for key in ("boxes", "labels", "crowd", "difficult", "area")
    }
    return objects | {
        "counts": np.array([len(each) for each in annotations], np.int64),
        "shape": np.array([(each.height, each.width) for each in annotations], np.int64),
        "image_id": np.array([each.image_id for each in annotations], np.str_),
        "shard": np.array(places.shards, np.int64),
        "offset": np.array(places.offsets, np.int64),
        "length": np.array(places.lengths, np.int64),
    }


def _example(encoded: bytes, annotation: Annotation, classes: Sequence[str]) -> bytes:
    """A serialised ``tf.train.Example``."""
    import tensorflow as tf

    def numbers(values: Any) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value) for value in values]))

    def floats(values: Any) -> Any:
        return tf.train.Feature(float_list=tf.train.FloatList(value=np.asarray(values, np.float32)))

    def words(values: Sequence[str]) -> Any:
        return raw([value.encode("utf-8", "surrogateescape") for value in values])

    def raw(values: list[bytes]) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))

    x1, y1, x2, y2 = annotation.boxes.T
    features = {
        "image/encoded": raw([encoded]),
        "image/format": words([headers.describe(encoded)[0]]),
        "image/height": numbers([annotation.height]),
        "image/width": numbers([annotation.width]),
        "image/source_id": words([annotation.image_id]),
        "image/filename": words([Path(annotation.image.path).name]),
        "image/object/bbox/xmin": floats(x1 / annotation.width),
        "image/object/bbox/ymin": floats(y1 / annotation.height),
        "image/object/bbox/xmax": floats(x2 / annotation.width),
        "image/object/bbox/ymax": floats(y2 / annotation.height),
        "image/object/class/label": numbers(annotation.labels),
        "image/object/class/text": words([classes[int(label)] for label in annotation.labels]),
        "image/object/is_crowd": numbers(annotation.crowd),
        "image/object/difficult": numbers(annotation.difficult),
        "image/object/area": floats(annotation.area),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)  # a protobuf map has no defined order
