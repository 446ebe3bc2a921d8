"""The command `benchmark --data`, which measures the input pipeline without a network."""

from __future__ import annotations

import dataclasses
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from keras_deepnets.benchmark import checks, pipeline, results
from keras_deepnets.benchmark.load import is_noise
from keras_deepnets.benchmark.pipeline import Rate
from keras_deepnets.cli import show
from keras_deepnets.cli.images import images_of
from keras_deepnets.cli.quiet import load_tensorflow, native_output_held_back
from keras_deepnets.errors import InputError

CSV = "pipeline.csv"
_OPTIONS = {"models", "data", "augment", "image_size", "batch", "seconds", "out", "as_json"}


def check_options(given: Iterable[str]) -> None:
    """Raise InputError for options that do not apply to a pipeline."""
    for name in sorted(set(given) - _OPTIONS):
        flag = name.removesuffix("s") if name == "options" else name
        raise InputError(f"--data measures the input pipeline, to which --{flag} does not apply; leave it out.")


def benchmark(
    sources: Sequence[str],
    augment: str | None,
    image_size: int | None,
    batch: str | None,
    seconds: float,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Measure the pipelines of a source or of synthetic images. Print a table and write a CSV file."""
    if len(sources) > 1:
        raise InputError(f"--data takes one SOURCE, but got {len(sources)}: {', '.join(sources)}.")
    source = sources[0] if sources else None
    pipeline.check_source(source, augment, image_size)
    sizes = [None] if batch is None else checks.counts(batch, "--batch")
    if source is None and batch is not None:
        raise InputError("--batch is for a SOURCE; name one: benchmark --data SOURCE.")
    if out is not None:
        checks.folder(out, "--out")
    load_tensorflow()
    rates: list[Rate] = []
    with tempfile.TemporaryDirectory() as folder:
        if source is None:
            with native_output_held_back():
                cases = pipeline.synthetic(Path(folder))
        else:
            images = images_of(source, "train", 0)
            cases = [case for size in sizes for case in pipeline.of_source(images, augment, image_size, size)]
        for case in cases:
            with native_output_held_back():
                rates.append(pipeline.measure(case, seconds))
            if not as_json:
                print(f"{case.name}: {rates[-1].images_per_second:,.0f} img/s", file=sys.stderr, flush=True)
            if out is not None:
                results.write_csv(out / CSV, rates)
    _report(rates, out, as_json)


def _report(rates: Sequence[Rate], out: Path | None, as_json: bool) -> None:
    files = [] if out is None else [str(out / CSV)]
    if as_json:
        rows = [dataclasses.asdict(rate) for rate in rates]
        show.print_json({"circumstances": results.circumstances(), "results": rows, "files": files})
        return
    columns = ("pipeline", "images in", "augment", "size", "batch", "img/s", "slowest", "fastest")
    show.print_table(columns, map(_cells, rates), right=columns[3:])
    print(f"{results.machine()}, {results.threads()} threads; median of {pipeline.WINDOWS} windows")
    noisy = [rate.others_busy or 0.0 for rate in rates if is_noise(rate.others_busy)]
    if noisy:
        print(
            f"* Other processes kept up to {max(noisy):.1f} of {results.threads()} processors busy meanwhile; measure again on an "
            "idle machine."
        )
    for file in files:
        print(file)


def _cells(rate: Rate) -> tuple[str, ...]:
    speeds = [f"{value:,.0f}" for value in (rate.images_per_second, rate.low, rate.high)]
    speeds[0] += "*" if is_noise(rate.others_busy) else ""
    return (rate.name, rate.place, rate.augment, f"{rate.height}×{rate.width}", str(rate.batch), *speeds)
