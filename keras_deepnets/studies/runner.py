"""Run a study: train each of its runs, then write the table, the figure and the verdict. The same call continues it."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.files import locked, write_json, written_aside
from keras_deepnets.studies import estimate, parallel, report, results, verdict
from keras_deepnets.studies.definition import Study
from keras_deepnets.studies.measuring import diverged, measure, stored_divergence
from keras_deepnets.studies.plan import PlannedRun, plan
from keras_deepnets.studies.results import Result
from keras_deepnets.studies.verdict import Outcome

if TYPE_CHECKING:
    from keras_deepnets.training.feed import Sets

CONFIG = "study.json"


def run(
    study: Study,
    folder: Path,
    *,
    say: Callable[[str], None] = print,
    verbose: int = 0,
    jobs: int | None = None,
    loading: Callable[[str], contextlib.AbstractContextManager[None]] = lambda source: contextlib.nullcontext(),
) -> Outcome:
    """Train all runs of a study, and write its results.

    A call for a folder with unfinished runs continues them. `results.csv` has a row for each finished run and is
    complete at any moment. `table.md`, `figure.png`, `figure.svg` and the verdict in `study.json` are written at the
    end. A run that fails is reported, and the others continue.

    Args:
        study: The study.
        folder: Folder of the results. It need not exist.
        say: Called with each line of progress.
        verbose: As in `keras_deepnets.training.train`, if `jobs` is 1.
        jobs: Number of runs to train at once, each in a separate process. 1 trains in this process. None chooses by the processors
            and the free memory; with a GPU, and for studies of less than two minutes, it chooses 1.
        loading: Context in which the images are loaded. It takes the source.

    Raises:
        InputError: The folder belongs to another definition, another process or holds other files. The data cannot be
            loaded. No run has finished.
        KeyboardInterrupt: The study was interrupted. Runs resume at their last checkpoint.
        Preempted: SIGTERM or SIGUSR1 ended the study. The states of the current runs are saved.
    """
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs={jobs} must be at least 1.")
    _check(study, folder)
    with loading(study.data):
        sets = load_sets(study)
    runs = plan(study)
    busy = f"Another process runs the study in {folder}. Wait until it ends, or choose another --out."
    with locked(folder, lambda: busy):
        _begin(study, folder, runs)
        found, failures = _train(study, folder, runs, sets, say, verbose, jobs)
        if not found:
            raise InputError(f"No run of the study has finished: {next(iter(failures.values()))}")
        return _finish(study, folder, sets, found, failures)


def load_sets(study: Study) -> Sets:
    """Load the training and test images of a study."""
    from keras_deepnets.training import feed

    try:
        sets = feed.load(study.data, None, 0, limit=study.limit)
    except InputError as error:
        raise InputError(f"{error} --data gives other images, e.g. --data digits, which are embedded.") from error
    if sets.held is None:
        raise InputError(f"{study.data} has too few images for a test set; give other images with --data.")
    return sets if study.test is None else sets._replace(held=sets.held.take(study.test))


def _check(study: Study, folder: Path) -> None:
    """Raise `InputError` unless the folder is empty or holds this study."""
    from keras_deepnets.training.run import differences

    config = folder / CONFIG
    if not config.is_file():
        if folder.exists() and (
            not folder.is_dir() or any(not entry.name.startswith(".") for entry in folder.iterdir())
        ):
            raise InputError(f"{folder} is not an empty folder and not that of a study; choose another --out.")
        return
    try:
        there = json.loads(config.read_text(encoding="utf-8"))["definition"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{config} is not that of a study ({error}); choose another --out.") from None
    here = json.loads(json.dumps(study.to_dict()))
    if found := differences(_of_runs(there), _of_runs(here)):
        shown = "; ".join(found[:3]) + (f"; and {len(found) - 3} more" if len(found) > 3 else "")
        raise InputError(f"{folder} holds a study with another definition: {shown}. Choose another --out.")


def _of_runs(definition: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a definition that the runs depend on. Titles, drawings and comparisons may change."""
    keys = ("name", "data", "limit", "test", "seeds", "rows", "search")
    found = {key: definition.get(key) for key in keys}
    rows = found["rows"] or []
    return found | {"rows": {str(place): row for place, row in enumerate(rows)}}


def _begin(study: Study, folder: Path, runs: Sequence[PlannedRun]) -> None:
    from keras_deepnets.training.run import surroundings

    before = json.loads((folder / CONFIG).read_text(encoding="utf-8")) if (folder / CONFIG).is_file() else {}
    kept = {key: before[key] for key in ("created", "command", "versions") if key in before}
    values = {"definition": study.to_dict(), "runs": [run.name for run in runs]} | surroundings() | kept
    write_json(folder / CONFIG, values)


def _train(
    study: Study,
    folder: Path,
    runs: Sequence[PlannedRun],
    sets: Sets,
    say: Callable[[str], None],
    verbose: int,
    jobs: int | None,
) -> tuple[list[Result], dict[str, str]]:
    """Train the runs. Return the finished and diverged ones, and the reasons of the failed ones."""
    from keras_deepnets.training.errors import is_disk_full

    images = estimate.images_in(sets)
    maps = any(drawing.draw == "feature_reuse" for drawing in study.figure)
    found: dict[int, Result] = {}
    failures: dict[str, str] = {}
    waiting: list[int] = []
    for place, run in enumerate(runs):
        path = folder / "runs" / run.name
        if known := stored_divergence(run, path):
            found[place] = known
        elif not (path / "model.keras").exists():
            waiting.append(place)
    finished = [place for place in range(len(runs)) if place not in found and place not in waiting]
    line = f"{len(runs)} runs on {images.train:,} images of {sets.train.name}"
    if len(waiting) < len(runs):
        line += f", {len(runs) - len(waiting)} of them finished"
    expected: dict[int, float] = {}
    if not waiting:
        jobs = 1
    else:
        rate = estimate.training_rate()
        costs = estimate.costs([runs[place] for place in waiting], images)
        expected = {place: cost.seconds(rate) for place, cost in zip(waiting, costs, strict=True)}
        total = sum(expected.values())
        jobs = min(jobs or parallel.automatic(total, len(waiting)), len(waiting))
        line += f": {estimate.duration(total / parallel.gain(jobs))} on this machine"
        line += f", {jobs} runs at once" if jobs > 1 else ""
    say(f"{line}.")

    others = [(place, runs[place]) for place in waiting] if jobs > 1 else []
    here = finished if others else finished + waiting
    progress = _Progress(expected, jobs)
    with contextlib.closing(parallel.together(study, folder, others, jobs, maps=maps, verbose=verbose)) as answers:
        for place, result in itertools.chain(_alone(runs, here, folder, sets, verbose, maps), answers):
            where = f"[{place + 1}/{len(runs)}] {runs[place].name}"
            more = progress.ended(place)
            if isinstance(result, Exception):
                if is_disk_full(result):
                    raise result
                failures[runs[place].name] = " ".join(str(result).split()) or type(result).__name__
                say(f"{where} failed: {failures[runs[place].name]}")
                continue
            found[place] = result
            results.write_csv(folder / "results.csv", [found[at] for at in sorted(found)])
            if place in waiting:
                say(f"{where}: {f'diverged. {result.diverged}' if result.diverged else _said(result)}{more}")
    return [found[place] for place in sorted(found)], failures


class _Progress:
    """How long the rest of the runs takes.

    Args:
        expected: Estimated seconds of each run.
        jobs: How many are trained at once.
    """

    def __init__(self, expected: Mapping[int, float], jobs: int):
        self._left, self._jobs = dict(expected), jobs
        self._all, self._begin = sum(expected.values()), time.perf_counter()

    def ended(self, place: int) -> str:
        """Note that a run has ended. Return about how long the others take, in words."""
        self._left.pop(place, None)
        if not self._left:
            return ""
        # The other processes are on average half through their runs.
        rest = sum(self._left.values()) - sum(list(self._left.values())[: self._jobs - 1]) / 2
        done = self._all - rest
        return f", {estimate.duration((time.perf_counter() - self._begin) * rest / done)} left" if done else ""


def _alone(
    runs: Sequence[PlannedRun], places: Sequence[int], folder: Path, sets: Sets, verbose: int, maps: bool
) -> Iterator[tuple[int, Result | Exception]]:
    """Train runs in this process. Yield the place and the result or the error of each."""
    for place in places:
        result: Result | Exception
        try:
            result = attempt(runs[place], folder, sets, verbose, maps=maps)
        except Exception as error:
            result = error
        yield place, result


def attempt(planned: PlannedRun, folder: Path, sets: Sets, verbose: int = 0, *, maps: bool) -> Result:
    """Train and measure a run, or return what is known of it if it is finished. A run that diverges has a result too.

    Args:
        planned: The run.
        folder: Folder of the study.
        sets: Training and test images.
        verbose: As in `keras_deepnets.training.train`.
        maps: As in `measuring.measure`.
    """
    import keras

    from keras_deepnets.training.errors import DivergedError

    try:
        return measure(planned, _run(planned, folder, sets, verbose), sets.held, maps=maps)
    except DivergedError as error:
        images = estimate.images_in(sets)
        [cost] = estimate.costs([planned], images)
        network = {"parameters": cost.parameters, "multiply_adds": cost.multiply_adds}
        return diverged(planned, folder / "runs" / planned.name, network, 100 * (1 - 1 / images.classes), error.what)
    finally:
        # Otherwise the graphs of all runs stay in memory.
        keras.backend.clear_session()
        gc.collect()


def _said(result: Result) -> str:
    parts = [
        f"{name} error {result.measured[key]:.2f} %"
        for name, key in (("training", "train_error"), ("test", "test_error"))
        if key in result.measured
    ]
    return f"{', '.join(parts)}, {result.measured['seconds']:.0f} s"


def _run(planned: PlannedRun, folder: Path, sets: Sets, verbose: int) -> Any:
    from keras_deepnets.training import train

    settings = dict(planned.settings)
    return train(
        planned.network,
        sets,
        planned.recipe,
        folder / "runs" / planned.name,
        precision=settings.pop("precision", None),
        seed=planned.seed,
        verbose=verbose,
        model_options=planned.options,
        **settings,
    )


def _finish(study: Study, folder: Path, sets: Sets, found: Sequence[Result], failures: Mapping[str, str]) -> Outcome:
    """Judge the claim, and write the table, the figure and the verdict."""
    from keras_deepnets.studies import figure

    grouped = results.groups(found, study.search)
    held = sets.held.size if sets.held is not None else 0
    overall, judgements = verdict.judge(study, grouped, {"train": sets.train.size, "test": held})
    outcome = Outcome(folder, tuple(found), dict(failures), overall, tuple(judgements))
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["finished"] = [result.run for result in found if not result.diverged]
    config["diverged"] = outcome.diverged
    config["failed"] = dict(failures)
    config["images"] = {"train": sets.train.size, "test": held}
    config["verdict"] = overall
    config["comparisons"] = [judgement.to_dict() for judgement in judgements]
    config["table"] = {
        "heading": results.heading(study),
        "rows": results.table(study, grouped),
        "numbers": report.numbers(outcome),
    }
    with written_aside(folder / "table.md") as aside:
        aside.write_text(report.markdown(study, outcome, grouped, config), encoding="utf-8")
    figure.draw(study, grouped, overall, [folder / "figure.png", folder / "figure.svg"])
    write_json(folder / CONFIG, config)
    return outcome
