"""The Beam pipeline: read the images of a shard, run the model with RunInference, write the shard.

A shard is written as soon as its last row arrives. Beam's runners fuse the steps, so all rows of a shard normally pass through one
writer. If a runner separates the steps, the writer passes on the rows of incomplete shards. They are grouped, and written at the end.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apache_beam as beam
from apache_beam.metrics.metric import Metrics
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from keras_deepnets.batch import inputs, rows
from keras_deepnets.batch.inputs import Image, Work
from keras_deepnets.batch.jobs import Model
from keras_deepnets.batch.rows import Row
from keras_deepnets.export.prediction import Opened, opened

COUNTERS = "keras_deepnets"
"""Namespace of the counters ``done`` and ``failed``."""

_LEFT = "left"


@dataclass(frozen=True)
class Settings:
    """What all workers need to know.

    Attributes:
        folder: Folder of the job, absolute.
        listing: Path of the list of images, absolute.
        base: Folder that the paths of images start from.
        model: The model.
        shards: Number of shards.
        format: ``"jsonl"`` or ``"parquet"``.
        top: Number of classes per image. None with features.
        batch_size: Largest batch.
    """

    folder: str
    listing: str
    base: str
    model: Model
    shards: int
    format: str
    top: int | None
    batch_size: int

    @property
    def features(self) -> bool:
        """Whether the rows hold features."""
        return self.top is None


@functools.lru_cache(maxsize=1)
def open_model(model: Model, features: bool) -> Opened:
    """Load the model once per process.

    Raises:
        InputError: It cannot be loaded, or is not a classifier.
    """
    from keras_deepnets.training import precision

    precision.prepare_gpus()  # processes share a GPU's memory
    with model.local() as path:
        return opened(path, features)


class Reader(beam.DoFn):
    """Reads the images of shards."""

    def __init__(self, settings: Settings):
        self._settings = settings

    def process(self, work: Work) -> Iterator[Image]:
        """Yield the images of a shard, in order."""
        yield from inputs.images_of(work, self._settings.listing, self._settings.base)


class Classifier(ModelHandler):
    """Runs the model on batches whose size Beam chooses."""

    def __init__(self, settings: Settings):
        super().__init__(max_batch_size=settings.batch_size)
        self._settings = settings

    def load_model(self) -> Opened:
        """The model of this process."""
        return open_model(self._settings.model, self._settings.features)

    def run_inference(
        self, batch: Sequence[Image], model: Opened, inference_args: Mapping[str, Any] | None = None
    ) -> Iterable[Row]:
        """The rows of a batch. Images that cannot be read or decoded get an error."""
        readable = [image for image in batch if image.content is not None]
        found: dict[int, Any] = {}
        errors: list[str | None] = []
        if readable:
            contents = [image.content or b"" for image in readable]
            values, errors = model(contents, [image.name for image in readable])
            good = (image for image, error in zip(readable, errors, strict=True) if error is None)
            found = {id(image): each for image, each in zip(good, self._values(values, model), strict=True)}
        reasons = {id(image): error for image, error in zip(readable, errors, strict=True)}
        kind = "features" if self._settings.features else "classes"
        for image in batch:
            error = image.error or reasons.get(id(image))
            values_of = {kind: found[id(image)]} if error is None else {"error": error}
            yield Row(image.shard, image.shard_images, image.place, {"name": image.name, **values_of})

    def _values(self, values: Any, model: Opened) -> list[Any]:
        if self._settings.top is None:
            return rows.features(values)
        return rows.classes(values, model.labels, self._settings.top)

    def get_metrics_namespace(self) -> str:
        """Namespace of RunInference's own counters: batch sizes, times, and the model's load time."""
        return COUNTERS


class _Counts:
    """Counts images in Beam's counters, and writes shards."""

    def __init__(self, settings: Settings):
        self._settings = settings
        self._done = Metrics.counter(COUNTERS, "done")
        self._failed = Metrics.counter(COUNTERS, "failed")

    def write(self, some: Sequence[Row]) -> None:
        settings = self._settings
        rows.write_shard(settings.folder, settings.shards, settings.format, some, settings.features)
        failed = sum(row.failed for row in some)
        self._done.inc(len(some) - failed)
        self._failed.inc(failed)


class Writer(beam.DoFn):
    """Writes each shard when its last row arrives."""

    def __init__(self, settings: Settings):
        self._counts = _Counts(settings)
        self._open: dict[int, list[Row]] = {}

    def start_bundle(self) -> None:
        """Forget the rows of a bundle that failed."""
        self._open = defaultdict(list)

    def process(self, row: Row) -> None:
        """Keep a row, or write its shard."""
        self._open[row.shard].append(row)
        if len(self._open[row.shard]) == row.shard_images:
            self._counts.write(self._open.pop(row.shard))

    def finish_bundle(self) -> Iterator[Any]:
        """Pass on the rows of incomplete shards, whose other rows are in other bundles."""
        for number, some in self._open.items():
            yield TaggedOutput(_LEFT, WindowedValue((number, some), MIN_TIMESTAMP, (GlobalWindow(),)))
        self._open = {}


class LateWriter(beam.DoFn):
    """Writes the shards whose rows came through several writers."""

    def __init__(self, settings: Settings):
        self._counts = _Counts(settings)

    def process(self, group: tuple[int, Iterable[list[Row]]]) -> None:
        """Write one shard."""
        self._counts.write([row for some in group[1] for row in some])


def build(pipeline: beam.Pipeline, works: Sequence[Work], settings: Settings) -> None:
    """Add the steps to a pipeline."""
    written = (
        pipeline
        | "Shards" >> beam.Create(list(works))
        | "Spread" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(Reader(settings))
        | "Predict" >> RunInference(Classifier(settings))
        | "Write" >> beam.ParDo(Writer(settings)).with_outputs(_LEFT)
    )
    _ = written[_LEFT] | "Group" >> beam.GroupByKey() | "Write late" >> beam.ParDo(LateWriter(settings))
