"""What was measured: a row for each side of each pair, and the CSV file of them."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

GIGA = 1e9


@dataclass(frozen=True)
class Result:
    """One side of a pair.

    Attributes:
        model: our name of the network.
        mode: ``train``, ``inference`` or ``export``.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        batch: images a step.
        image_size: side in pixels.
        against: who ours took turns with; empty where ours ran alone.
        side: ``ours``, ``ours-folded`` or the peer.
        network: what was built.
        pairs: how many steps of each side the medians are of.
        ms_per_step: median.
        images_per_second: at the median step.
        ratio: how many times faster ours is than `against`: the median of the ratios pair by pair; None where ours ran alone.
        ratio_low: lower quartile of the same.
        ratio_high: upper quartile of the same.
        first_step_seconds: tracing, compiling and the step.
        build_seconds: making the network; None for a stock twin, which is made from ours.
        export_seconds: writing the SavedModel.
        artifact_bytes: of the SavedModel on disk.
        activation_bytes: what a step holds at its peak beyond what is held before it.
        activation_source: who says so.
        process_peak_bytes: resident memory of the process at its peak, the framework included.
        parameters: trainable ones.
        multiply_adds: of an image.
        ceiling_gflops: of a large matrix product in this precision on this device.
        share_of_ceiling: the network's own arithmetic as a part of that.
        threads: that each side may use on the CPU.
        others_busy: processors busy with other processes while the steps were timed: 0 on a quiet machine.
        device: the accelerator, or CPU.
        versions: of the libraries of this side.
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
    """Arithmetic that a network needs, as a part of what a matrix product reaches.

    A multiply-add is two operations; a backward pass takes two forward passes' arithmetic.
    """
    passes = 3 if mode == "train" else 1
    return 2 * multiply_adds * passes * images_per_second / (gflops * GIGA)


def write_csv(path: Path, rows: Sequence[object], command: Sequence[str] | None = None) -> None:
    """Writes rows (instances of one dataclass) below comments that say when, where and by which command they were measured."""
    names = [field.name for field in dataclasses.fields(rows[0])]  # type: ignore[arg-type]
    with path.open("w", encoding="utf-8", newline="") as file:
        for name, value in circumstances(command).items():
            file.write(f"# {name}: {value}\n")
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        for row in rows:
            writer.writerow([_cell(getattr(row, name)) for name in names])


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of such a file as texts."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def circumstances(command: Sequence[str] | None = None) -> dict[str, str]:
    """Date, machine and command of a measurement."""
    words = command or [Path(sys.argv[0]).name, *sys.argv[1:]]
    return {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "machine": f"{processor()}, {platform.system()} {platform.machine()}",
        "threads": str(threads()),
        "python": platform.python_version(),
        "command": shlex.join(words),
    }


def processor() -> str:
    """The processor's name."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def threads() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cell(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
