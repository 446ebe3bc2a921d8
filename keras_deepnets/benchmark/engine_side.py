"""Sides that run this library's network in another inference runtime: OpenVINO, ONNX Runtime. Runs in a worker."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_deepnets.benchmark import keras_side
from keras_deepnets.benchmark.jobs import Job
from keras_deepnets.benchmark.side import Side
from keras_deepnets.versions import version


def build(job: Job) -> Side:
    """Build the side of a job: export the network, and open the file in the runtime."""
    start = time.perf_counter()
    import numpy as np

    import keras_deepnets.models  # noqa: F401 - so that the import does not count as building

    facts: dict[str, Any] = {"import_seconds": time.perf_counter() - start, "device": "CPU"}
    facts["versions"] = {package: version(package) for package in ("keras-deepnets", job.library)}
    network, seconds = keras_side.network_of(job)
    facts |= keras_side.counts(network) | {"image_size": network.input_shape[1], "build_seconds": seconds}
    images = np.random.default_rng(0).integers(0, 256, (job.batch, *network.input_shape[1:]), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        run, path = _ENGINES[job.library](job, network, Path(folder))
        size = sum(file.stat().st_size for file in path.parent.iterdir())
        facts |= {"export_seconds": time.perf_counter() - start, "artifact_bytes": size}
    return Side(lambda: run(images), facts)


def _openvino(job: Job, network: Any, folder: Path) -> tuple[Callable[[Any], Any], Path]:
    from keras_deepnets import export
    from keras_deepnets.export import openvino_export

    path = export.openvino(network, folder / "model.xml", precision=job.dtype, batch=job.batch)
    return openvino_export.opened(path, job.threads or 0)[0], path


def _onnxruntime(job: Job, network: Any, folder: Path) -> tuple[Callable[[Any], Any], Path]:
    from keras_deepnets import export
    from keras_deepnets.export import onnx_export

    path = export.onnx(network, folder / "model.onnx")
    session = onnx_export.open_session(path.read_bytes(), job.threads or 0)
    return lambda images: onnx_export.run(session, images), path


_ENGINES = {"openvino": _openvino, "onnxruntime": _onnxruntime}
