"""Identities of image sets: plain JSON values with digests of the images. Equal identities mean the same images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, overload

import numpy as np

from keras_deepnets.data import ImageData, shards
from keras_deepnets.data.records import RecordStore
from keras_deepnets.data.remote import Folder, path_of
from keras_deepnets.data.stores import ArrayPixels, IndexedStore, PackedPixels
from keras_deepnets.training.feed import Sets


def identities(sets: Sets) -> dict[str, Any]:
    """Return the identities of the training images (`data`) and of the validation images (`validation`).

    The latter is None without validation images.
    """
    held = identity(sets.held)
    return {"data": identity(sets.train), "validation": held and held | {"cut": sets.cut}}


@overload
def identity(data: ImageData) -> dict[str, Any]: ...


@overload
def identity(data: None) -> None: ...


def identity(data: ImageData | None) -> dict[str, Any] | None:
    """Return the values that identify a set of images; None for None.

    `digests` identifies the images: files by their names, sizes and modification times, records by their files, and
    images in memory by their pixels.
    """
    if data is None:
        return None
    return {
        "name": data.name,
        "split": data.split,
        "size": data.size,
        "image_shape": list(data.image_shape),
        "labels": list(data.labels),
        "digests": _digests(data),
    }


def _digests(data: ImageData) -> dict[str, str]:
    store = data.store
    if isinstance(store, RecordStore):
        return {"records": _digest(_records(store))}
    if not isinstance(store, IndexedStore):
        return {}
    if store.names:  # paths relative to the folder that names the set
        stats = [Path(data.name, name).stat() for name in store.names]
        files = (f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats)
        return {"names": _digest(store.names), "files": _digest(files)}
    return {"pixels": _digest(_pixels(store)), "labels": _digest([store.labels.tobytes()])}


def _records(store: RecordStore) -> Iterable[str]:
    """Yield a line per record file, with its digest from the index of this library's shards, otherwise its size."""
    known: dict[str, dict[str, str]] = {}  # by folder: there may be thousands of files, and one index
    for piece in store.pieces:
        path = path_of(piece.path)
        folder = str(path.parent)
        if folder not in known:
            known[folder] = _known_digests(path.parent)
        yield f"{path.name} {piece.skip} {piece.take} {known[folder].get(path.name) or path.stat().st_size}"


def _known_digests(folder: Folder) -> dict[str, str]:
    if not (folder / shards.INDEX).is_file():
        return {}
    index = shards.read_index(folder)
    return {shard.file: shard.sha256 for split in index.splits.values() for shard in split.shards}


def _pixels(store: IndexedStore) -> Iterable[bytes | np.ndarray]:
    if isinstance(store.pixels, PackedPixels):
        if None in store.image_shape:
            yield store.pixels.shapes[store.rows].tobytes()
        yield from store.pixels.chunks(store.rows)
        return
    assert isinstance(store.pixels, ArrayPixels)  # images in files have names, so this is not called for them
    for start in range(0, store.size, 1024):
        yield store.pixels.images[store.rows[start : start + 1024]]


def _digest(parts: Iterable[Any]) -> str:
    """Return a digest of strings, bytes or arrays in order."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part.encode("utf-8", "surrogateescape") + b"\0" if isinstance(part, str) else part)
    return found.hexdigest()
