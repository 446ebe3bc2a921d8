"""Alternate steps of this library's network and a peer's, each in a fresh process. This module imports no framework."""

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
    """Length of a measurement.

    Attributes:
        warmup: Number of steps of each side that are not timed. In the first one, a framework traces and compiles.
        pairs: Number of timed steps of each side. None for as many as fit in `seconds`, from `LEAST` to `MOST`.
        seconds: Seconds to measure if `pairs` is None.
    """

    warmup: int = 3
    pairs: int | None = None
    seconds: float = 30.0


@dataclass(frozen=True)
class Measured:
    """Measurements of one process."""

    facts: dict[str, Any]
    first: float
    times: list[float]
    memory: dict[str, Any]
    end: dict[str, Any]
    others_busy: float | None


def job_of(configuration: Configuration, library: str, peer: Peer | None, options: dict[str, Any]) -> Job:
    """The job of one side: this library's, or that of `library`."""
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
    """Measure this library's network together with `peer`.

    Args:
        configuration: What to measure.
        peer: The network to compare with. None to measure this library's network alone.
        plan: Length of the measurement.
        folded: Whether to fold this library's batch normalisation, on TensorFlow with `export.inference_function`.
        options: Options of this library's constructor. They override those that give the peer's network.
        gflops: Speed of the ceiling, if it was measured.
        start: Function that starts a worker for a job, with a name for messages.

    Returns:
        The result of this library's network, then that of the peer.

    Raises:
        WorkerError: A side could not be built, or its process died. Both processes have ended then.
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
    """Build each job in a separate process, and alternate their steps. A single job is allowed.

    The jobs are built one after another, so that building is timed on an otherwise idle machine.
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
        # Also a warm-up step: allocators have reserved their memory by now.
        memory = [worker.ask("memory") for worker in workers]
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
    """Speed of this library relative to the peer, for each pair of steps."""
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
        # A peer that cannot count its multiply-adds is the same network, so the counts are equal.
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
                import_seconds=facts["import_seconds"],
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
