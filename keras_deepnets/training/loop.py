"""The `train` function: it runs any recipe with `model.compile`, `model.fit` and callbacks that also work on their own."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_deepnets import distribution, models, registry
from keras_deepnets.errors import InputError
from keras_deepnets.files import digest
from keras_deepnets.training import callbacks as monitors
from keras_deepnets.training import class_weights, feed, interim, phases
from keras_deepnets.training import precision as precisions
from keras_deepnets.training.fit import Fit
from keras_deepnets.training.identity import identities
from keras_deepnets.training.networks import GivenNetwork, NamedNetwork, constructor_name
from keras_deepnets.training.pieces import OwnPieces
from keras_deepnets.training.pretrained import PretrainedNetwork
from keras_deepnets.training.recipe import Recipe
from keras_deepnets.training.recipes import get_recipe
from keras_deepnets.training.run import Run, RunFolder
from keras_deepnets.training.sizing import SIZED, sized
from keras_deepnets.training.team import Claim, Team


def train(
    model: str | os.PathLike | keras.Model,
    data: feed.Source | feed.Sets,
    recipe: str | os.PathLike | Recipe | None = None,
    run_dir: str | Path | None = None,
    *,
    weights: str | os.PathLike | None = None,
    validation: feed.Source | float | bool | None = None,
    limit: int | None = None,
    class_weight: str | Mapping[str | int, float] | None = None,
    precision: str | None = None,
    seed: int = 0,
    verbose: str | int = "auto",
    model_options: Mapping[str, Any] | None = None,
    profile: tuple[int, int] | None = None,
    optimizer: str | keras.optimizers.Optimizer | None = None,
    loss: str | keras.losses.Loss | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    distribute: str = "none",
    checkpoint_every: str = interim.DEFAULT,
    **overrides: Any,
) -> Run:
    """Train a classifier by a recipe. The same call resumes an interrupted run.

    The run folder holds `config.json`, `metrics.csv`, `model.keras`, `checkpoints/`, `tensorboard/`, `curves.png` and
    `inputs.png`. `config.json` has everything needed to repeat the run. `inputs.png` shows some training images as the
    network sees them. All arguments are validated before anything is written.

    An interrupted run resumes at its last checkpoint, which may be inside an epoch. It ends with the same weights as an
    uninterrupted run. They are equal bit for bit if TensorFlow's `enable_op_determinism` is on. A finished run returns
    immediately, or continues if the call asks for more epochs.

    With `distribute="multiworker"`, each process makes the same call, and the batch size is that of all processes
    together. With `batch_norm="synchronized"`, they train as one process with the same batches does. Only worker 0 needs
    the run folder.

    Args:
        model: Name from `list_models()`, built for the data with its input scaling inside. Or a built Keras model, or
            the path of its `.keras` file. Such a model takes images `[n, h, w, c]` and ends in a softmax or in logits.
            A model that this library did not build receives RGB values 0–255.
        data: Source of `keras_deepnets.data.load`: a name, a folder, arrays ``(images, labels)`` or a
            `tf.data.Dataset`. Or an `ImageData` to train on, or the result of `feed.load`.
        recipe: Name from `recipes()`, a `Recipe`, or a YAML file of recipe fields. `None`: `"fine_tune"` with weights,
            otherwise `"fast"`.
        run_dir: Run folder. `None`: `runs/<model>-<data>-<recipe>`.
        weights: Initial weights of a named model: a card (`model_info(name).weights`), `"imagenet"`, a weight file, or
            the folder of a finished run. They set the network's options and its input scaling. The classifier is new
            unless the data has the classes of the weights. `None`: random weights.
        validation: Images to validate on after each epoch. Or the number or fraction of images to split off from
            `data`, or `False` for no validation. `None`: the source's validation split, otherwise its test split. A
            tenth is split off if the source has neither or the images are loaded already.
        limit: Maximum number of training images. Each class keeps its share.
        class_weight: `"balanced"`, or the weights of some classes by label or index. A weight scales the training loss
            of the class's images (`keras_deepnets.training.class_weights`). Validation is unweighted.
        precision: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"`, `"float64"` or `"auto"`. `None`: the recipe's. A
            given model keeps the precision that it was built with.
        seed: Seed of the image order and the augmentation, and of a named model's initial weights and dropout. It is
            also set for Python, NumPy and Keras (`keras.utils.set_random_seed`).
        verbose: 0: silent, 1: a progress bar, 2: one line per epoch, `"auto"`: a bar on a terminal and lines elsewhere.
        model_options: Additional constructor arguments of a named model, e.g. `{"shortcut": "B"}`.
        profile: First and last of the steps to record for TensorBoard's profile plugin, counted from 1. This is not
            part of the configuration. A resumed run records the requested steps that are still to come.
        optimizer: Replaces the recipe's optimizer: `"sgd"`, `"adamw"` or `"lamb"` with the recipe's numbers, or a Keras
            optimizer with its own. A copy of it is used. Epochs that train only the classifier keep the recipe's
            optimizer.
        loss: Replaces the recipe's loss: `"crossentropy"`, `"binary_crossentropy"`, `"squared_hinge"`, or a Keras loss
            of (labels, outputs).
        callbacks: Additional callbacks. They run after those of the library.
        distribute: `"none"`: one device. `"mirrored"`: all GPUs of this process. `"multiworker"`: one process per device
            on any number of machines, which `TF_CONFIG` or Slurm's variables describe. `"auto"`: what the environment
            describes. Under JAX, batch normalisation then uses the whole batch, and a process has all devices of its machine
            unless it shares it.
        checkpoint_every: Interval between checkpoints inside an epoch: a number of steps or minutes, e.g. `"500 steps"`
            or `"10 minutes"`. There is always one after each epoch.
        **overrides: Fields of the recipe, e.g. `epochs=5`. `learning_rate` may be a Keras schedule.

    Returns:
        The run: its folder, trained model, history and last metrics.

    Raises:
        InputError: An argument cannot be used, or the folder belongs to another configuration or process. Another worker
            has another configuration, or stopped.
        Preempted: SIGTERM or SIGUSR1 ended the run. Its state is saved.
        TrainingError: The loss or a weight became NaN or infinite, or the disk is full. The message names the last good
            checkpoint.
    """
    interim.interval(checkpoint_every)
    team = Team(distribute)
    group = team.group
    with distribution.watched(group):
        precisions.prepare_gpus()
        verbose = verbose if group.is_chief else 0
        model, file_digest = _opened(model, seed)
        given = None if isinstance(model, str) else model
        if given is not None and weights is not None:
            raise InputError(
                f"weights={os.fspath(weights)!r} needs the name of a network, and model {given.name!r} is built already. Load its "
                "weights with keras_deepnets.load_weights."
            )
        own, overrides = OwnPieces.split({"optimizer": optimizer, "loss": loss, **overrides})
        recipe = recipe or ("fast" if weights is None else "fine_tune")
        asked = get_recipe(recipe).for_model(constructor_name(model)).with_overrides(**overrides)
        if given is not None:
            asked = asked.with_overrides(precision=_own_precision(given, precision))
        elif precision is not None:
            asked = asked.with_overrides(precision=precision)
        precisions.check(asked.precision)
        train_data, held_data, _ = sets = feed.load(data, validation, seed, limit=limit)
        balance = None
        if class_weight is not None:  # counting may read all records
            balance = class_weights.resolve(class_weight, train_data.labels, train_data.class_counts)
        network = _network(model, weights, model_options or {}, train_data, asked)
        if verbose != 0 and given is None and (missing := _missing_options(model, asked)):
            print(
                f"{model} has no option {', '.join(missing)}, which recipe {asked.name} sets. Training continues without it.",
                file=sys.stderr,
                flush=True,
            )
        folder = RunFolder(run_dir or Path("runs") / f"{network.name}-{Path(train_data.name).name}-{asked.name}")
        identity = {
            "model": network.identity() | ({"file": file_digest} if file_digest else {}),
            **identities(sets),
            "recipe": asked.to_dict(),
            "precision": asked.precision,
            "seed": seed,
            "pieces": own.identity(),
            "class_weight": balance and list(balance),
        }
        claim = Claim(team, folder, identity)
        known = sized(asked, train_data.size)
        team.check_share(known.images_per_step, asked.accumulate)
        claim.lengthen(asked, lambda: {"sized": _numbers(known), **phases.planned(known, train_data.size)})
        if claim.finished:
            return claim.results(verbose, None if given is None else models.without_auxiliary(given))
        phases.check_early_stopping(asked, held_data is not None)
        with contextlib.ExitStack() as stack:
            claim.resume(stack)
            config = claim.config
            resolved = config["resolved"] if config else group.from_chief(lambda: _resolve(network, train_data, asked))
            if profile is not None:
                monitors.check_profile(profile, sum(phase.steps for phase in phases.of(resolved)))
            known = _sized(asked, resolved)
            fit = Fit(
                network,
                train_data,
                held_data,
                known,
                resolved,
                seed,
                folder,
                own,
                balance,
                team,
                checkpoint_every,
            )
            claim.begin(stack, {"resolved": resolved, "devices": precisions.devices()})
            return fit(verbose, callbacks, profile)


def _network(
    model: str | keras.Model,
    weights: str | os.PathLike | None,
    options: Mapping[str, Any],
    data: feed.ImageData,
    recipe: Recipe,
) -> NamedNetwork | GivenNetwork:
    if isinstance(model, keras.Model):
        return GivenNetwork(model, data, recipe)
    options = _options(model, recipe, options)
    if weights is None:
        return NamedNetwork(model, options, data, recipe)
    return PretrainedNetwork(model, weights, options, data, recipe)


def _opened(model: str | os.PathLike | keras.Model, seed: int) -> tuple[str | keras.Model, str | None]:
    """Load a `.keras` file and return the model with the file's digest; return a model or a network's name unchanged.

    Raises:
        InputError: The file does not exist, or Keras cannot load it.
    """
    if isinstance(model, keras.Model) or not (isinstance(model, os.PathLike) or model.endswith(".keras")):
        return model, None
    path = Path(model)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a .keras file, a Keras model, or a name of list_models().")
    keras.utils.set_random_seed(seed)  # for dropout, whose seed is not in the file
    try:
        return keras.saving.load_model(path, compile=False), digest(path)
    except Exception as error:  # a truncated zip, an unknown layer: Keras raises many types
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{path} cannot be loaded as a Keras model: {reason}") from error


def _options(name: str, recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the caller's options of a named network, plus the options of the recipe that the network has."""
    missing = _missing_options(name, recipe)
    return {option: value for option, value in recipe.model_options.items() if option not in missing} | dict(given)


def _missing_options(name: str, recipe: Recipe) -> list[str]:
    """Return the options that a recipe sets and a named network does not have."""
    known = registry.constructor_of(name).facts.options if recipe.model_options else ()
    return [option for option in recipe.model_options if option not in known]


def _resolve(network: NamedNetwork | GivenNetwork, data: feed.ImageData, recipe: Recipe) -> dict[str, Any]:
    """Resolve what a recipe leaves to the data and the machine, as plain JSON values.

    The result is stored with the run, so a resumed run uses the same values.
    """
    scaling = network.scaling()
    precision, reason = (
        recipe.precision,
        "as requested" if isinstance(network, NamedNetwork) else "as the model was built",
    )
    if precision == "auto":
        precision, reason = precisions.automatic(lambda: network.build(None, scaling))
    augmentation = recipe.augmentation
    if augmentation == "auto":
        augmentation = feed.suitable_augmentation(data, network.side())
    known = sized(recipe, data.size)
    return {
        "scaling": scaling.to_dict() if scaling else None,
        "precision": precision,
        "precision_reason": reason,
        "augmentation": augmentation,
        "sized": _numbers(known),
        "batch_size": known.batch_size,
        **phases.planned(known, data.size),
    }


def _numbers(recipe: Recipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in SIZED}


def _sized(recipe: Recipe, resolved: Mapping[str, Any]) -> Recipe:
    """Return the recipe with the numbers that the run started with."""
    numbers = resolved.get("sized", {"batch_size": resolved["batch_size"]})
    return recipe.with_overrides(**{name: value for name, value in numbers.items() if value is not None})


def _own_precision(model: keras.Model, precision: str | None) -> str:
    own = precisions.policy_of(model)
    if precision not in (None, "auto", own):
        raise InputError(
            f"precision={precision!r}, but model {model.name!r} was built in {own}. Give the name of a model, or build it under "
            f"keras.config.set_dtype_policy({precision!r})."
        )
    return own
