"""The image files of a detection data set: their place, and their size without decoding the pixels."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from keras_deepnets.data import headers, orientation
from keras_deepnets.errors import InputError

_THREADS = 16
# Markers of a JPEG: those that start a frame, and those without a length.
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_BARE = {0x01, *range(0xD0, 0xD8)}
_EXIF, _SCAN, _END = 0xE1, 0xDA, 0xD9


@dataclass(frozen=True)
class ImageSource:
    """The place of an encoded image: a file, a range of bytes in a file of records, or memory.

    Attributes:
        path: Path of the file. For an image in memory a name for messages.
        offset: First byte.
        length: Number of bytes. None: the rest of the file.
        contents: The encoded image, if it is in memory.
    """

    path: str
    offset: int = 0
    length: int | None = None
    contents: bytes | None = field(default=None, repr=False)

    @property
    def is_file(self) -> bool:
        """Whether the image is a whole file."""
        return self.contents is None and self.length is None and not self.offset

    @property
    def size(self) -> int:
        """Number of bytes."""
        if self.contents is not None:
            return len(self.contents)
        return Path(self.path).stat().st_size - self.offset if self.length is None else self.length

    def read(self) -> bytes:
        """The encoded image."""
        if self.contents is not None:
            return self.contents
        with Path(self.path).open("rb") as file:
            file.seek(self.offset)
            return file.read(-1 if self.length is None else self.length)


@dataclass(frozen=True)
class ImageSize:
    """Size of an image in pixels.

    Attributes:
        width: Width of the upright image.
        height: Height of the upright image.
        orientation: EXIF orientation from 1 to 8.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def stored(self) -> tuple[int, int]:
        """Width and height of the stored image, before its EXIF orientation turns it."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def sizes(sources: Sequence[ImageSource]) -> list[ImageSize]:
    """The sizes of images, read in several threads.

    Raises:
        InputError: A file is missing or not an image.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        quick = list(threads.map(_quick_size, sources))
    # One after the other: the first call creates a graph, which threads would create several times.
    return [_whole_size(source) if found is None else found for source, found in zip(sources, quick, strict=True)]


def _quick_size(source: ImageSource) -> ImageSize | None:
    """The size of a JPEG without EXIF, of which only the segments before the scan are read. None for other files."""
    if source.contents is not None:
        return _jpeg_size(io.BytesIO(source.contents))
    try:
        with Path(source.path).open("rb") as file:
            file.seek(source.offset)
            return _jpeg_size(file)
    except OSError:
        return None  # `_whole_size` raises it


def _whole_size(source: ImageSource) -> ImageSize:
    """The size of an image of any kind from all of its bytes.

    Raises:
        InputError: The file is missing or not an image.
    """
    import tensorflow as tf

    try:
        contents = source.read()
        turned = int(orientation.of(contents)) if orientation.may_have(contents) else orientation.UPRIGHT
        _, height, width = headers.describe(contents)
        return ImageSize(width, height, turned)
    except OSError as error:
        raise InputError(
            f"image {source.path} cannot be read ({error.strerror}); add it or remove it from the split."
        ) from error
    except tf.errors.InvalidArgumentError as error:
        raise InputError(f"{source.path} is not an image that can be decoded; repair or replace it.") from error


def _jpeg_size(file: BinaryIO) -> ImageSize | None:
    """The size in the header of a JPEG without EXIF. None: the file is of another kind, or needs the whole contents."""
    if file.read(2) != b"\xff\xd8":
        return None
    while len(head := file.read(4)) == 4 and head[0] == 0xFF:
        marker, length = head[1], int.from_bytes(head[2:], "big")
        if marker in _FRAMES:
            frame = file.read(5)
            if len(frame) < 5:
                return None
            height, width = struct.unpack(">HH", frame[1:])
            return ImageSize(width, height) if height and width else None
        if marker in (_EXIF, _SCAN, _END, 0xFF) or marker in _BARE or length < 2:
            return None
        file.seek(length - 2, 1)
    return None
