"""Rows of results, and their files."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_deepnets.batch import storage
from keras_deepnets.batch.jobs import errors_name, predictions_name
from keras_deepnets.labels import imagenet_classes
from keras_deepnets.predictions import decode_predictions

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Row:
    """The result of an image.

    Attributes:
        shard: Number of its shard.
        shard_images: Number of images in that shard.
        place: Its place in the shard, from 0.
        values: What the file holds: the name, and classes, features or an error.
    """

    shard: int
    shard_images: int
    place: int
    values: dict[str, Any]

    @property
    def failed(self) -> bool:
        """Whether the image is broken."""
        return "error" in self.values


def classes(probabilities: np.ndarray, labels: Sequence[str] | None, top: int) -> list[list[dict[str, Any]]]:
    """The most probable classes of each image.

    Args:
        probabilities: float32 ``[n, classes]``.
        labels: Names of the classes. None: their numbers.
        top: Number of classes per image.

    Returns:
        For each image the id, label and probability of its classes, the most probable first. The id is WordNet's for ImageNet,
        otherwise the number of the class as text.
    """
    if not len(probabilities):
        return []
    names = [str(index) for index in range(probabilities.shape[1])] if labels is None else list(labels)
    wordnet = imagenet_classes()
    ids = [each for each, _ in wordnet] if names == [name for _, name in wordnet] else None
    return [
        [
            {"id": ids[int(number)] if ids else number, "label": label, "probability": probability}
            for number, label, probability in found
        ]
        for found in decode_predictions(probabilities, top, names)
    ]


def features(values: np.ndarray) -> list[list[float]]:
    """Features as numbers. Each has the fewest digits that give the same float32."""
    return [[float(str(value)) for value in row] for row in values]


def write_shard(folder: str, shards: int, form: str, rows: Sequence[Row], with_features: bool) -> None:
    """Write the files of a finished shard: first the errors, then the predictions, whose name marks the shard as finished.

    Args:
        folder: Folder of the job.
        shards: Number of its shards.
        form: ``"jsonl"`` or ``"parquet"``.
        rows: All rows of the shard, in any order.
        with_features: Whether the rows hold features.

    Raises:
        RuntimeError: Rows are missing.
        OSError: A file cannot be written.
    """
    rows = list({row.place: row for row in rows}.values())  # a runner that repeats work may send a row twice
    rows.sort(key=lambda row: row.place)
    number, count = rows[0].shard, rows[0].shard_images
    if len(rows) != count:
        raise RuntimeError(f"shard {number} has {len(rows)} of {count} rows")
    errors = storage.join(folder, errors_name(number, shards))
    failed = [row.values for row in rows if row.failed]
    if failed:
        storage.write(errors, _json_lines(failed))
    else:
        storage.remove(errors)
    done = [row.values for row in rows if not row.failed]
    content = _json_lines(done) if form == "jsonl" else _parquet(done, with_features)
    storage.write(storage.join(folder, predictions_name(number, shards, form)), content)


def _json_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    # A file name may hold bytes that are not UTF-8. Backslashes and digits are how JSON and Python write them.
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")


def _parquet(rows: Sequence[dict[str, Any]], with_features: bool) -> bytes:
    import pyarrow
    from pyarrow import parquet

    text = pyarrow.string()
    guess = pyarrow.struct([("id", text), ("label", text), ("probability", pyarrow.float32())])
    values = ("features", pyarrow.list_(pyarrow.float32())) if with_features else ("classes", pyarrow.list_(guess))
    named = [row | {"name": row["name"].encode("utf-8", "backslashreplace").decode()} for row in rows]
    table = pyarrow.Table.from_pylist(named, pyarrow.schema([("name", text), values]))
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()
