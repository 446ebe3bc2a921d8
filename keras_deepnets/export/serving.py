"""Files that TF Serving reads next to a model: the versions to serve, batching and monitoring."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_deepnets.errors import InputError
from keras_deepnets.export import writing
from keras_deepnets.export.savedmodel import CARD_FILE
from keras_deepnets.export.warmup import BATCH_SIZES, checked_batch_sizes
from keras_deepnets.files import written_aside

MODELS_FILE = "models.config"
BATCHING_FILE = "batching_parameters.txt"
MONITORING_FILE = "monitoring.config"
METRICS_PATH = "/monitoring/prometheus/metrics"

# Characters that the server's URLs accept in one part: /v1/models/NAME/labels/LABEL:predict.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def serving_config(
    directory: str | os.PathLike[str],
    model_name: str | None = None,
    batch_sizes: Sequence[int] | None = None,
    timeout_micros: int = 2000,
    *,
    threads: int | None = None,
    queue: int = 100,
    base_path: str | None = None,
    version_labels: Mapping[str, int] | None = None,
) -> tuple[Path, Path, Path]:
    """Write the configuration of ``tensorflow_model_server`` for one model, next to its versions.

    * ``models.config`` for ``--model_config_file``: the model's name, its location and the served versions.
    * ``batching_parameters.txt`` for ``--enable_batching --batching_parameters_file``: the server joins concurrent requests and runs
      them as one batch, padded to the next of `batch_sizes`.
    * ``monitoring.config`` for ``--monitoring_config_file``: metrics for Prometheus under ``/monitoring/prometheus/metrics``.

    Each file replaces the old one in one step, so that a polling server never reads half a file.

    Args:
        directory: The model's folder, with the versions that `saved_model` wrote.
        model_name: Name of the model for clients. Default: the folder's name.
        batch_sizes: Allowed images per batch, in rising order. The server refuses larger requests than the last. Default: the sizes
            with which the served versions were exported, which are also warmed up. Without a model card: 1, 8, 32.
        timeout_micros: Maximum time in microseconds that a request waits for others. 0 batches only requests that already wait.
        threads: Number of batches that run in parallel. Default: the server uses the machine's number of cores.
        queue: Number of full batches that may wait. The server answers further requests with 503 (UNAVAILABLE).
        base_path: The folder as the server sees it: absolute, or the URL of an object store. Default: ``/models/<model_name>``.
        version_labels: Labels of versions, like ``{"stable": 3, "canary": 4}``. Exactly these versions are then served, and clients
            ask for ``/v1/models/NAME/labels/stable``. Default: the newest version is served, and a new version replaces it as soon as
            it appears. If the new version has other batch sizes, write the configuration again.

    Returns:
        The three paths: models, batching, monitoring.

    Raises:
        InputError: The folder has no version or lacks a labelled one. A value is out of range. A served version would not load with
            these batch sizes. The folder cannot be written. Nothing is written then.
    """
    directory = Path(directory)
    versions = _versions(directory)
    name = directory.resolve().name if model_name is None else model_name
    _check_name("model_name", name)
    sizes = None if batch_sizes is None else checked_batch_sizes(batch_sizes)
    _check_count("timeout_micros", timeout_micros, 0)
    _check_count("queue", queue, 1)
    if threads is not None:
        _check_count("threads", threads, 1)
    base_path = f"/models/{name}" if base_path is None else base_path
    if not isinstance(base_path, str) or not (base_path.startswith("/") or "://" in base_path):
        raise InputError(f"base_path={base_path!r} is neither absolute nor a URL; the server takes no relative paths.")
    labels = {} if version_labels is None else dict(version_labels)
    for label, version in labels.items():
        _check_name("the version label", label)
        if isinstance(version, bool) or version not in versions:
            raise InputError(f"the label {label!r} is for version {version!r}; {directory} holds {_listed(versions)}.")
    served = {directory / str(version) for version in labels.values()} or {directory / str(versions[-1])}
    sizes = _sizes_for(sorted(served), sizes)
    texts = {
        BATCHING_FILE: _batching(sizes, timeout_micros, threads, queue),
        MONITORING_FILE: f'prometheus_config {{\n  enable: true\n  path: "{METRICS_PATH}"\n}}\n',
        MODELS_FILE: _models(name, base_path, labels),  # last: the one that servers poll
    }
    with writing.write_errors(directory):
        for file, text in texts.items():
            with written_aside(directory / file) as aside:
                aside.write_text(text, encoding="ascii")
    return directory / MODELS_FILE, directory / BATCHING_FILE, directory / MONITORING_FILE


def _versions(directory: Path) -> list[int]:
    """The numbered folders that hold a SavedModel."""
    found = []
    if directory.is_dir():
        for path in directory.iterdir():
            if path.name.isascii() and path.name.isdigit() and (path / "saved_model.pb").is_file():
                found.append(int(path.name))
    if not found:
        raise InputError(
            f"{directory} holds no version of a model; give the folder that you passed to export.saved_model."
        )
    return sorted(found)


def _sizes_for(served: Sequence[Path], asked: tuple[int, ...] | None) -> tuple[int, ...]:
    """The batch sizes with which all these versions load: the requested ones, or those from the export.

    The server runs a version's warm-up requests through its batching. A refused request keeps the version from loading.
    """
    exported = {version: _exported_sizes(version) for version in served}
    together = tuple(sorted({size for sizes, _ in exported.values() for size in sizes}))
    sizes = asked or together or BATCH_SIZES
    for version, (warm_up, fixed) in exported.items():
        if fixed is not None and sizes != (fixed,):
            way_out = f"give ({fixed},)" if together == (fixed,) else "serve it without the other versions"
            raise InputError(
                f"batch_sizes={sizes}: {version} takes only batches of {fixed}; {way_out}, or export it without batch_size."
            )
        if warm_up and warm_up[-1] > sizes[-1]:
            raise InputError(
                f"batch_sizes={sizes}: {version} warms up with {warm_up[-1]} images, which the server would refuse when it loads; "
                f"make the last size {warm_up[-1]} or more, or export it with batch_sizes={sizes}."
            )
    return sizes


def _exported_sizes(version: Path) -> tuple[tuple[int, ...], int | None]:
    """The warm-up batch sizes of a version, and the fixed batch size of its signatures. Empty and None without a model card."""
    path = version / CARD_FILE
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
        fixed = card.get("options", {}).get("batch_size")
        sizes = card.get("batch_sizes") or ([] if fixed is None else [fixed])
        return checked_batch_sizes(sizes) if sizes else (), fixed
    except FileNotFoundError:
        return (), None
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is not a model card ({error}); export the version again, or remove the file."
        ) from error


def _listed(versions: list[int]) -> str:
    return f"version{'s' if len(versions) > 1 else ''} {', '.join(map(str, versions))}"


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"{what} {name!r} cannot be part of a URL; use letters and digits, and '_', '.', '-' after the first."
        )


def _check_count(what: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{what}={value!r} is not a whole number from {least}.")


def _batching(sizes: tuple[int, ...], timeout_micros: int, threads: int | None, queue: int) -> str:
    """A BatchingParameters message (tensorflow_serving/servables/tensorflow/session_bundle_config.proto)."""
    limits = {"max_batch_size": sizes[-1], "batch_timeout_micros": timeout_micros, "max_enqueued_batches": queue}
    if threads is not None:
        limits["num_batch_threads"] = threads
    lines = [f"{key} {{ value: {value} }}" for key, value in limits.items()]
    lines += [f"allowed_batch_sizes: {size}" for size in sizes]
    # Padding would paste smaller images onto larger ones and change their classes.
    lines.append("pad_variable_length_inputs: false")
    return "".join(f"{line}\n" for line in lines)


def _models(name: str, base_path: str, labels: dict[str, int]) -> str:
    """A ModelServerConfig message (tensorflow_serving/config/model_server_config.proto)."""
    lines = [f"    name: {_quoted(name)}", f"    base_path: {_quoted(base_path)}", '    model_platform: "tensorflow"']
    if labels:
        served = "".join(f" versions: {version}" for version in sorted(set(labels.values())))
        lines.append(f"    model_version_policy {{ specific {{{served} }} }}")
        lines += [f"    version_labels {{ key: {_quoted(key)} value: {value} }}" for key, value in labels.items()]
    body = "\n".join(lines)
    return f"model_config_list {{\n  config {{\n{body}\n  }}\n}}\n"


def _quoted(text: str) -> str:
    """A string in the protocol buffers' text format, ASCII only."""
    plain = [
        chr(byte) if 0x20 <= byte < 0x7F and byte not in b'"\\' else f"\\{byte:03o}" for byte in text.encode("utf-8")
    ]
    return f'"{"".join(plain)}"'
