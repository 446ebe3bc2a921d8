"""A file system of Beam for tests: ``mem://bucket/name``, in this process."""

import io

from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

FILES = {}


class _Writing(io.BytesIO):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def close(self):
        if not self.closed:
            FILES[self.path] = self.getvalue()
        super().close()


class MemoryFileSystem(FileSystem):
    @classmethod
    def scheme(cls):
        return "mem"

    def join(self, basepath, *paths):
        return "/".join([basepath.rstrip("/"), *paths])

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path):
        raise BeamIOError("there are no folders")

    def has_dirs(self):
        return False

    def _list(self, dir_or_prefix):
        for path, content in list(FILES.items()):
            if path.startswith(dir_or_prefix):
                yield FileMetadata(path, len(content))

    def create(self, path, mime_type="application/octet-stream", compression_type="auto"):
        return _Writing(path)

    def open(self, path, mime_type="application/octet-stream", compression_type="auto"):
        if path not in FILES:
            raise BeamIOError(f"{path} is missing")
        return io.BytesIO(FILES[path])

    def copy(self, source_file_names, destination_file_names):
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            FILES[target] = FILES[source]

    def rename(self, source_file_names, destination_file_names):
        for source, target in zip(source_file_names, destination_file_names, strict=True):
            FILES[target] = FILES.pop(source)

    def exists(self, path):
        return path in FILES

    def size(self, path):
        return len(FILES[path])

    def last_updated(self, path):
        return 0.0

    def checksum(self, path):
        return str(hash(FILES[path]))

    def metadata(self, path):
        return FileMetadata(path, len(FILES[path]))

    def delete(self, paths):
        for path in paths:
            FILES.pop(path, None)
