"""Folders and files of other file systems, e.g. ``gs://bucket/folder``, read through TensorFlow."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from keras_deepnets.errors import InputError

_PLUGIN = "tensorflow_io"
"""Package that adds file systems to TensorFlow when it is imported."""


class Status(NamedTuple):
    """The part of `os.stat_result` that the readers of shards use."""

    st_size: int


class RemotePath:
    """A path of another file system with the methods of `pathlib.Path` that the readers of shards use.

    Args:
        url: ``scheme://…``.

    Raises:
        InputError: By each method that reads: TensorFlow does not know the file system, or cannot reach it.
    """

    def __init__(self, url: str):
        self.url = url.rstrip("/")

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self.url).name

    @property
    def parent(self) -> RemotePath:
        """The folder of the file."""
        return RemotePath(self.url.rpartition("/")[0])

    def stat(self) -> Status:
        """The size of the file.

        Raises:
            FileNotFoundError: It does not exist.
        """
        return Status(int(self._answer("stat").length))

    def is_file(self) -> bool:
        """Whether a file exists here."""
        try:
            return not self._answer("stat").is_directory
        except FileNotFoundError:
            return False

    def is_dir(self) -> bool:
        """Whether a folder exists here. Some file systems have none: then, whether names begin with it."""
        self.is_file()  # `isdir` answers no where it should raise
        return bool(self._answer("isdir"))

    def names(self) -> list[str]:
        """The names in the folder."""
        return [name.rstrip("/") for name in self._answer("listdir")]

    def open(self, mode: str = "rb") -> IO[Any]:
        """Open the file to read it. Errors come when it is read."""
        import tensorflow as tf

        return tf.io.gfile.GFile(self.url, mode)

    def read_text(self, encoding: str = "utf-8") -> str:
        """The content of the file.

        Raises:
            FileNotFoundError: It does not exist.
        """
        with _clear(self.url), self.open() as file:
            return file.read().decode(encoding)

    def _answer(self, question: str) -> Any:
        import tensorflow as tf

        with _clear(self.url):
            try:
                return getattr(tf.io.gfile, question)(self.url)
            except tf.errors.UnimplementedError:
                importlib.import_module(_PLUGIN)  # it may know the scheme
                return getattr(tf.io.gfile, question)(self.url)


Folder = Path | RemotePath
"""A folder or file of this machine or of another file system."""


def is_remote(source: Any) -> bool:
    """Whether a source names another file system."""
    return isinstance(source, str) and "://" in source


def path_of(text: str) -> Folder:
    """A path of this machine, or of another file system."""
    return RemotePath(text) if is_remote(text) else Path(text).expanduser()


def names_in(folder: Folder) -> list[str]:
    """The names in a folder."""
    return folder.names() if isinstance(folder, RemotePath) else [entry.name for entry in folder.iterdir()]


@contextlib.contextmanager
def _clear(url: str) -> Iterator[None]:
    """A scope that turns TensorFlow's errors into `FileNotFoundError` or one clear line."""
    import tensorflow as tf

    scheme = url.partition("://")[0]
    try:
        yield
    except tf.errors.NotFoundError:
        raise FileNotFoundError(url) from None
    except (tf.errors.UnimplementedError, ImportError):
        raise InputError(
            f"{url}: TensorFlow has no file system for {scheme}://. Install a plugin that has it (pip install tensorflow-io for s3, hdfs "
            "and others), or copy the shards to a local folder."
        ) from None
    except tf.errors.OpError as error:
        reason = " ".join(str(error.message).split())
        raise InputError(
            f"{url} cannot be read: {reason[:200]}. Check the address, the network and the credentials."
        ) from None
