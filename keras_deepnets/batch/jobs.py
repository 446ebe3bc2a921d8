"""The folder of a job: what identifies it, which shards it has, and which of them are finished."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_deepnets.batch import storage
from keras_deepnets.batch.inputs import Work
from keras_deepnets.errors import InputError
from keras_deepnets.export import single_file
from keras_deepnets.files import digest
from keras_deepnets.files import locked as only_one

JOB, LISTING, MODEL = "job.json", "inputs.jsonl", "model"
FORMAT, VERSION = "keras_deepnets.batch", 1
FORMATS = ("jsonl", "parquet")
_ELSEWHERE = "give another folder, or delete that one"


@dataclass(frozen=True)
class Identity:
    """What a job computes. Two jobs with equal identities have the same results, up to rounding.

    Attributes:
        model: SHA-256 of the model's files.
        inputs: SHA-256 of the list of images.
        images: Number of images.
        shards: Number of shards.
        format: ``"jsonl"`` or ``"parquet"``.
        top: Number of classes per image. None with features.
        features: Whether the rows hold features.
    """

    model: str
    inputs: str
    images: int
    shards: int
    format: str
    top: int | None
    features: bool


@dataclass(frozen=True)
class Job:
    """A job in its folder.

    Attributes:
        folder: Absolute path or URL of the folder.
        identity: What it computes.
        works: Its shards.
    """

    folder: str
    identity: Identity
    works: tuple[Work, ...]

    @property
    def listing(self) -> str:
        """Path of the list of images."""
        return storage.join(self.folder, LISTING)

    def predictions(self, number: int) -> str:
        """Path of the predictions of a shard. It is written last, so the shard is finished if it exists."""
        return storage.join(self.folder, predictions_name(number, self.identity.shards, self.identity.format))

    def unfinished(self) -> list[Work]:
        """The shards without predictions."""
        there = storage.names_in(self.folder)
        shards, form = self.identity.shards, self.identity.format
        return [work for work in self.works if predictions_name(work.number, shards, form) not in there]

    def failed(self) -> int:
        """Number of images in the error files."""
        there = storage.names_in(self.folder)
        names = [errors_name(work.number, self.identity.shards) for work in self.works]
        return sum(storage.read(storage.join(self.folder, name)).count(b"\n") for name in names if name in there)


def predictions_name(number: int, shards: int, form: str) -> str:
    """The name of the file with the predictions of a shard."""
    return f"predictions-{number:05}-of-{shards:05}.{form}"


def errors_name(number: int, shards: int) -> str:
    """The name of the file with the errors of a shard."""
    return f"errors-{number:05}-of-{shards:05}.jsonl"


def known(folder: str) -> dict[str, Any] | None:
    """The values of the job in a folder, or None if it holds none.

    Raises:
        InputError: The folder is a file, holds other files, or its job is damaged or of another version.
    """
    if not storage.is_url(folder) and Path(folder).exists() and not Path(folder).is_dir():
        raise InputError(f"{folder} is a file; name a folder for the predictions.")
    path = storage.join(folder, JOB)
    if not storage.exists(path):
        others = {name for name in storage.names_in(folder) if not name.startswith(".")} - {LISTING, MODEL}
        if others:
            raise InputError(f"{folder} holds other files ({min(others)} …) and no job; give a new or an empty folder.")
        return None
    try:
        values = json.loads(storage.read(path))
        if (values["format"], values["version"]) != (FORMAT, VERSION):
            raise InputError(f"{path} is of another version of keras_deepnets; {_ELSEWHERE}.")
        Identity(**values["identity"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged ({error}); {_ELSEWHERE}.") from error
    return values


def check_same(folder: str, values: Mapping[str, Any], identity: Identity, model: str, listing: bytes) -> None:
    """Compare a job with the one that its folder holds.

    Args:
        folder: The folder.
        values: Values of the job in it.
        identity: The identity of the new job.
        model: The path of its model.
        listing: Its list of images.

    Raises:
        InputError: They differ. The message names the first difference.
    """
    there, here = values["identity"], asdict(identity)
    differing = [name for name in there if there[name] != here[name]]
    if not differing:
        return
    if "model" in differing:
        what = f"the model was {values['model']} with digest {there['model'][:12]}, and now is {model} with {here['model'][:12]}"
    elif options := [name for name in differing if name not in ("inputs", "images")]:
        name = options[0]
        what = f"{name} was {json.dumps(there[name])}, and now is {json.dumps(here[name])}"
    elif "images" in differing:
        what = f"it has {there['images']:,} images, and now there are {here['images']:,}"
    else:
        what = _first_change(storage.read(storage.join(folder, LISTING)), listing)
    raise InputError(f"{folder} holds another job: {what}; {_ELSEWHERE}.")


def _first_change(there: bytes, here: bytes) -> str:
    for one, other in zip(there.splitlines(), here.splitlines(), strict=False):
        if one != other:
            old, new = json.loads(one), json.loads(other)
            if old[0] != new[0]:
                return f"image file {old[0]} was in the place of {new[0]}"
            return f"{old[0]} had {old[1]:,} bytes, and now has {new[1]:,}"
    return "the list of images was changed"


def begin(job: Job, model: str, listing: bytes) -> None:
    """Write the list of images and the identity of a new job."""
    storage.write(job.listing, listing)
    values = {"format": FORMAT, "version": VERSION, "model": model, "identity": asdict(job.identity)}
    # Last, because the job exists from here on.
    storage.write(storage.join(job.folder, JOB), json.dumps(values, indent=2).encode() + b"\n")


@contextlib.contextmanager
def locked(folder: str) -> Iterator[None]:
    """Create a local folder if it is missing, and keep other processes on this machine out of it.

    Unfinished files of a killed process are deleted. The system releases the lock when the process ends, however it ends.

    Raises:
        InputError: Another process works there, or the folder cannot be written.
    """
    if storage.is_url(folder):
        yield
        return
    with only_one(Path(folder), lambda: f"{folder}: another process works on this job; wait until it ends."):
        for path in Path(folder).glob(f"{storage.PARTIAL}*"):
            path.unlink(missing_ok=True)
        yield


def model_files(path: Path) -> list[Path]:
    """The files of a model: those of an artifact with its JSON, or all in a folder."""
    if path.is_dir():
        return sorted(entry for entry in path.rglob("*") if entry.is_file())
    card = single_file.card_path(path)
    return [*single_file.data_files(path), *([card] if card.is_file() and path.suffix != ".keras" else [])]


def model_digest(path: Path) -> str:
    """SHA-256 of a model: of its file, or of the names and digests of its files."""
    found = model_files(path)
    if found == [path]:
        return digest(path)
    lines = (f"{digest(file)}  {file.relative_to(path.parent).as_posix()}\n" for file in found)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Model:
    """Where workers find a model.

    Attributes:
        path: Its path on this machine, absolute.
        digest: Of `model_digest`.
        copy: URL of its copy in the folder of the job, or None if all workers read `path`.
    """

    path: str
    digest: str
    copy: str | None = None

    def upload(self) -> None:
        """Copy the model to its URL, for workers that do not see this machine's files."""
        if self.copy is None:
            return
        parent = Path(self.path).parent
        for file in model_files(Path(self.path)):
            storage.write(storage.join(self.copy, file.relative_to(parent).as_posix()), file.read_bytes())

    @contextlib.contextmanager
    def local(self) -> Iterator[Path]:
        """A path from which to load the model: its own, or that of a temporary copy."""
        path = Path(self.path)
        if self.copy is None or (path.exists() and model_digest(path) == self.digest):
            yield path
            return
        folder = tempfile.mkdtemp()
        try:
            for url, _ in storage.matches(f"{self.copy}/**"):
                target = Path(folder) / url.removeprefix(f"{self.copy}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(storage.read(url))
            yield Path(folder) / path.name
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def absolute(path: str) -> str:
    """The path for workers in other folders. A URL is returned unchanged."""
    return path.rstrip("/") if storage.is_url(path) else os.path.abspath(path)  # noqa: PTH100 - keeps links
