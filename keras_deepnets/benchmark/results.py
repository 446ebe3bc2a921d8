"""Benchmark results: one row per side of each pair, and their CSV file."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_deepnets import processor

GIGA = 1e9


@dataclass(frozen=True)
class Result:
    """One side of a pair.

    Attributes:
        model: This library's name of the network.
        mode: ``train``, ``inference`` or ``export``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        batch: Batch size.
        image_size: Image side in pixels.
        against: The peer of this pair. Empty if this library's network ran alone.
        side: ``ours``, ``ours-folded`` or the peer.
        network: Description of the network.
        pairs: Number of steps of each side in the medians.
        ms_per_step: Median milliseconds per step.
        images_per_second: Throughput at the median step.
        ratio: Speed of this library relative to `against`: the median of the ratios of each pair of steps. None without a peer.
        ratio_low: Lower quartile of these ratios.
        ratio_high: Upper quartile of these ratios.
        first_step_seconds: Seconds of the first step, including tracing and compiling.
        import_seconds: Seconds to import the library and its framework in a fresh process.
        build_seconds: Seconds to build the network. None for a stock twin, which is a copy of this library's network.
        export_seconds: Seconds to write the SavedModel.
        artifact_bytes: Size of the SavedModel on disk.
        activation_bytes: Peak memory of a step minus the memory held before it.
        activation_source: Source of `activation_bytes`.
        process_peak_bytes: Peak resident memory of the process, including the framework.
        parameters: Number of trainable parameters.
        multiply_adds: Multiply-adds per image.
        ceiling_gflops: Speed of a large matrix product in this precision on this device.
        share_of_ceiling: The network's own arithmetic as a share of `ceiling_gflops`.
        threads: Number of CPU threads that each side may use.
        others_busy: Number of processors busy with other processes while the steps were timed. 0 on an idle machine.
        device: Name of the accelerator, or CPU.
        versions: Versions of the libraries of this side.
    """

    model: str
    mode: str
    dtype: str
    batch: int
    image_size: int
    against: str
    side: str
    network: str
    pairs: int
    ms_per_step: float
    images_per_second: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    first_step_seconds: float
    import_seconds: float
    build_seconds: float | None
    export_seconds: float | None
    artifact_bytes: int | None
    activation_bytes: int | None
    activation_source: str
    process_peak_bytes: int
    parameters: int
    multiply_adds: int | None
    ceiling_gflops: float | None
    share_of_ceiling: float | None
    threads: int
    others_busy: float | None
    device: str
    versions: str


def share_of_ceiling(multiply_adds: int, mode: str, images_per_second: float, gflops: float) -> float:
    """The arithmetic of a network as a share of the speed of a matrix product.

    A multiply-add counts as two operations. A backward pass counts as two forward passes.
    """
    passes = 3 if mode == "train" else 1
    return 2 * multiply_adds * passes * images_per_second / (gflops * GIGA)


def write_csv(path: Path, rows: Sequence[object], command: Sequence[str] | None = None) -> None:
    """Write rows (instances of one dataclass) as CSV, below comments with the date, the machine and the command."""
    names = [field.name for field in dataclasses.fields(rows[0])]  # type: ignore[arg-type]
    with path.open("w", encoding="utf-8", newline="") as file:
        for name, value in circumstances(command).items():
            file.write(f"# {name}: {value}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            writer.writerow([_cell(getattr(row, name)) for name in names])


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read the rows of a file from `write_csv` as text."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def circumstances(command: Sequence[str] | None = None) -> dict[str, str]:
    """Date, machine and command of a measurement."""
    words = command or [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": f"{machine()}, {platform.system()} {platform.machine()}",
        "threads": str(threads()),
        "python": platform.python_version(),
        "command": shlex.join(words),
    }


def machine() -> str:
    """The processor's name and its instruction sets."""
    sets = ", ".join(processor.instruction_sets())
    return f"{processor.name()} ({sets})" if sets else processor.name()


def threads() -> int:
    """Number of processors that this process may use."""
    return len(processor.usable())


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
