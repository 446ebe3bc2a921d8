"""Run a study: train each of its runs, then write the table, the figure and the verdict. The same call continues it."""

from __future__ import annotations

import contextlib
import gc
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.files import locked, write_json, written_aside
from keras_deepnets.studies import estimate, report, results, verdict
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
        verbose: As in `keras_deepnets.training.train`.
        loading: Context in which the images are loaded. It takes the source.

    Raises:
        InputError: The folder belongs to another definition, another process or holds other files. The data cannot be
            loaded. No run has finished.
        KeyboardInterrupt: The study was interrupted. Runs resume at their last checkpoint.
        Preempted: SIGTERM or SIGUSR1 ended the study. The state of the current run is saved.
    """
    _check(study, folder)
    with loading(study.data):
        sets = _sets(study)
    runs = plan(study)
    busy = f"Another process runs the study in {folder}. Wait until it ends, or choose another --out."
    with locked(folder, lambda: busy):
        _begin(study, folder, runs)
        found, failures = _train(study, folder, runs, sets, say, verbose)
        if not found:
            raise InputError(f"No run of the study has finished: {next(iter(failures.values()))}")
        return _finish(study, folder, sets, found, failures)


def _sets(study: Study) -> Sets:
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
) -> tuple[list[Result], dict[str, str]]:
    """Train the runs one after the other. Return the finished and diverged ones, and the reasons of the failed ones."""
    import keras

    from keras_deepnets.training.errors import DivergedError, is_disk_full

    images, classes = estimate.number_of_images(study.data, study.limit, sets)
    costs = estimate.costs(runs, images, classes)
    paths = [folder / "runs" / run.name for run in runs]
    known = [stored_divergence(run, path) for run, path in zip(runs, paths, strict=True)]
    waiting = [not there and not (path / "model.keras").exists() for there, path in zip(known, paths, strict=True)]
    rate = estimate.training_rate() if any(waiting) else 1.0
    expected = [cost.seconds(rate) if waits else 0.0 for cost, waits in zip(costs, waiting, strict=True)]
    done = len(runs) - sum(waiting)
    say(
        f"{len(runs)} runs on {images:,} images of {sets.train.name}"
        + (f", {done} of them finished" if done else "")
        + (f": {estimate.duration(sum(expected))} on this machine." if any(waiting) else ".")
    )
    maps = any(drawing.draw == "feature_reuse" for drawing in study.figure)
    found: list[Result] = []
    failures: dict[str, str] = {}
    used = planned = 0.0
    for place, run in enumerate(runs):
        begin = time.perf_counter()
        try:
            result = known[place] or measure(run, _run(run, folder, sets, verbose), sets.held, maps=maps)
        except DivergedError as error:
            cost = costs[place]
            network = {"parameters": cost.parameters, "multiply_adds": cost.multiply_adds}
            result = diverged(run, paths[place], network, 100 * (1 - 1 / classes), error.what)
        except Exception as error:
            if is_disk_full(error):
                raise
            failures[run.name] = " ".join(str(error).split()) or type(error).__name__
            say(f"[{place + 1}/{len(runs)}] {run.name} failed: {failures[run.name]}")
            continue
        finally:
            # Otherwise the graphs of all runs stay in memory.
            keras.backend.clear_session()
            gc.collect()
        found.append(result)
        results.write_csv(folder / "results.csv", found)
        if waiting[place]:
            used, planned = used + time.perf_counter() - begin, planned + expected[place]
            left = sum(expected[place + 1 :]) * (used / planned if planned else 1.0)
            more = f", {estimate.duration(left)} left" if left else ""
            said = f"diverged. {result.diverged}" if result.diverged else _said(result)
            say(f"[{place + 1}/{len(runs)}] {run.name}: {said}{more}")
    return found, failures


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
