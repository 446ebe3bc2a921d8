"""The `train` command."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.cli import artifacts, catalog, show
from keras_deepnets.cli.images import loading
from keras_deepnets.cli.problems import PROGRAM, Interrupted
from keras_deepnets.cli.quiet import load_tensorflow
from keras_deepnets.errors import InputError
from keras_deepnets.weights.download import DownloadError
from keras_deepnets.weights.source import file_of

if TYPE_CHECKING:
    from keras_deepnets.evaluation import Evaluation
    from keras_deepnets.training.feed import Sets

KERAS_FILE = ".keras"
# Files of a run folder, the most useful ones first.
RUN_FILES = {
    "model.keras": "the trained model",
    "curves.png": "loss, accuracy and learning rate over the epochs",
    "metrics.csv": "the same as numbers, one row per epoch",
    "confusion.png": "confusion matrix",
    "errors.png": "the worst errors: images with true and predicted classes",
    "inputs.png": "training images as the network sees them",
    "config.json": "configuration of the run",
    "tensorboard": "curves and inputs for `tensorboard --logdir`",
    "checkpoints": "the latest checkpoints, used to resume",
}


def train(
    name: str,
    source: str,
    run_dir: Path | None,
    recipe: str | None,
    settings: dict[str, Any],
    options: dict[str, Any],
    *,
    weights: str | None,
    validation: str | float | bool | None = None,
    limit: int | None = None,
    class_weight: str | dict[str | int, float] | None = None,
    precision: str | None,
    seed: int,
    profile: tuple[int, int] | None,
    skip_broken: bool,
    distribute: str = "none",
    connect_within: float = 600.0,
    checkpoint_every: str | None = None,
    as_json: bool,
) -> None:
    """Train a named network or a saved model on images, or resume a run. Print the files of the run."""
    from keras_deepnets import training

    # Checks that need no images come first, so that errors appear immediately and not after a download.
    check_options(name, options)
    _check_weights(name, weights)
    recipe = recipe or ("fast" if weights is None else "fine_tune")
    if precision is not None:
        settings = with_precision(settings, precision)
    training.get_recipe(recipe, **settings)
    # `training.train` has arguments with these names. Its `model_options` override the recipe's.
    precision, of_recipe = settings.pop("precision", None), settings.pop("model_options", None)
    base = training.get_recipe(recipe, **({} if of_recipe is None else {"model_options": of_recipe}))
    check_options(name, (of_recipe or {}) | options, complete=weights is None)
    load_tensorflow()
    import keras

    from keras_deepnets import distribution
    from keras_deepnets.training import feed, interim

    every = interim.DEFAULT if checkpoint_every is None else checkpoint_every
    interim.interval(every)
    mode, group = distribution.join(distribute, connect_within)
    as_json = as_json and group.is_chief
    with loading(source), distribution.watched(group):
        sets = feed.load(source, validation, seed, skip_broken=skip_broken, limit=limit)
    begun = False

    def begin(logs: Any) -> None:
        nonlocal begun
        begun = True
        if not as_json and group.is_chief:
            print(_heading(name, sets, recipe, weights), flush=True)

    try:
        run = training.train(
            name,
            sets,
            base,
            run_dir,
            weights=weights,
            precision=precision,
            seed=seed,
            verbose=0 if as_json else "auto",
            model_options=options,
            class_weight=class_weight,
            profile=profile,
            # Print the heading only when training begins: until then, the user's input may still be rejected.
            callbacks=[keras.callbacks.LambdaCallback(on_train_begin=begin)],
            distribute=mode,
            checkpoint_every=every,
            **settings,
        )
    except DownloadError as error:
        raise InputError(f"{error} Leave out --weights to train from scratch.") from error
    except KeyboardInterrupt:
        # A run that has begun prints its own message.
        said = begun and not as_json
        raise Interrupted(
            "" if said else "interrupted; rerun the same command to resume from the last checkpoint"
        ) from None
    if not group.is_chief:
        show.print_worker_done(group)
        return
    if as_json:
        files = {file: str(run.path / file) for file in RUN_FILES if (run.path / file).exists()}
        show.print_json(
            {
                "run": str(run.path),
                "metrics": run.metrics,
                "skipped": _skipped(sets),
                "files": files,
                "warnings": list(run.warnings),
                "evaluation": _json(run.evaluation),
            }
        )
        return
    print(summary(run.metrics))
    if run.evaluation is not None:
        show.print_confused(run.evaluation)
        print()
    print_files(run.path)
    print("Next:")
    for line in (
        f"predict {run.path} IMAGE",
        f"evaluate {run.path} {_measured(sets, source, validation)}",
        f"export {run.path} {run.path / 'model.tflite'} --format tflite",
    ):
        print(f"  {PROGRAM} {line}")


def _json(evaluation: Evaluation | None) -> dict[str, Any] | None:
    """The validation results of a run as plain JSON values."""
    if evaluation is None:
        return None
    pairs = [pair._asdict() for pair in evaluation.confused_pairs()]
    return {
        "balanced_accuracy": evaluation.balanced_accuracy,
        "per_class": evaluation.per_class,
        "confused_pairs": pairs,
    }


def with_precision(settings: dict[str, Any], precision: str) -> dict[str, Any]:
    """Return the recipe's fields with the value of ``--precision``. Raise InputError if ``--set`` contradicts it."""
    if settings.get("precision", precision) != precision:
        raise InputError(
            f"--precision {precision} and --set precision={settings['precision']} differ; leave out one of them."
        )
    return settings | {"precision": precision}


def _measured(sets: Sets, source: str, validation: str | float | bool | None) -> str:
    """DATA and options for `evaluate`: the run's validation images, or the test split if it has none."""
    source = validation if isinstance(validation, str) else source
    split = sets.held.split if sets.held is not None else "test"
    return source if split == "test" else f"{source} --split {split}"


def _check_weights(name: str, weights: str | None) -> None:
    """Raise InputError if the weights do not exist for the network."""
    if weights is None:
        return
    if name.endswith(KERAS_FILE):
        raise InputError(f"--weights {weights} is for a network's name, but {name} already has weights. Leave it out.")
    artifacts.check_weights("--weights", file_of(weights), name)


def _heading(name: str, sets: Sets, recipe: str, weights: str | None) -> str:
    """One line that describes the run."""
    images, held = sets.train, sets.held
    parts = [f"{images.size:,} images of {images.name}, {len(images.labels)} classes"]
    if held is not None:
        parts.append(f"{held.size:,} for validation ({held.split} split)")
    if skipped := _skipped(sets):
        parts.append(f"{skipped:,} skipped as broken")
    start = f" from {weights}" if weights else ""
    return f"Training {name}{start} with recipe {recipe}: {', '.join(parts)}."


def _skipped(sets: Sets) -> int:
    """Number of skipped files. The splits of one folder share their list."""
    return len({*sets.train.skipped, *(sets.held.skipped if sets.held is not None else ())})


def check_options(name: str, options: dict[str, Any], complete: bool = False) -> None:
    """Raise InputError for an unknown network, a missing file, or an unknown option.

    With `complete`, also raise it for a wrong value or a missing option that a builder needs.
    """
    if name.endswith(KERAS_FILE):
        if not Path(name).is_file():
            raise InputError(f"{name} does not exist; give a {KERAS_FILE} file, or a network name from `list`.")
        if options:
            raise InputError(f"{name} is built already: options ({', '.join(options)}) need a network's name.")
        return
    catalog.check_options(name, options, complete)


def pairs(texts: list[str], flag: str) -> dict[str, Any]:
    """Return ``field=value`` texts as a dictionary. A value becomes a Python literal if it can be parsed as one."""
    values = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or not field:
            raise InputError(f"{flag} {text!r} is not of the form field=value.")
        values[field.replace("-", "_")] = _literal(value)
    return values


def seconds_of(text: str, flag: str) -> float:
    """Return a time such as ``2 minutes`` in seconds."""
    from keras_deepnets.training.durations import seconds

    found = seconds(text)
    if not found:
        raise InputError(f"{flag} {text!r} is not a time, e.g. '2 minutes' or '30 seconds'.")
    return found


def steps(text: str | None, flag: str) -> tuple[int, int] | None:
    """Return the first and last step of a range such as ``10:15``."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+):([0-9]+)", text)
    first, last = map(int, found.groups()) if found else (0, 0)
    if not 1 <= first <= last:
        raise InputError(f"{flag} {text!r} is not of the form FIRST:LAST, two steps counted from 1, e.g. 10:15.")
    return first, last


def class_weight_of(text: str | None) -> str | dict[str | int, float] | None:
    """Return the value of ``--class-weight``: ``balanced``, or ``label=weight,…`` as a dictionary."""
    if text is None or text == "balanced":
        return text
    weights: dict[str | int, float] = {}
    for part in text.split(","):
        label, equals, value = part.rpartition("=")
        if not equals or not label or not isinstance(_literal(value), (int, float)):
            raise InputError(f"--class-weight {text!r} is neither balanced nor of the form LABEL=WEIGHT,….")
        if label in weights:
            raise InputError(f"--class-weight {text!r} names {label!r} twice.")
        weights[label] = _literal(value)
    return weights


def validation_of(text: str | None) -> str | float | bool | None:
    """Return the value of ``--validation`` for `training.train`: a number of images, a fraction, none, or another source."""
    value = None if text is None else _literal(text)
    if value is None:
        return None if text is None else False
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else text


def _literal(text: str) -> Any:
    words = {"none": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def summary(metrics: dict[str, float]) -> str:
    """One line that summarises a run."""
    count, seconds, speed = (metrics[name] for name in ("epochs", "seconds", "images_per_second"))
    parts = [f"Trained {count:g} epoch{'s' if count != 1 else ''} in {seconds:.0f} s ({speed:,.0f} img/s)"]
    for key, words in (("accuracy", "training accuracy"), ("val_accuracy", "validation accuracy")):
        if key in metrics:
            parts.append(f"{words} {show.percent(metrics[key])}")
    return ", ".join(parts) + "."


def print_files(folder: Path) -> None:
    """Print the files of a run folder."""
    rows = [
        (str(folder / file), show.bytes_text(show.size_of(folder / file)), meaning)
        for file, meaning in RUN_FILES.items()
        if (folder / file).exists()
    ]
    show.print_table(("file", "size", "what it is"), rows, right=("size",))
