"""Benchmark configurations, and the jobs of single processes. This module imports no framework."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

MODES = ("train", "inference", "export")
DTYPES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""Dtype names of the command, with the Keras policy for each."""

OURS, FOLDED = "ours", "ours-folded"
COMPILED = "torch.compile"
TORCH = ("torchvision", "timm", "pytorchcv", COMPILED)
ENGINES = {"openvino": ("float32", "bfloat16"), "onnxruntime": ("float32",)}
"""Runtimes that run this library's own network for inference, and the dtypes in which they compute."""


@dataclass(frozen=True)
class Configuration:
    """One measurement: a network with a mode, a precision and a batch size.

    Attributes:
        model: Name in the registry.
        mode: One of `MODES`.
        dtype: One of `DTYPES`.
        batch: Batch size.
        image_size: Image side in pixels. None for the size that the network was designed for.
        threads: CPU threads of each side. None leaves the choice to the frameworks.
    """

    model: str
    mode: str
    dtype: str
    batch: int
    image_size: int | None = None
    threads: int | None = None

    def __str__(self) -> str:
        size = f" at {self.image_size}²" if self.image_size else ""
        return f"{self.model}{size} {self.mode} {self.dtype} batch {self.batch}"


@dataclass(frozen=True)
class Job:
    """The job of a worker process, sent on its first line.

    Attributes:
        kind: ``"network"``, or ``"ceiling"`` for a large matrix product.
        library: ``"ours"``, ``"ours-folded"``, ``"keras.applications"``, ``"keras-twin"``, ``"torchvision"``, ``"timm"``,
            ``"pytorchcv"``, ``"torch.compile"`` (torchvision's network), ``"openvino"``, ``"onnxruntime"``.
        model: Name in this library's registry, or a constructor's name.
        options: Options of this library's constructor, also used for the twin.
        peer: How a peer's library builds its network: a network's name, or a function's name and its keywords.
        mode: One of `MODES`.
        dtype: One of `DTYPES`.
        batch: Batch size.
        image_size: Image side in pixels, or None.
        size: Side of the matrices of a ceiling. None chooses it by the device.
        threads: As in `Configuration`.
    """

    kind: str = "network"
    library: str = OURS
    model: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    peer: tuple[str, dict[str, Any]] | None = None
    mode: str = "train"
    dtype: str = "float32"
    batch: int = 1
    image_size: int | None = None
    size: int | None = None
    threads: int | None = None

    def to_json(self) -> str:
        """The job as one line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Job:
        """The job from a line of JSON."""
        values = json.loads(line)
        if values["peer"] is not None:
            values["peer"] = tuple(values["peer"])
        values["options"] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values["options"].items()
        }
        return cls(**values)
