"""Files on a local disk, or at a URL that Beam reads (``gs://``, ``s3://``, ``hdfs://``)."""

from __future__ import annotations

import glob
import os
import uuid
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

from keras_deepnets.files import flush, flush_entry

PARTIAL = ".partial-"
"""How the names of unfinished files begin."""


def is_url(path: str) -> bool:
    """Whether a path has a scheme, as in ``gs://bucket/name``."""
    return "://" in path


def join(folder: str, name: str) -> str:
    """The path of a file in a folder. An absolute name is returned unchanged."""
    if is_url(name) or not folder:
        return name
    return f"{folder.rstrip('/')}/{name}" if is_url(folder) else os.path.join(folder, name)  # noqa: PTH118 - may be a URL


def open_binary(path: str) -> BinaryIO:
    """Open a file to read its bytes, without decompression.

    Raises:
        OSError: The file cannot be opened.
    """
    if not is_url(path):
        return Path(path).open("rb")
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    return cast(BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))


def read(path: str) -> bytes:
    """The content of a file. Raise OSError if it cannot be read."""
    with open_binary(path) as file:
        return file.read()


def exists(path: str) -> bool:
    """Whether there is such a file or folder."""
    if not is_url(path):
        return Path(path).exists()
    from apache_beam.io.filesystems import FileSystems

    return bool(FileSystems.exists(path))


def matches(pattern: str) -> list[tuple[str, int]]:
    """Path and size in bytes of the files that match a pattern, by path. ``**`` matches any folders.

    Raises:
        OSError: The file system cannot list them.
    """
    if not is_url(pattern):
        found = (Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 - takes absolute patterns
        return sorted((str(path), path.stat().st_size) for path in found if path.is_file())
    from apache_beam.io.filesystems import FileSystems

    (result,) = FileSystems.match([pattern])
    return sorted((entry.path, entry.size_in_bytes) for entry in result.metadata_list)


def names_in(folder: str) -> set[str]:
    """The names of the files directly in a folder; none if the folder does not exist."""
    if not is_url(folder):
        return {entry.name for entry in Path(folder).iterdir()} if Path(folder).is_dir() else set()
    prefix = f"{folder.rstrip('/')}/"
    return {path.removeprefix(prefix) for path, _ in matches(f"{prefix}*")}


def make_folder(folder: str) -> None:
    """Create a folder if it is missing. An object store has none."""
    if not is_url(folder):
        Path(folder).mkdir(parents=True, exist_ok=True)
        return
    from apache_beam.io.filesystems import FileSystems

    with suppress(OSError):  # it exists, or the store has no folders
        FileSystems.mkdirs(folder)


def write(path: str, content: bytes) -> None:
    """Write a file, atomically. Several processes may write the same file; the last one wins.

    Raises:
        OSError: The file cannot be written.
    """
    folder, _, name = path.rpartition("/" if is_url(path) else os.sep)
    # A runner may do the same work twice at the same time, so each writer has its own name.
    aside = join(folder, f"{PARTIAL}{uuid.uuid4().hex}-{name}")
    if not is_url(path):
        try:
            Path(aside).write_bytes(content)
            flush(Path(aside))
            Path(aside).replace(path)
            flush_entry(Path(path).parent)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise
        return
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    with FileSystems.create(aside, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.write(content)
    FileSystems.rename([aside], [path])


def remove(path: str) -> None:
    """Delete a file if it exists."""
    if not is_url(path):
        Path(path).unlink(missing_ok=True)
        return
    from apache_beam.io.filesystems import FileSystems

    if FileSystems.exists(path):
        FileSystems.delete([path])
