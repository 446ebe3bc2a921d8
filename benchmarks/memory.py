"""Peak memory of a training step by depth, for DenseNet-BC with and without ``memory_efficient=True``.

python -m benchmarks.memory --growth-rate 12 --batch 64 --depths 40,70,100,130 --out memory

Each point is measured in a fresh process. Prints a table, and writes ``memory.csv`` and ``memory.png``.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from keras_deepnets.benchmark import checks
from keras_deepnets.benchmark.jobs import DTYPES, Job
from keras_deepnets.benchmark.pairs import Plan, take_turns
from keras_deepnets.benchmark.process import Worker, WorkerError
from keras_deepnets.benchmark.results import write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PROGRAM = "python -m benchmarks.memory"
CSV, PICTURE = "memory.csv", "memory.png"
_COLOURS = {False: "#d55e00", True: "#0072b2"}  # colour-blind safe
_NAMES = {False: "plain", True: "memory_efficient=True"}


@dataclass(frozen=True)
class Point:
    """Measurements of a network's training step.

    Attributes:
        depth: Number of layers.
        growth_rate: Number of channels that a layer adds.
        batch: Batch size.
        image_size: Image side in pixels.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        memory_efficient: Whether the inputs of the layers are recomputed.
        activation_bytes: Peak memory of a step minus the memory held before it.
        activation_source: Source of `activation_bytes`.
        process_peak_bytes: Peak resident memory of the process, including the framework.
        seconds_per_step: Median seconds per step.
        first_step_seconds: Seconds of the first step, including tracing and compiling.
        parameters: Number of trainable parameters.
        device: Name of the accelerator, or CPU.
    """

    depth: int
    growth_rate: int
    batch: int
    image_size: int
    dtype: str
    memory_efficient: bool
    activation_bytes: int | None
    activation_source: str
    process_peak_bytes: int
    seconds_per_step: float
    first_step_seconds: float
    parameters: int
    device: str


def measure(
    depth: int,
    growth_rate: int,
    batch: int,
    memory_efficient: bool,
    *,
    dtype: str = "float32",
    image_size: int = 32,
    steps: int = 3,
    start: Callable[[Job, str], Worker] = Worker,
) -> Point:
    """Measure a training step of a DenseNet-BC in a fresh process."""
    options = {**_network(depth, growth_rate), "memory_efficient": memory_efficient}
    job = Job(model="DenseNet", options=options, dtype=dtype, batch=batch, image_size=image_size)
    name = f"DenseNet-BC-{depth}, {_NAMES[memory_efficient]}"
    measured = take_turns({name: job}, f"batch {batch}", Plan(warmup=2, pairs=steps), start)[name]
    facts = measured.facts
    return Point(
        depth=depth,
        growth_rate=growth_rate,
        batch=batch,
        image_size=image_size,
        dtype=dtype,
        memory_efficient=memory_efficient,
        activation_bytes=measured.memory["activation_bytes"],
        activation_source=measured.memory["activation_source"],
        process_peak_bytes=measured.end["process_peak_bytes"],
        seconds_per_step=statistics.median(measured.times),
        first_step_seconds=measured.first,
        parameters=facts["parameters"],
        device=facts["device"],
    )


def _network(depth: int, growth_rate: int) -> dict[str, object]:
    return {"depth": depth, "growth_rate": growth_rate, "bottleneck": True, "compression": 0.5, "stem": "cifar"}


def draw_curves(points: Sequence[Point], path: Path) -> Path:
    """Draw memory and time by depth."""
    figure(points).savefig(path, dpi=150, facecolor="white")
    return path


def figure(points: Sequence[Point]) -> Figure:
    """The figure of `draw_curves`."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(9.0, 3.9), layout="constrained")
    memory, seconds = drawing.subplots(1, 2)
    unit, name = (1e9, "GB") if max(point.activation_bytes or 0 for point in points) > 1e9 else (1e6, "MB")
    for kind in (False, True):
        own = sorted((point for point in points if point.memory_efficient is kind), key=lambda point: point.depth)
        style = {"color": _COLOURS[kind], "marker": "o", "markersize": 4, "label": _NAMES[kind]}
        known = [point for point in own if point.activation_bytes is not None]
        memory.plot([point.depth for point in known], [point.activation_bytes / unit for point in known], **style)
        seconds.plot([point.depth for point in own], [point.seconds_per_step for point in own], **style)
    for panel, label in ((memory, f"peak memory of a step ({name})"), (seconds, "seconds per step")):
        panel.set_xlabel("depth (layers)")
        panel.set_title(label, loc="left", fontsize=10)
        panel.set_ylim(0)
        panel.set_xticks(sorted({point.depth for point in points}))
        panel.grid(color="#dddddd", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    memory.legend(frameon=False, loc="upper left")
    one = points[0]
    drawing.suptitle(
        f"DenseNet-BC, growth rate {one.growth_rate}: training, {one.dtype}, batch {one.batch} of "
        f"{one.image_size} × {one.image_size} pixels",
        fontsize=11,
    )
    return drawing


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command. Raise InputError for a wrong value before anything starts."""
    from keras_deepnets.cli import show
    from keras_deepnets.cli.problems import CheckFailed
    from keras_deepnets.families.densenet import DenseNet

    given = _parser().parse_args(arguments)
    depths = sorted(checks.counts(given.depths, "--depths"))
    for flag in ("growth_rate", "batch", "image_size", "steps"):
        checks.counts(str(getattr(given, flag)), f"--{flag.replace('_', '-')}")
    for depth in depths:
        DenseNet.facts.family.spec(**_network(depth, given.growth_rate))  # raises an error for a wrong depth
    (dtype,) = checks.words(given.dtype, DTYPES, "--dtype")
    checks.folder(given.out, "--out")
    points: list[Point] = []
    failures: list[str] = []
    for depth in depths:
        for kind in (False, True):
            try:
                point = measure(
                    depth,
                    given.growth_rate,
                    given.batch,
                    kind,
                    dtype=dtype,
                    image_size=given.image_size,
                    steps=given.steps,
                )
            except WorkerError as error:  # the deepest plain network may need too much memory
                failures.append(str(error))
                print(f"failed: {error}", file=sys.stderr, flush=True)
                continue
            points.append(point)
            write_csv(given.out / CSV, points, [*_PROGRAM.split(), *(sys.argv[1:] if arguments is None else arguments)])
    if points:
        columns = ("depth", "network", "a step", "process", "seconds per step", "first step", "parameters")
        rows = [
            (
                str(point.depth),
                _NAMES[point.memory_efficient],
                "–" if point.activation_bytes is None else show.bytes_text(point.activation_bytes),
                show.bytes_text(point.process_peak_bytes),
                f"{point.seconds_per_step:.3g}",
                f"{point.first_step_seconds:.1f} s",
                f"{point.parameters:,}",
            )
            for point in points
        ]
        show.print_table(columns, rows, right=(columns[0], *columns[2:]))
        print(given.out / CSV)
        print(draw_curves(points, given.out / PICTURE))
    if failures:
        raise CheckFailed(f"{len(failures)} of {2 * len(depths)} could not be measured: {failures[0]}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--depths", default="40,70,100,130", help="comma-separated, each 6n + 4")
    parser.add_argument("--growth-rate", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--dtype", default="float32", help=", ".join(DTYPES))
    parser.add_argument("--steps", type=int, default=3, help="timed steps")
    parser.add_argument("--out", type=Path, default=Path("memory"), help="output folder")
    return parser


if __name__ == "__main__":
    from keras_deepnets.cli import problems

    sys.exit(problems.status_of(run))
