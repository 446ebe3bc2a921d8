"""The `benchmark` command, which measures speed next to other libraries. This module imports no framework."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_deepnets import registry
from keras_deepnets.benchmark import chart, checks, pairs, peers, results
from keras_deepnets.benchmark.jobs import DTYPES, FOLDED, MODES, OURS, Configuration
from keras_deepnets.benchmark.load import is_noise
from keras_deepnets.benchmark.peers import Peer
from keras_deepnets.benchmark.process import WorkerError
from keras_deepnets.benchmark.results import Result
from keras_deepnets.cli import show
from keras_deepnets.cli.problems import CheckFailed
from keras_deepnets.cli.train import check_options
from keras_deepnets.errors import InputError

CSV, PICTURE = "benchmark.csv", "benchmark.png"


@dataclass(frozen=True)
class Request:
    """A benchmark as requested on the command line. Lists are unparsed text.

    Attributes:
        models: Names in the registry.
        modes: Comma-separated modes.
        dtypes: Comma-separated dtypes.
        batches: Comma-separated batch sizes. None for a default that fits the network's data.
        against: Comma-separated peers. "none" measures only this library.
        image_size: Image side in pixels, or None.
        threads: CPU threads of each side, or None.
        folded: Whether this library's networks are measured with batch normalisation folded.
        options: Options of this library's networks.
        plan: Numbers of steps and seconds to measure.
        with_ceiling: Whether matrix products are measured too.
        out: Output folder, or None.
    """

    models: Sequence[str]
    modes: str
    dtypes: str
    batches: str | None
    against: str
    image_size: int | None
    threads: int | None
    folded: bool
    options: dict[str, Any]
    plan: pairs.Plan
    with_ceiling: bool
    out: Path | None


def benchmark(request: Request, *, as_json: bool) -> None:
    """Measure pair by pair. Print a table, and update the CSV file after each pair."""
    configurations = list(_configurations(request))
    names = checks.words(request.against, [*peers.LIBRARIES, "none"], "--against")
    if request.out is not None:
        checks.folder(request.out, "--out")
    against, notes = _at_hand(name for name in names if name != "none")
    work = list(_work(configurations, against, notes))
    rows: list[Result] = []
    failures: list[str] = []
    ceilings: dict[str, float] = {}
    for configuration, peer in work:
        if not as_json:
            _say(f"{configuration}{f', against {peer.description}' if peer else ''} …")
        try:
            if request.with_ceiling and configuration.dtype not in ceilings:
                ceilings[configuration.dtype] = pairs.ceiling(configuration.dtype, threads=request.threads)
            new = pairs.measure(
                configuration,
                peer,
                request.plan,
                folded=request.folded,
                options=request.options,
                gflops=ceilings.get(configuration.dtype),
            )
        except (WorkerError, InputError) as error:
            if isinstance(error, InputError) and not rows:
                raise  # an error in the request itself, e.g. images that are too small for the network
            failures.append(str(error))
            _say(f"failed: {error}")
            continue
        rows += new
        if not as_json:
            _say(_line(new))
        if request.out is not None:
            results.write_csv(request.out / CSV, rows)
    if request.out is not None and rows:
        chart.draw_bars(rows, request.out / PICTURE, _subtitle(rows))
    _report(rows, notes, failures, request.out, as_json)
    if failures:
        raise CheckFailed(f"{len(failures)} of {len(work)} could not be measured: {failures[0]}")


def _configurations(request: Request) -> Iterator[Configuration]:
    modes = checks.words(request.modes, MODES, "--mode")
    dtypes = checks.words(request.dtypes, DTYPES, "--dtype")
    batches = None if request.batches is None else checks.counts(request.batches, "--batch")
    if "export" in modes and dtypes != ["float32"]:
        raise InputError("--mode export measures SavedModels, which compute in float32; leave out --dtype.")
    if request.folded and modes != ["inference"]:
        raise InputError(
            "--fold is for --mode inference: a folded network cannot be trained, and an export is always folded."
        )
    for name in request.models:
        check_options(name, request.options, complete=True)
        facts = registry.constructor_of(name).facts
        usual = [16 if facts.spec_with(request.options).domain.dataset.startswith("imagenet") else 128]
        for mode, dtype, batch in itertools.product(modes, dtypes, batches or usual):
            yield Configuration(facts.name.lower(), mode, dtype, batch, request.image_size, request.threads)


def _at_hand(names: Iterator[str]) -> tuple[list[str], list[str]]:
    """Return the installed peers, and a note about each missing one."""
    there, notes = [], []
    for name in names:
        problem = peers.missing(name)
        if problem is None:
            there.append(name)
        else:
            notes.append(f"{name} was skipped; {problem}")
    return there, notes


def _work(
    configurations: Sequence[Configuration], against: Sequence[str], notes: list[str]
) -> Iterator[tuple[Configuration, Peer | None]]:
    """Yield each configuration with its peers, or with None if it has no peer. Add missing counterparts to `notes`."""
    for configuration in configurations:
        found: list[Peer | None] = []
        for name in against:
            peer = peers.find(name, configuration.model)
            note: str | None
            if peer is None:
                note = f"{name} has no {configuration.model}"
            else:
                note = peers.unsupported(name, configuration.mode, configuration.dtype)
            if note is None:
                found.append(peer)
            elif note not in notes:
                notes.append(note)
        for peer in found or [None]:
            yield configuration, peer


def _line(new: Sequence[Result]) -> str:
    speeds = ", ".join(f"{result.side} {result.images_per_second:,.4g} img/s" for result in new)
    ratio = "" if new[0].ratio is None else f", ratio {new[0].ratio:.2f}"
    return f"  {speeds}{ratio} ({new[0].pairs} steps)"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _report(
    rows: Sequence[Result], notes: Sequence[str], failures: Sequence[str], out: Path | None, as_json: bool
) -> None:
    files = [] if out is None or not rows else [out / CSV, out / PICTURE]
    if as_json:
        show.print_json(
            {
                "circumstances": results.circumstances(),
                "results": [dataclasses.asdict(row) for row in rows],
                "left_out": list(notes),
                "failed": list(failures),
                "files": [str(file) for file in files],
            }
        )
        return
    if rows:
        _print_table(rows)
        print(_subtitle(rows))
        if warning := _noise(rows):
            print(warning)
    for note in notes:
        print(f"{note}.")
    for file in files:
        print(file)


def _print_table(rows: Sequence[Result]) -> None:
    """Print one table per network and mode, so that each table fits a terminal."""
    for number, ((model, mode, size), group) in enumerate(itertools.groupby(rows, _subject)):
        lines = list(group)
        print(f"{'' if number == 0 else chr(10)}{model}, {mode}, {size} × {size} pixels")
        exported = mode == "export"
        columns = ["dtype", "batch", "side", "img/s", "ms/step", "ratio", "import", "build", "first"]
        columns += ["export", "disk"] if exported else []
        columns += ["step mem", "process", "ceiling"]
        show.print_table(columns, [_cells(row, exported) for row in lines], right=[columns[1], *columns[3:]])


def _subject(row: Result) -> tuple[str, str, int]:
    return row.model, row.mode, row.image_size


def _cells(row: Result, exported: bool) -> list[str]:
    own = row.side != row.against
    ratio = (
        ""
        if row.ratio is None or not own
        else f"{row.ratio:.2f}×{'*' if is_noise(row.others_busy, row.threads) else ''}"
    )
    network = row.network.replace(OURS, FOLDED, 1) if row.side == FOLDED else row.network
    cells = [row.dtype, str(row.batch), network]
    cells += [f"{row.images_per_second:,.4g}", f"{row.ms_per_step:,.4g}", ratio]
    cells += [f"{row.import_seconds:.1f} s", _or_dash(row.build_seconds, "{:.2f} s"), f"{row.first_step_seconds:.1f} s"]
    if exported:
        cells += [_or_dash(row.export_seconds, "{:.1f} s"), _bytes(row.artifact_bytes)]
    return [*cells, _bytes(row.activation_bytes), _bytes(row.process_peak_bytes), _share(row.share_of_ceiling)]


def _subtitle(rows: Sequence[Result]) -> str:
    """The device, the matrix-product speeds and the versions of the measurement."""
    devices = dict.fromkeys(row.device for row in rows if row.device != "CPU")
    threads = rows[0].threads
    place = ", ".join(devices) or f"{results.machine()}, {threads} thread{'' if threads == 1 else 's'}"
    found = {row.dtype: row.ceiling_gflops for row in rows if row.ceiling_gflops}
    parts = [place, *(f"matrix product {dtype} {gflops:,.0f} GFLOP/s" for dtype, gflops in found.items())]
    versions = ", ".join(dict.fromkeys(part for row in rows for part in row.versions.split(", ")))
    return "; ".join([*parts, versions])


def _noise(rows: Sequence[Result]) -> str:
    """A warning if other processes kept the machine busy while steps were timed, else an empty text."""
    noisy = [row for row in rows if is_noise(row.others_busy, row.threads)]
    if not noisy:
        return ""
    worst = max(row.others_busy or 0.0 for row in noisy)
    return (
        f"* Other processes kept up to {worst:.1f} of {results.threads()} processors busy meanwhile. This can slow one side more than "
        "the other; measure again on an idle machine."
    )


def _bytes(count: int | None) -> str:
    return "–" if count is None else show.bytes_text(count)


def _share(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2g} %"


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)
