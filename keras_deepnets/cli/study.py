"""The `study` command."""

from __future__ import annotations

import sys
from pathlib import Path

from keras_deepnets import studies
from keras_deepnets.cli import show
from keras_deepnets.cli.images import loading
from keras_deepnets.cli.problems import PROGRAM, CheckFailed, Interrupted
from keras_deepnets.cli.quiet import load_tensorflow
from keras_deepnets.studies import Study, estimate, parallel
from keras_deepnets.studies.results import groups, heading, table

FILES = {
    "table.md": "the table, the verdict, the command and the versions",
    "figure.png": "the figure",
    "figure.svg": "the same as vectors",
    "results.csv": "all measures, one row for each run",
    "study.json": "definition, versions and verdict",
    "runs": "the run folders",
}


def list_studies(as_json: bool) -> None:
    """Print one row for each built-in study: name, runs and claim."""
    found = [studies.load(name) for name in studies.names()]
    if as_json:
        show.print_json(
            [{"name": each.name, "title": each.title, "claim": each.claim, "source": each.source} for each in found]
        )
        return
    rows = [(each.name, str(len(studies.plan(each))), each.claim) for each in found]
    show.print_table(("study", "runs", "claim"), rows, right=("runs",))
    print(f"`{PROGRAM} study NAME` runs one; `study NAME --dry-run` shows its runs and about how long they take.")


def show_plan(study: Study, as_json: bool, jobs: int | None) -> None:
    """Print the runs of a study, with parameters and estimated time. The time of a run is that without other runs."""
    load_tensorflow()
    runs = studies.plan(study)
    with loading(study.data):
        images = estimate.images_of(study)
    costs = estimate.costs(runs, images)
    rate = estimate.training_rate()
    total = sum(cost.seconds(rate) for cost in costs)
    jobs = min(jobs or parallel.automatic(total, len(runs)), len(runs))
    together = total / parallel.gain(jobs)
    if as_json:
        show.print_json(
            {
                "study": study.name,
                "claim": study.claim,
                "images": images.train,
                "jobs": jobs,
                "seconds": round(together),
                "runs": [
                    {
                        "run": run.name,
                        "network": run.network,
                        "options": dict(run.options),
                        "recipe": run.recipe,
                        "set": dict(run.settings),
                        "seed": run.seed,
                        "parameters": cost.parameters,
                        "multiply_adds": cost.multiply_adds,
                        "seconds": round(cost.seconds(rate)),
                    }
                    for run, cost in zip(runs, costs, strict=True)
                ],
            }
        )
        return
    print(f"{study.title}. {study.source}")
    print(study.claim)
    if study.note:
        print(study.note)
    rows = [
        (
            run.name,
            run.network,
            run.recipe,
            f"{cost.parameters:,}",
            f"{cost.multiply_adds / 1e9:.3g} G",
            f"{cost.images:,}",
            estimate.duration(cost.seconds(rate)).removeprefix("about "),
        )
        for run, cost in zip(runs, costs, strict=True)
    ]
    names = ("run", "network", "recipe", "parameters", "multiply-adds", "images seen", "time")
    show.print_table(names, rows, right=names[3:])
    how = f", {jobs} runs at once" if jobs > 1 else ""
    print(f"{len(runs)} runs on {images.train:,} images: {estimate.duration(together)} on this machine{how}.")


def run(study: Study, out: Path, as_json: bool, jobs: int | None = None) -> None:
    """Run a study, and print its table and its verdict."""
    load_tensorflow()
    from keras_deepnets.training import Preempted

    begun = False

    def say(line: str) -> None:
        nonlocal begun
        if not begun and not as_json:
            print(f"{study.title}. {study.claim}")
        begun = True
        print(line, file=sys.stderr if as_json else sys.stdout, flush=True)

    terminal = sys.stdout.isatty() and not as_json
    try:
        outcome = studies.run(study, out, say=say, verbose=1 if terminal else 0, jobs=jobs, loading=loading)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; rerun the same command to continue the study") from None
    except Preempted as stop:
        if not terminal:  # otherwise the run has printed it
            print(stop, file=sys.stderr)
        raise
    if as_json:
        show.print_json(
            {
                "study": study.name,
                "folder": str(out),
                "verdict": outcome.verdict,
                "comparisons": [each.to_dict() for each in outcome.judgements],
                "runs": [{"run": each.run, **each.labels, **each.measured} for each in outcome.results],
                "diverged": outcome.diverged,
                "failed": dict(outcome.failures),
            }
        )
    else:
        _print(study, outcome)
    if outcome.failures:
        count = len(outcome.failures)
        raise CheckFailed(f"{count} run{'s' * (count > 1)} of the study: {', '.join(outcome.failures)}")


def _print(study: Study, outcome: studies.Outcome) -> None:
    grouped = groups(outcome.results, study.search)
    names = heading(study)
    print()
    show.print_table(names, table(study, grouped), right=names[-len(study.measures) :])
    print()
    rows = [(each.outcome, each.says, each.why) for each in outcome.judgements]
    show.print_table(("outcome", "part of the claim", "measured"), rows)
    print(f"The claim is: {outcome.verdict}.")
    print()
    show.print_table(("file", "what it is"), [(str(outcome.folder / name), meaning) for name, meaning in FILES.items()])
