"""The command that trains."""

from __future__ import annotations

import ast
import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.cli import PROGRAM, catalog, show
from keras_deepnets.cli.images import images_of
from keras_deepnets.cli.problems import Interrupted
from keras_deepnets.cli.quiet import load_tensorflow
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    from keras_deepnets.data import ImageData

# What lies in a run folder, in the order in which a user cares.
RUN_FILES = {
    "model.keras": "the trained model",
    "curves.png": "loss, accuracy and learning rate over the epochs",
    "metrics.csv": "the same as numbers, a row an epoch",
    "inputs.png": "training images as the network sees them",
    "config.json": "what the run was asked to do",
    "tensorboard": "the same, and the inputs, for `tensorboard --logdir`",
    "checkpoints": "the newest states, from which it resumes",
}


def train(
    name: str,
    source: str,
    run_dir: Path | None,
    recipe: str,
    settings: dict[str, Any],
    options: dict[str, Any],
    *,
    precision: str | None,
    seed: int,
    profile: tuple[int, int] | None,
    skip_broken: bool,
    as_json: bool,
) -> None:
    """Trains a named network on images, or goes on with a run; prints what lies where."""
    from keras_deepnets import data, training

    # What needs no images is checked first: an answer in a blink, not after a download.
    check_options(name, options)
    if precision is not None:
        settings = _with_precision(settings, precision)
    training.get_recipe(recipe, **settings)
    check_options(name, settings.get("model_options", {}))
    # `training.train` has arguments of these names, which are not the recipe's fields.
    fields = {field: settings.pop(field) for field in ("precision", "model_options") if field in settings}
    base = training.get_recipe(recipe, **fields)
    load_tensorflow()
    import keras

    images = images_of(source, data.training_split(source), seed, skip_broken)
    held = _validation(source, seed, skip_broken)
    begun = False

    def begin(logs: Any) -> None:
        nonlocal begun
        begun = True
        if not as_json:
            print(_heading(name, images, held, recipe), flush=True)

    try:
        run = training.train(
            name,
            images,
            base,
            run_dir,
            validation=held,
            seed=seed,
            verbose=0 if as_json else "auto",
            model_options=options,
            profile=profile,
            # Not before: until here something may be wrong with what the user gave.
            callbacks=[keras.callbacks.LambdaCallback(on_train_begin=begin)],
            **settings,
        )
    except KeyboardInterrupt:
        # A run that has begun says itself where it stands.
        said = begun and not as_json
        raise Interrupted("" if said else "interrupted; the same command goes on from the last checkpoint") from None
    if as_json:
        files = {file: str(run.path / file) for file in RUN_FILES if (run.path / file).exists()}
        show.print_json(
            {"run": str(run.path), "metrics": run.metrics, "skipped": _skipped(images, held), "files": files}
        )
        return
    print(summary(run.metrics))
    print_files(run.path)
    print("Next:")
    for line in (
        f"predict {run.path} IMAGE",
        f"evaluate {run.path} {source}",
        f"export {run.path} {run.path / 'model.tflite'} --format tflite",
    ):
        print(f"  {PROGRAM} {line}")


def _with_precision(settings: dict[str, Any], precision: str) -> dict[str, Any]:
    """The recipe's fields with that of ``--precision``; InputError where ``--set`` says otherwise."""
    if settings.get("precision", precision) != precision:
        raise InputError(
            f"--precision {precision} and --set precision={settings['precision']} differ; leave one of them out."
        )
    return settings | {"precision": precision}


def _validation(source: str, seed: int, skip_broken: bool) -> ImageData | None:
    """The source's validation split, else its test split, else None: what `training.train` takes when it is given the source."""
    for split in ("validation", "test"):
        with contextlib.suppress(InputError):  # the source has no such split
            return images_of(source, split, seed, skip_broken)
    return None


def _heading(name: str, images: ImageData, held: ImageData | None, recipe: str) -> str:
    """What is about to happen, in one line."""
    parts = [f"{images.size:,} images of {images.name}, {len(images.labels)} classes"]
    if held is not None:
        parts.append(f"{held.size:,} to measure on ({held.split})")
    if skipped := _skipped(images, held):
        parts.append(f"{skipped:,} broken left out")
    return f"Training {name} with recipe {recipe}: {', '.join(parts)}."


def _skipped(images: ImageData, held: ImageData | None) -> int:
    """How many files were left out; the splits of one folder share their list."""
    return len({*images.skipped, *(held.skipped if held is not None else ())})


def check_options(name: str, options: dict[str, Any]) -> None:
    """Raises InputError for an unknown network, or an option that it does not have."""
    valid = [option["name"] for option in catalog.options_of(name)]
    for option in options:
        if option not in valid:
            raise InputError(f"{name} has no option {option!r}; its options: {', '.join(valid) or 'none'}.")


def pairs(texts: list[str], flag: str) -> dict[str, Any]:
    """``field=value`` texts as a dictionary; values are Python literals where they look so, else text."""
    values = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise InputError(f"{flag} {text!r} is not of the form field=value.")
        values[field.replace("-", "_")] = _literal(value)
    return values


def steps(text: str | None, flag: str) -> tuple[int, int] | None:
    """``10:15`` as the first and the last of some steps."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+):([0-9]+)", text)
    first, last = map(int, found.groups()) if found else (0, 0)
    if not 1 <= first <= last:
        raise InputError(f"{flag} {text!r} is not of the form FIRST:LAST, two steps counted from 1, e.g. 10:15.")
    return first, last


def _literal(text: str) -> Any:
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def summary(metrics: dict[str, float]) -> str:
    """The end of a run in one line."""
    count, seconds, speed = (metrics[name] for name in ("epochs", "seconds", "images_per_second"))
    parts = [f"Trained {count:g} epoch{'s' if count != 1 else ''} in {seconds:.0f} s ({speed:,.0f} img/s)"]
    for key, words in (("accuracy", "training accuracy"), ("val_accuracy", "validation accuracy")):
        if key in metrics:
            parts.append(f"{words} {show.percent(metrics[key])}")
    return ", ".join(parts) + "."


def print_files(folder: Path) -> None:
    """Prints what lies in a run folder."""
    rows = [
        (str(folder / file), show.bytes_text(show.size_of(folder / file)), meaning)
        for file, meaning in RUN_FILES.items()
        if (folder / file).exists()
    ]
    show.print_table(("file", "size", "what it is"), rows, right=("size",))
