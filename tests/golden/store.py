"""The file of golden outputs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PATH = Path(__file__).with_name("goldens.npz")
_INDEX = "index"


@dataclass(frozen=True)
class Golden:
    """What a peer computed.

    Attributes:
        digest: of the names and shapes of its tensors.
        summaries: ``[size, point of comparison, number]``, float32.
    """

    digest: str
    summaries: np.ndarray


def save(goldens: dict[str, Golden], versions: dict[str, str]) -> None:
    """Writes the file: an array a peer, and an index with the digests and the versions of the libraries."""
    index: dict[str, Any] = {"versions": versions, "digests": {name: golden.digest for name, golden in goldens.items()}}
    arrays = {name: golden.summaries.astype(np.float32) for name, golden in goldens.items()}
    text = np.frombuffer(json.dumps(index, sort_keys=True).encode(), np.uint8)
    np.savez_compressed(PATH, **{_INDEX: text}, **arrays)


def load() -> dict[str, Golden]:
    """Peer to golden; empty where the file is not there yet."""
    if not PATH.is_file():
        return {}
    with np.load(PATH) as file:
        index = json.loads(bytes(file[_INDEX]).decode())
        return {name: Golden(digest, file[name]) for name, digest in index["digests"].items()}
