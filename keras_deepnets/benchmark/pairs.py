"""Ours and a peer take turns, step by step, each in a fresh process. No framework is imported here."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from keras_deepnets.benchmark.jobs import FOLDED, OURS, Configuration, Job
from keras_deepnets.benchmark.load import Bystander
from keras_deepnets.benchmark.peers import Peer
from keras_deepnets.benchmark.process import Worker
from keras_deepnets.benchmark.results import Result, share_of_ceiling, threads

LEAST, MOST = 5, 30


@dataclass(frozen=True)
class Plan:
    """How long is measured.

    Attributes:
        warmup: steps of each side before any counts; the first is where a framework traces and compiles.
        pairs: steps of each side that count; None for as many as fit into `seconds`, from `LEAST` to `MOST`.
        seconds: see `pairs`.
    """

    warmup: int = 3
    pairs: int | None = None
    seconds: float = 30.0


@dataclass(frozen=True)
class Measured:
    """What one process gave."""

    facts: dict[str, Any]
    first: float
    times: list[float]
    memory: dict[str, Any]
    end: dict[str, Any]
    others_busy: float | None


def job_of(configuration: Configuration, library: str, peer: Peer | None, options: dict[str, Any]) -> Job:
    """The job of one side: ours, or that of `library`."""
    return Job(
        library=library,
        model=configuration.model,
        options=options,
        peer=peer.build if peer is not None and library not in (OURS, FOLDED) else None,
        mode=configuration.mode,
        dtype=configuration.dtype,
        batch=configuration.batch,
        image_size=configuration.image_size,
        threads=configuration.threads,
    )


def measure(
    configuration: Configuration,
    peer: Peer | None,
    plan: Plan = Plan(),
    *,
    folded: bool = False,
    options: dict[str, Any] | None = None,
    gflops: float | None = None,
    start: Callable[[Job, str], Worker] = Worker,
) -> list[Result]:
    """Measures ours, and `peer` with it.

    Args:
        configuration: what is measured.
        peer: who takes turns with ours; None for ours alone.
        plan: how long.
        folded: whether ours is measured with batch normalisation folded; on TensorFlow as `export.inference_function` makes it.
        options: of our constructor, over those with which it is the peer's network.
        gflops: of the ceiling, if that was measured.
        start: starts a worker for a job, under a name for messages.

    Returns:
        The result of ours, then that of the peer.

    Raises:
        WorkerError: a side could not be built, or died. Both processes are gone then.
    """
    own = (dict(peer.options) if peer else {}) | (options or {})
    mine = FOLDED if folded else OURS
    jobs = {mine: job_of(configuration, mine, peer, own)}
    if peer is not None:
        theirs = {} if peer.library == OURS else own
        jobs[peer.library if peer.library != mine else "ours (default)"] = job_of(
            configuration, peer.library, peer, theirs
        )
    sides = take_turns(jobs, f"{configuration}", plan, start)
    return _results(configuration, peer, sides, own, gflops)


def take_turns(
    jobs: dict[str, Job], what: str, plan: Plan, start: Callable[[Job, str], Worker] = Worker
) -> dict[str, Measured]:
    """Builds the jobs, each in a process of its own, and has them step in turn; one may be alone.

    They are built one after the other, so that building is timed on a machine that does nothing else.
    """
    with contextlib.ExitStack() as stack:
        workers = []
        for name, job in jobs.items():
            worker = stack.enter_context(start(job, f"{name} ({what})"))
            worker.built()
            workers.append(worker)
        firsts = [worker.step() for worker in workers]
        for _ in range(plan.warmup - 2):
            for worker in workers:
                worker.step()
        memory = [worker.ask("memory") for worker in workers]  # a step too, when allocators have what they need
        bystander = Bystander(worker.pid for worker in workers)
        times = _times(workers, plan)
        others = bystander.others()
        return {
            name: Measured(worker.facts, first, taken, used, worker.quit(), others)
            for name, worker, first, taken, used in zip(jobs, workers, firsts, times, memory, strict=True)
        }


def _times(workers: Sequence[Worker], plan: Plan) -> list[list[float]]:
    times: list[list[float]] = [[] for _ in workers]
    for _ in _rounds(plan):
        for worker, record in zip(workers, times, strict=True):
            record.append(worker.step())
    return times


def _rounds(plan: Plan) -> Iterator[int]:
    begin = time.perf_counter()
    for number in range(plan.pairs or MOST):
        if plan.pairs is None and number >= LEAST and time.perf_counter() - begin > plan.seconds:
            return
        yield number


def ceiling(
    dtype: str,
    size: int | None = None,
    *,
    threads: int | None = None,
    start: Callable[[Job, str], Worker] = Worker,
) -> float:
    """GFLOP/s of a large matrix product in `dtype`, in a fresh process."""
    with start(
        Job(kind="ceiling", dtype=dtype, size=size, threads=threads), f"the matrix product in {dtype}"
    ) as worker:
        gflops = worker.built()["gflops"]
        worker.quit()
    return gflops


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """How many times faster ours was, pair by pair."""
    return [other / own for own, other in zip(ours, theirs, strict=True)]


def _results(
    configuration: Configuration,
    peer: Peer | None,
    sides: dict[str, Measured],
    options: dict[str, Any],
    gflops: float | None,
) -> list[Result]:
    ours = next(iter(sides.values()))
    low = middle = high = None
    if peer is not None:
        found = ratios(ours.times, list(sides.values())[1].times)
        middle = statistics.median(found)
        low, _, high = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else (middle,) * 3
    names = [f"ours{_text(options)}", peer.description if peer else ""]
    results = []
    for (side, measured), network in zip(sides.items(), names, strict=False):
        facts, median = measured.facts, statistics.median(measured.times)
        speed = configuration.batch / median
        # A peer that cannot count its own is the same network.
        multiply_adds = facts.get("multiply_adds", ours.facts.get("multiply_adds"))
        share = None
        if gflops and multiply_adds:
            share = share_of_ceiling(multiply_adds, configuration.mode, speed, gflops)
        results.append(
            Result(
                model=configuration.model,
                mode=configuration.mode,
                dtype=configuration.dtype,
                batch=configuration.batch,
                image_size=facts["image_size"],
                against=list(sides)[1] if peer is not None else "",
                side=side,
                network=network,
                pairs=len(measured.times),
                ms_per_step=1e3 * median,
                images_per_second=speed,
                ratio=middle,
                ratio_low=low,
                ratio_high=high,
                first_step_seconds=measured.first,
                build_seconds=facts["build_seconds"],
                export_seconds=facts.get("export_seconds"),
                artifact_bytes=facts.get("artifact_bytes"),
                activation_bytes=measured.memory["activation_bytes"],
                activation_source=measured.memory["activation_source"],
                process_peak_bytes=measured.end["process_peak_bytes"],
                parameters=facts["parameters"],
                multiply_adds=multiply_adds,
                ceiling_gflops=gflops,
                share_of_ceiling=share,
                threads=configuration.threads or threads(),
                others_busy=measured.others_busy,
                device=facts["device"],
                versions=", ".join(f"{package} {version}" for package, version in facts["versions"].items()),
            )
        )
    return results


def _text(options: dict[str, Any]) -> str:
    return f" ({', '.join(f'{name}={value}' for name, value in options.items())})" if options else ""
