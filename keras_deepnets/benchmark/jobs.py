"""What is measured: a configuration, and the job that one process gets. No framework is imported here."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

MODES = ("train", "inference", "export")
DTYPES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16"}
"""The names that the command takes, and Keras' policy for each."""

OURS, FOLDED = "ours", "ours-folded"
TORCH = ("torchvision", "timm", "pytorchcv")


@dataclass(frozen=True)
class Configuration:
    """One line of what is asked: a network in a mode, a precision, a batch size.

    Attributes:
        model: name in the registry.
        mode: one of `MODES`.
        dtype: one of `DTYPES`.
        batch: images a step.
        image_size: side of the images in pixels; None for what the network was designed for.
        threads: of each side on the CPU; None leaves that to the frameworks.
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
    """What a worker process is told on its first line.

    Attributes:
        kind: ``"network"``, or ``"ceiling"``, a large matrix product.
        library: ``"ours"``, ``"ours-folded"``, ``"keras.applications"``, ``"keras-twin"``, ``"torchvision"``, ``"timm"``,
            ``"pytorchcv"``.
        model: our name in the registry, or a constructor's.
        options: of our constructor; those of the twin, too.
        peer: how a peer's library builds its network: its name, or a function's name and its keywords.
        mode: one of `MODES`.
        dtype: one of `DTYPES`.
        batch: images a step.
        image_size: side in pixels, or None.
        size: side of the matrices of a ceiling; None chooses by the device.
        threads: as in `Configuration`.
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
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Job:
        """The job of a line."""
        values = json.loads(line)
        if values["peer"] is not None:
            values["peer"] = tuple(values["peer"])
        values["options"] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values["options"].items()
        }
        return cls(**values)
