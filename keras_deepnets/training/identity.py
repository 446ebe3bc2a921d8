"""What makes the images of two runs the same: plain JSON values, with digests of the images themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from keras_deepnets.data import ImageData, shards
from keras_deepnets.data.records import RecordStore
from keras_deepnets.data.stores import IndexedStore, PackedPixels
from keras_deepnets.training.feed import Sets


def identities(sets: Sets) -> dict[str, Any]:
    """The training images as `data` and those that are measured on as `validation`, None where there are none."""
    held = identity(sets.held)
    return {"data": identity(sets.train), "validation": held and held | {"cut": sets.cut}}


def identity(data: ImageData | None) -> dict[str, Any] | None:
    """What makes two sets of images the same for a run; None of None.

    `digests` says of what the images are known to be the same: files by their names, sizes and times of change, records by their
    files, images in memory by their pixels.
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
    if store.names:  # files below the folder that the set is called by
        stats = [Path(data.name, name).stat() for name in store.names]
        files = (f"{stat.st_size} {stat.st_mtime_ns}" for stat in stats)
        return {"names": _digest(store.names), "files": _digest(files)}
    return {"pixels": _digest(_pixels(store)), "labels": _digest([store.labels.tobytes()])}


def _records(store: RecordStore) -> Iterable[str]:
    """The record files, by the digests in the index of our own shards, else by size."""
    for piece in store.pieces:
        path = Path(piece.path)
        yield f"{path.name} {piece.skip} {piece.take} {_known_digests(path.parent).get(path.name) or path.stat().st_size}"


def _known_digests(folder: Path) -> dict[str, str]:
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
    for start in range(0, store.size, 1024):
        yield store.pixels.images[store.rows[start : start + 1024]]


def _digest(parts: Iterable[Any]) -> str:
    """A digest of texts, bytes or arrays in their order."""
    found = hashlib.blake2b(digest_size=16)
    for part in parts:
        found.update(part.encode("utf-8", "surrogateescape") + b"\0" if isinstance(part, str) else part)
    return found.hexdigest()
