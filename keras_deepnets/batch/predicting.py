"""Run a job: check everything, then let a Beam runner do the shards that are missing."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.batch import inputs, jobs, storage
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import apache_beam as beam

    from keras_deepnets.batch import pipeline

EXTRA = "keras-deepnets[beam]"
DIRECT = "DirectRunner"
SHARD_IMAGES = 500
"""Number of images per shard, unless the number of shards is given. At most `MOST_SHARDS` shards are made."""
MOST_SHARDS = 10_000
BATCH_SIZE = 64
"""Largest batch, unless it is given. Beam tries smaller ones too and takes the fastest."""

Report = Callable[[int, int], None]
"""Progress callback: takes the number of images in finished shards and their total."""

_EVERY, _EVERY_URL = 1.0, 15.0  # seconds between two looks into the folder; listing a bucket costs a request


class JobStopped(RuntimeError):  # noqa: N818 - the name states the condition
    """A runner ended before all shards were finished. The finished ones stay, and the same call continues."""


@dataclass(frozen=True)
class Summary:
    """The outcome of a job.

    Attributes:
        out: Folder of the results.
        images: Number of images of the job.
        done: Number of images with predictions.
        failed: Number of broken images, which are in the error files.
        shards: Number of shards.
        kept: Number of shards that an earlier run had finished.
        seconds: Time that this run took, with loading the model.
        images_per_second: Images of this run per second. 0 if there was nothing left to do.
        predictions: Paths of the files, one per shard.
    """

    out: str
    images: int
    done: int
    failed: int
    shards: int
    kept: int
    seconds: float
    images_per_second: float
    predictions: tuple[str, ...]


def predict_many(
    model: str | os.PathLike[str],
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    format: str = "jsonl",
    top: int = 5,
    features: bool = False,
    shards: int | None = None,
    batch_size: int = BATCH_SIZE,
    runner: str = DIRECT,
    options: Sequence[str] = (),
    report: Report | None = None,
) -> Summary:
    """Classify images with Apache Beam, or compute their features, into files in a folder.

    The images are cut into shards. Each shard becomes ``predictions-00007-of-00040.jsonl``, written atomically. Its broken images are
    in ``errors-00007-of-00040.jsonl``, with name and reason. If the job is interrupted, the same call does only the shards that are
    missing. ``job.json`` in the folder identifies the job by the model's digest, the names and sizes of the images, and the options.

    A row has the ``name`` of the image and its ``classes``, a list of ``id``, ``label`` and ``probability`` with the most probable
    first. With `features` it has ``features``, a list of float32 numbers, instead. The values are those of `keras_deepnets.export.predict`
    up to rounding, which depends on the size of a batch.

    Args:
        model: A run folder, a ``.keras`` file, a SavedModel, or a ``.tflite``, ``.onnx`` or ``.xml`` file.
        sources: Image files, folders, patterns such as ``"photos/**/*.jpg"``, and TFRecord files of `tf.train.Example` with the feature
            ``image/encoded`` or ``image``. An image in a record file is called ``file.tfrecord#position``. Beam's file systems read
            URLs such as ``gs://bucket/photos/**``. A file that is named twice counts once.
        out: Folder of the results, new or of the same job. It may be a URL; the model is then copied there.
        format: ``"jsonl"`` or ``"parquet"``.
        top: Number of classes per image.
        features: Whether to give the input of the last dense layer instead of classes.
        shards: Number of shards. Default: that of the earlier run, or one for `SHARD_IMAGES` images.
        batch_size: Largest batch. Beam chooses the size of each batch.
        runner: Name of a Beam runner: ``"DirectRunner"`` (this machine), ``"DataflowRunner"``, ``"FlinkRunner"``, ``"SparkRunner"``, ….
        options: Options of the runner, ``"name=value"`` or ``"name"``, as in Beam's documentation without the dashes.
        report: Progress callback: takes the number of images in finished shards and their total. It is called from a thread.

    Returns:
        Counts, speed and file names.

    Raises:
        InputError: Apache Beam is missing, or the model, a source, the folder or an option cannot be used. Nothing is written.
        JobStopped: The runner failed.
    """
    path = _model_file(Path(model))
    _check_options(format, top, shards, batch_size)
    check_installed()
    steps = _pipeline(runner, options)
    folder = jobs.absolute(os.fspath(out))
    known = jobs.known(folder)
    found = inputs.find(sources)
    total = sum(source.images for source in found)
    count = _shard_count(shards, known, total)
    works, listing = inputs.cut(found, count)
    digest = jobs.model_digest(path)
    identity = jobs.Identity(digest, _digest(listing), total, count, format, None if features else top, features)
    if known is not None:
        jobs.check_same(folder, known, identity, str(model), listing)
    from keras_deepnets.batch import pipeline

    copy = storage.join(folder, jobs.MODEL) if storage.is_url(folder) else None
    placed = jobs.Model(jobs.absolute(str(path)), digest, copy)
    job = jobs.Job(folder, identity, tuple(works))
    settings = pipeline.Settings(folder, job.listing, str(Path.cwd()), placed, count, format, identity.top, batch_size)
    pipeline.open_model(placed, features)  # fails before anything is written; workers in this process use it too
    begin = time.perf_counter()
    try:
        with jobs.locked(folder):
            if known is None:
                placed.upload()
                jobs.begin(job, str(model), listing)
            missing = job.unfinished()
            if missing:
                with _watched(job, report):
                    _run(job, missing, settings, steps)
            failed = job.failed()
    finally:
        pipeline.open_model.cache_clear()
    seconds = time.perf_counter() - begin
    now = sum(work.images for work in missing)
    return Summary(
        out=os.fspath(out),
        images=total,
        done=total - failed,
        failed=failed,
        shards=count,
        kept=count - len(missing),
        seconds=seconds,
        images_per_second=now / seconds if now else 0.0,
        predictions=tuple(job.predictions(work.number) for work in works),
    )


def check_installed() -> None:
    """Raise an InputError that names the extra if Apache Beam is missing."""
    if find_spec("apache_beam") is None:
        raise InputError(f'Batch prediction needs Apache Beam, not installed here: pip install "{EXTRA}"')


def _model_file(path: Path) -> Path:
    """The model itself: in a run folder, its file."""
    if (path / "model.keras").is_file():
        return path / "model.keras"
    if not path.exists():
        raise InputError(f"{path} does not exist; give a run folder, a .keras file or an exported model.")
    if path.is_dir():
        from keras_deepnets.export.prediction import version_in

        return version_in(path)
    return path


def _check_options(form: str, top: int, shards: int | None, batch_size: int) -> None:
    if form not in jobs.FORMATS:
        raise InputError(f"format={form!r} is neither {' nor '.join(map(repr, jobs.FORMATS))}.")
    for name, value in {"top": top, "shards": shards, "batch_size": batch_size}.items():
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
            raise InputError(f"{name}={value!r} must be a whole number of at least 1.")


def _shard_count(shards: int | None, known: dict[str, Any] | None, total: int) -> int:
    if shards is not None and shards > total:
        raise InputError(f"shards={shards} is more than the {total:,} images; give at most one shard per image.")
    if shards is None and known is not None:
        return min(known["identity"]["shards"], total)
    return shards or max(1, min(-(-total // SHARD_IMAGES), MOST_SHARDS))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _pipeline(name: str, options: Sequence[str]) -> beam.Pipeline:
    """Check the runner and its options. Return an empty pipeline for it.

    Raises:
        InputError: The runner is unknown, a package of it is missing, or an option is unknown or has a wrong value.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import create_runner

    direct = name.lower().removesuffix("runner") == "direct"
    # Beam's own DirectRunner first tries to download another runner.
    chosen = "FnApiRunner" if direct else name
    flags = [f"--{option.removeprefix('--')}" for option in options]
    if not direct:
        flags.append(f"--runner={name}")
    try:
        created = create_runner(chosen)
    except ImportError as error:
        raise InputError(f"runner {name!r} needs a package that is not installed: {error}.") from error
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(
            f"runner {name!r} is unknown; give DirectRunner, DataflowRunner, FlinkRunner, SparkRunner or another of Beam's runners."
        ) from error
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed = PipelineOptions(flags).get_all_options()
    except SystemExit:  # argparse ends the program
        reason = (said.getvalue().strip().splitlines() or ["they cannot be parsed"])[-1].partition("error: ")
        raise InputError(f"runner options {' '.join(options)}: {reason[2] or reason[0]}.") from None
    if direct:  # other runners have options that only their servers know
        for option in options:
            key = option.removeprefix("--").partition("=")[0]
            if key not in parsed:
                raise InputError(
                    f"runner option {option!r} is unknown to the direct runner; it has direct_num_workers and direct_running_mode."
                )
    try:
        return beam.Pipeline(runner=created, options=PipelineOptions(flags))
    except ValueError as error:  # an option that the runner requires is missing
        raise InputError(
            f"runner {name!r}: {' '.join(str(error).split())} Give it with --runner-option (options=…)."
        ) from error


def _run(job: jobs.Job, missing: Sequence[inputs.Work], settings: pipeline.Settings, steps: beam.Pipeline) -> None:
    """Run the pipeline to its end.

    Raises:
        JobStopped: It failed, or shards are missing.
    """
    from apache_beam.runners.runner import PipelineState

    from keras_deepnets.batch import pipeline

    reason = "the runner ended early"
    try:
        pipeline.build(steps, missing, settings)
        result = steps.run()
        state = result.wait_until_finish() or result.state
        if state != PipelineState.DONE:
            reason = f"the runner ended with the state {state}"
    except Exception as error:  # runners raise what their workers or their servers raise
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk has its own message
        reason = _reason(error)
        raise JobStopped(_stopped(job, reason)) from error
    if job.unfinished():
        raise JobStopped(_stopped(job, reason))


@contextlib.contextmanager
def _watched(job: jobs.Job, report: Report | None) -> Iterator[None]:
    """Report the finished shards while the block runs. Files show them for every runner, its own counters do not."""
    if report is None:
        yield
        return
    ended = threading.Event()
    tell = report

    def watch() -> None:
        while not ended.wait(_EVERY_URL if storage.is_url(job.folder) else _EVERY):
            with contextlib.suppress(OSError):
                left = sum(work.images for work in job.unfinished())
                tell(job.identity.images - left, job.identity.images)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _reason(error: Exception) -> str:
    """The last line of an error; workers send whole tracebacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("While running", "Please see"))]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}".rstrip(": ")


def _stopped(job: jobs.Job, reason: str) -> str:
    left = len(job.unfinished())
    count = job.identity.shards
    return f"{job.folder}: {count - left:,} of {count:,} shards are finished ({reason}); the same call does the others."
