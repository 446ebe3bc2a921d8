"""The sections that reports of classifiers and of detectors share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets import insight
from keras_deepnets.reports.exports import exports_in
from keras_deepnets.reports.html import Page
from keras_deepnets.reports.runs import RunSummary

if TYPE_CHECKING:
    import keras

_ROWS = (
    "optimizer",
    "learning_rate",
    "schedule",
    "batch_size",
    "weight_decay",
    "label_smoothing",
    "augmentation",
    "loss",
)


def begin(run: RunSummary) -> Page:
    """Return a new page about a run."""
    config = run.config
    created = str(config.get("created", "")).replace("T", " ").replace("+00:00", " UTC")
    about = (
        f"A run of {run.network_text} on {run.data}, recipe {run.recipe}{f', started {created}' if created else ''}."
    )
    return Page(f"{run.name}: {run.network} on {run.data}", about)


def trained(page: Page, run: RunSummary, model: keras.Model, labels: Sequence[str]) -> None:
    """Add what was trained on what."""
    from keras_deepnets.models import trainable_parameters

    config, recipe = run.config, run.config["recipe"]
    resolved = config.get("resolved") or {}
    data, held = config["data"], config.get("validation") or {}
    names = ", ".join(labels[:20]) + (f", … ({len(labels)})" if len(labels) > 20 else "")
    rows: list[tuple[str, Any]] = [
        ("network", run.network_text),
        ("input", _shape(model, config)),
        ("trainable parameters", f"{trainable_parameters(model):,}"),
        ("multiply-adds of one image", _multiply_adds(model)),
        ("training data", f"{data.get('name')}, split {data.get('split')}: {data.get('size', 0):,} images"),
        (
            "held out",
            f"{held.get('name')}, split {held.get('split')}: {held.get('size', 0):,} images" if held else "nothing",
        ),
        ("classes", names),
        ("recipe", f"{run.recipe}: {recipe.get('source', '')}"),
        ("epochs, steps", f"{run.metrics.get('epochs', 0):g}, {run.metrics.get('steps', 0):,}"),
    ]
    used = resolved | {name: value for name, value in recipe.items() if name not in resolved or resolved[name] is None}
    rows += [(name.replace("_", " "), used[name]) for name in _ROWS if used.get(name) not in (None, [], "", 0)]
    rows += [("precision", resolved.get("precision", config.get("precision"))), ("seed", config.get("seed"))]
    page.section("What was trained")
    page.table(rows)


def _shape(model: keras.Model, config: Any) -> str:
    shape = config["model"].get("input_shape") or list(model.inputs[0].shape[1:])
    return " × ".join("any" if side is None else str(side) for side in shape)


def _multiply_adds(model: keras.Model) -> str:
    from keras_deepnets.errors import InputError
    from keras_deepnets.models import multiply_adds

    try:
        return f"{multiply_adds(model):,}"
    except (InputError, TypeError, AttributeError):  # the input size is open
        return "unknown: the input size is open"


def curves(page: Page, run: RunSummary, folder: Path) -> None:
    """Add the learning curves."""
    page.section("Learning curves")
    file = insight.draw_curves({run.name: run.path}, folder / "curves.png")
    page.picture(file, "Error or precision, loss and learning rate over the epochs")


def speed(page: Page, run: RunSummary, rows: Sequence[tuple[str, str]]) -> None:
    """Add speed and memory. `rows` are measurements of this kind of network."""
    found = [("training", f"{run.metrics.get('images_per_second', 0):,.1f} images/s"), ("training time", duration(run))]
    page.section("Speed and memory")
    page.table([*found, *rows])


def duration(run: RunSummary) -> str:
    """Return the training time of a run for people."""
    seconds = float(run.metrics.get("seconds", 0))
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def megabytes(count: float) -> str:
    """Format a number of bytes in MB, to three digits."""
    value = count / 1e6
    return f"{value:.3g} MB" if value < 1000 else f"{value:,.0f} MB"


def end(page: Page, run: RunSummary, folders: Sequence[Path]) -> None:
    """Add exports, command and versions."""
    page.section("Exported models")
    found = exports_in(folders)
    if found:
        rows = [(_relative(each.path, run.path), each.kind, megabytes(each.bytes)) for each in found]
        page.table(rows, ("path", "kind", "size"), right=(2,))
    else:
        page.text("No exported models were found in the run folder. The option --exports names other folders.")
    page.section("Command and versions")
    page.code(run.command or "The run was started from Python code.")
    versions = run.config.get("versions") or {}
    facts: list[tuple[str, Any]] = [
        *versions.items(),
        ("backend", run.config.get("backend", "")),
        ("platform", run.config.get("platform", "")),
    ]
    facts.append(("deterministic", "yes" if run.config.get("deterministic") else "no"))
    page.table(facts)


def _relative(path: Path, folder: Path) -> str:
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)
