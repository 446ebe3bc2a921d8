"""The images of a job: what the user names, cut into shards, and read by the workers."""

from __future__ import annotations

import json
import os
import struct
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_deepnets.batch import storage
from keras_deepnets.data import files, shards
from keras_deepnets.errors import InputError

FEATURES = ("image/encoded", "image")
"""Names of the feature of a `tf.train.Example` that holds an image file, the first that is present."""

_RECORDS = ".tfrecord"
_WILD = "*?["
_HEAD, _TAIL = struct.Struct("<QI"), 4  # length of a record and its checksum; another checksum follows the record


@dataclass(frozen=True)
class Source:
    """An image file or a record file.

    Attributes:
        path: The path as the user names it.
        size: Size in bytes.
        starts: Byte offset of each record, and of the end. None for an image file.
    """

    path: str
    size: int
    starts: Sequence[int] | None = None

    @property
    def images(self) -> int:
        """Number of images."""
        return 1 if self.starts is None else len(self.starts) - 1


@dataclass(frozen=True)
class Work:
    """A shard of a job.

    Attributes:
        number: Its place among the shards, from 0.
        images: Number of its images.
        offset: Where its lines start in the list of images, in bytes.
        lines: Number of its lines.
    """

    number: int
    images: int
    offset: int
    lines: int


@dataclass(frozen=True)
class Image:
    """An image on its way to the model.

    Attributes:
        shard: Number of its shard.
        shard_images: Number of images in that shard.
        place: Its place in the shard, from 0.
        name: The file, or record file and position.
        content: The encoded image, or None if it cannot be read.
        error: Why it cannot be read, or None.
    """

    shard: int
    shard_images: int
    place: int
    name: str
    content: bytes | None
    error: str | None = None


def find(sources: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """The images that files, folders and patterns name, each file once. Print a note about other files in folders.

    Raises:
        InputError: A source does not exist or holds no images, or a record file is damaged.
    """
    if isinstance(sources, (str, os.PathLike)):
        sources = [sources]
    found: dict[str, int] = {}
    for source in (os.fspath(each) for each in sources):
        some = _in_folder(source) if Path(source).is_dir() else _matching(source)
        found |= {path: size for path, size in some if path not in found}
    if not found:
        raise InputError("no images were given; give image files, folders, patterns or TFRecord files.")
    return [_source(path, size) for path, size in found.items()]


def _in_folder(folder: str) -> list[tuple[str, int]]:
    left_out: Counter[str] = Counter()
    paths = sorted((entry.path for entry in files.images(Path(folder), left_out)), key=Path)  # the order of `predict`
    paths += _record_files(Path(folder), left_out)
    if not paths:
        raise InputError(f"{folder} holds no images ({' '.join(files.EXTENSIONS)}) and no TFRecord files.")
    files.say_left_out(folder, left_out)
    return [(path, _size(path)) for path in paths]


def _record_files(folder: Path, left_out: Counter[str]) -> list[str]:
    """The record files in a folder and its subfolders. They no longer count as left out, nor does the index of shards.

    Raises:
        InputError: Shards differ from their index.
    """
    found = []
    for path in sorted((*folder.rglob(f"*{_RECORDS}*"), *folder.rglob(shards.INDEX))):
        hidden = any(files.is_ignored(part) for part in path.relative_to(folder).parts)
        if hidden or files.is_image(path.name) or not path.is_file():
            continue
        if path.name == shards.INDEX:
            shards.load(path.parent, "all")  # a missing or incomplete shard is an error
        else:
            found.append(str(path))
        left_out[path.suffix.lower()] -= 1
    for suffix in [suffix for suffix, count in left_out.items() if count <= 0]:
        del left_out[suffix]
    return found


def is_records(name: str) -> bool:
    """Whether a file name is that of a TFRecord file: ``a.tfrecord``, ``a.tfrecords`` or ``a.tfrecord-00000-of-00008``."""
    return _RECORDS in name and not files.is_image(name)


def _matching(source: str) -> list[tuple[str, int]]:
    """The files that a path or a pattern names."""
    wild = any(character in source for character in _WILD)
    try:
        if not wild and not storage.is_url(source) and Path(source).is_file():
            return [(source, _size(source))]
        found = storage.matches(source)
        if not found and storage.is_url(source) and not wild:  # a folder
            found = storage.matches(f"{source.rstrip('/')}/**")
    except Exception as error:  # the file systems of Beam raise many types, e.g. for an unknown scheme
        raise InputError(f"{source} cannot be listed: {_first_line(error)}; check its address.") from error
    if wild or storage.is_url(source):
        found = [(path, size) for path, size in found if files.is_image(path) or is_records(path.rpartition("/")[2])]
        if not found:
            raise InputError(f"{source} matches no images and no TFRecord files; give files, folders or patterns.")
    elif not found:
        raise InputError(f"{source} does not exist; give image files, folders, patterns or TFRecord files.")
    return found


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:  # a broken link: reading it reports the error
        return 0


def _source(path: str, size: int) -> Source:
    return Source(path, size, _starts(path, size)) if is_records(Path(path).name) else Source(path, size)


def _starts(path: str, size: int) -> Sequence[int]:
    """The byte offset of each record of a file, and of its end. Only the heads of the records are read.

    Raises:
        InputError: The file cannot be read, is cut off, or is not a TFRecord file without compression.
    """
    starts = array("Q", [0])
    try:
        with storage.open_binary(path) as file:
            while len(head := file.read(_HEAD.size)) == _HEAD.size:
                end = starts[-1] + _HEAD.size + _HEAD.unpack(head)[0] + _TAIL
                if end > size:
                    break
                starts.append(end)
                file.seek(end)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}); leave it out or repair it.") from error
    if starts[-1] != size:
        raise InputError(
            f"{path} ends in the middle of record {len(starts) - 1:,}, or is compressed; copy it again, or write it uncompressed."
        )
    return starts


def cut(sources: Sequence[Source], count: int) -> tuple[list[Work], bytes]:
    """Cut the images into shards of almost equal size.

    Args:
        sources: The image files and record files.
        count: Number of shards.

    Returns:
        The shards, and the list of images that they point into: JSON lines ``[path, size]`` of an image file, and
        ``[path, size, first, count, start, stop]`` of a run of records.
    """
    total = sum(source.images for source in sources)
    ends = [total * (number + 1) // count for number in range(count)]
    lines: list[list[bytes]] = [[] for _ in ends]
    done, shard = 0, 0
    for source in sources:
        first = 0
        while first < source.images:
            while ends[shard] <= done:
                shard += 1
            taken = min(source.images - first, ends[shard] - done)
            values: list[Any] = [source.path, source.size]
            if source.starts is not None:
                values += [first, taken, source.starts[first], source.starts[first + taken]]
            lines[shard].append(json.dumps(values).encode() + b"\n")
            first, done = first + taken, done + taken
    works, offset, begin = [], 0, 0
    for number, (end, some) in enumerate(zip(ends, lines, strict=True)):
        works.append(Work(number, end - begin, offset, len(some)))
        offset, begin = offset + sum(map(len, some)), end
    return works, b"".join(line for some in lines for line in some)


def images_of(work: Work, listing: str, base: str) -> Iterator[Image]:
    """Read the images of a shard. An image that cannot be read has an error instead of content.

    Args:
        work: The shard.
        listing: Path of the list of images.
        base: The folder that relative paths start from.
    """
    with storage.open_binary(listing) as file:
        file.seek(work.offset)
        lines = [json.loads(file.readline()) for _ in range(work.lines)]
    place = 0
    for path, _, *run in lines:
        some = _records(path, join(base, path), *run) if run else [(path, *_file(path, join(base, path)))]
        for name, content, error in some:
            yield Image(work.number, work.images, place, name, content, error)
            place += 1


def join(base: str, path: str) -> str:
    """The path to open."""
    return path if storage.is_url(path) else storage.join(base, path)


def _file(name: str, path: str) -> tuple[bytes | None, str | None]:
    try:
        return storage.read(path), None
    except OSError as error:
        return None, f"{name}: cannot be read ({error.strerror or _first_line(error)})."


def _records(
    name: str, path: str, first: int, count: int, start: int, stop: int
) -> Iterator[tuple[str, bytes | None, str | None]]:
    """Name, image file and error of each record of a run."""
    position = first
    try:
        for record in _contents(path, start, stop):
            named = f"{name}#{position}"
            if record is None:
                yield named, None, f"{named} is damaged: its checksum is wrong; leave it out or write it again."
            else:
                yield named, *_image_in(record, named)
            position += 1
        reason = "it has fewer records than before"
    except OSError as error:
        reason = error.strerror or _first_line(error)
    for place in range(position, first + count):
        yield f"{name}#{place}", None, f"{name}: cannot be read ({reason})."


def _contents(path: str, start: int, stop: int) -> Iterator[bytes | None]:
    """The records between two byte offsets. None for a record with a wrong checksum."""
    import tensorflow as tf

    # TensorFlow checks the checksums, but reads whole local files only.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "records"
        while start < stop:
            _copy(path, start, stop, file)
            try:
                for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
                    start += _HEAD.size + len(record) + _TAIL
                    yield record
            except tf.errors.DataLossError:
                with storage.open_binary(path) as source:
                    source.seek(start)
                    start += _HEAD.size + _HEAD.unpack(source.read(_HEAD.size))[0] + _TAIL
                yield None


def _copy(path: str, start: int, stop: int, target: Path) -> None:
    """Copy a part of a file."""
    with storage.open_binary(path) as source, target.open("wb") as file:
        source.seek(start)
        while start < stop:
            block = source.read(min(stop - start, 1 << 24))
            if not block:
                raise OSError("it is shorter than before")
            start += len(block)
            file.write(block)


def _image_in(record: bytes, name: str) -> tuple[bytes | None, str | None]:
    """The image file in a serialised `tf.train.Example`, or why there is none."""
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return None, f"{name} is not a tf.train.Example; write the records with `keras-deepnets data shard`."
    for key in FEATURES:
        if key in features and features[key].bytes_list.value:
            return features[key].bytes_list.value[0], None
    held = ", ".join(sorted(features)) or "nothing"
    return None, f"{name} has no image in {' or '.join(FEATURES)}; it holds {held}."


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
