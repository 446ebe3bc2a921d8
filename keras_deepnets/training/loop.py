"""One function that runs any recipe: `model.compile` and `model.fit`, with callbacks that also work alone."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_deepnets import registry
from keras_deepnets.errors import InputError
from keras_deepnets.insight.curves import draw_curves
from keras_deepnets.models import deep_graphs
from keras_deepnets.scaling import Scaling
from keras_deepnets.training import callbacks as pieces
from keras_deepnets.training import class_weights, feed
from keras_deepnets.training import precision as precisions
from keras_deepnets.training.checkpoints import Checkpoint, CheckpointStore
from keras_deepnets.training.errors import TrainingError, is_disk_full
from keras_deepnets.training.files import digest, written_aside
from keras_deepnets.training.identity import identities
from keras_deepnets.training.losses import BinaryCrossentropy, SmoothedCrossentropy, TopAccuracy, gives_logits
from keras_deepnets.training.networks import GivenNetwork, NamedNetwork, constructor_name
from keras_deepnets.training.optimizers import optimizer
from keras_deepnets.training.progress import progress_callback
from keras_deepnets.training.recipes import Recipe, get_recipe
from keras_deepnets.training.run import Run, RunFolder, changes


def train(
    model: str | os.PathLike | keras.Model,
    data: feed.Source | feed.Sets,
    recipe: str | Recipe = "fast",
    run_dir: str | Path | None = None,
    *,
    validation: feed.Source | float | bool | None = None,
    limit: int | None = None,
    class_weight: str | Mapping[str | int, float] | None = None,
    precision: str | None = None,
    seed: int = 0,
    verbose: str | int = "auto",
    model_options: Mapping[str, Any] | None = None,
    profile: tuple[int, int] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **overrides: Any,
) -> Run:
    """Trains a classifier by a recipe, in a folder that the same call resumes.

    The folder holds `config.json` (all that is needed to repeat the run), `metrics.csv`, `model.keras`, `checkpoints/`,
    `tensorboard/`, `curves.png` and `inputs.png` (some training images as the network sees them). A run that was interrupted
    goes on after its last whole epoch and ends with the weights that it would have had (to the bit where TensorFlow's
    `enable_op_determinism` is on); a finished one returns at once. Everything is checked before anything is written.

    Args:
        model: a name of `list_models()`, built for the data with its input scaling inside; or a built Keras model that takes
            images `[n, h, w, c]` and ends in a softmax or in logits, or the `.keras` file of one. A model that is not ours gets
            RGB 0–255.
        data: a source of `keras_deepnets.data.load`: a name, a folder, arrays ``(images, labels)``, a `tf.data.Dataset`; or an
            `ImageData` to train on; or what `feed.load` gave.
        recipe: a name of `recipes()`, or a `Recipe`.
        run_dir: the folder; `None`: `runs/<model>-<data>-<recipe>`.
        validation: images to measure on after each epoch; or how many or which fraction to cut out of `data`; or `False`.
            `None`: the source's validation split, else its test split; of a source without either, and of images that are loaded
            already, a tenth.
        limit: at most so many training images, each class in proportion.
        class_weight: `"balanced"`, or the weights of some classes by label or index: how much their images count in the training loss
            (`keras_deepnets.training.class_weights`). Validation is unweighted.
        precision: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"` or `"auto"`; `None`: the recipe's. A given model keeps
            the precision that it was built with.
        seed: of the order of the images and their augmentation, and, of a named model, of initial weights and dropout.
            Also set for Python, NumPy and Keras (`keras.utils.set_random_seed`).
        verbose: 0 silent, 1 a progress bar, 2 a line an epoch, `"auto"` a bar on a terminal and lines elsewhere.
        model_options: further arguments of a named model's constructor, e.g. `{"shortcut": "B"}`.
        profile: the first and the last of some steps, counted from 1, to record for TensorBoard's profile plugin. Not a part
            of the configuration: a resumed run records those of them that it still takes.
        callbacks: of the caller, run after those of the library.
        **overrides: fields of the recipe, e.g. `epochs=5`.

    Returns:
        The run: its folder, trained model, history and last metrics.

    Raises:
        InputError: something that was given cannot be used, or the folder belongs to another configuration or process.
        TrainingError: the loss, or a weight, is not finite any more, or no space is left; the message names the last good checkpoint.
    """
    precisions.prepare_gpus()
    model, file_digest = _opened(model, seed)
    given = isinstance(model, keras.Model)
    asked = get_recipe(recipe).for_model(constructor_name(model)).with_overrides(**overrides)
    if given:
        asked = asked.with_overrides(precision=_own_precision(model, precision))
    elif precision is not None:
        asked = asked.with_overrides(precision=precision)
    train_data, held_data, _ = sets = feed.load(data, validation, seed, limit=limit)
    weights = None
    if class_weight is not None:  # counting may mean reading all records
        weights = class_weights.resolve(class_weight, train_data.labels, train_data.class_counts)
    network = (
        GivenNetwork(model, train_data, asked)
        if given
        else NamedNetwork(model, _options(model, asked, model_options or {}), train_data, asked)
    )
    folder = RunFolder(run_dir or Path("runs") / f"{network.name}-{Path(train_data.name).name}-{asked.name}")
    identity = {
        "model": network.identity() | ({"file": file_digest} if file_digest else {}),
        **identities(sets),
        "recipe": asked.to_dict(),
        "precision": asked.precision,
        "seed": seed,
        "class_weight": weights and list(weights),
    }
    config = folder.check(identity)
    if config and folder.finished():
        if verbose != 0:
            print(f"{folder.path} holds the finished run; give another folder to train again.")
        if given:
            model.load_weights(folder.model)
        return folder.results(model if given else None)
    with contextlib.ExitStack() as stack:
        if config:
            stack.enter_context(folder.locked())
            if changed := changes(config):
                print(f"Resuming {folder.path} in other surroundings: {changed}.", file=sys.stderr, flush=True)
        resolved = config["resolved"] if config else _resolve(network, train_data, asked)
        if profile is not None:
            pieces.check_profile(profile, resolved["steps"])
        fit = Fit(network, train_data, held_data, asked, resolved, seed, folder, weights)
        if config is None:  # not before: until here something may be wrong with what was given
            stack.enter_context(folder.locked())
            folder.begin(identity, {"resolved": resolved, "devices": precisions.devices()})
        return fit(verbose, callbacks, profile)


def _opened(model: str | os.PathLike | keras.Model, seed: int) -> tuple[str | keras.Model, str | None]:
    """A `.keras` file as its model, with the file's digest; a model or a network's name as it is.

    Raises:
        InputError: there is no such file, or Keras cannot load it.
    """
    if isinstance(model, keras.Model) or not (isinstance(model, os.PathLike) or model.endswith(".keras")):
        return model, None
    path = Path(model)
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a .keras file, a Keras model, or a name of list_models().")
    keras.utils.set_random_seed(seed)  # of dropout, which a file does not keep
    try:
        return keras.saving.load_model(path, compile=False), digest(path)
    except Exception as error:  # a truncated zip, an unknown layer: Keras raises whatever it meets
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(f"{path} cannot be loaded as a Keras model: {reason}") from error


def _options(name: str, recipe: Recipe, given: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's options of a named network, and the recipe's that it has."""
    known = registry.constructor_of(name).facts.options if recipe.model_options else ()
    return {option: value for option, value in recipe.model_options.items() if option in known} | dict(given)


def _resolve(network: NamedNetwork | GivenNetwork, data: feed.ImageData, recipe: Recipe) -> dict[str, Any]:
    """What a recipe leaves to the data and the machine, decided once and kept with the run: plain JSON values."""
    scaling = network.scaling()
    precision, reason = recipe.precision, "as asked" if isinstance(network, NamedNetwork) else "as the model was built"
    if precision == "auto":
        precision, reason = precisions.automatic(lambda: network.build(None, scaling))
    augmentation = recipe.augmentation
    if augmentation == "auto":
        augmentation = feed.suitable_augmentation(data, network.side())
    batch_size = feed.batch_size(data, recipe)
    steps_per_epoch = data.steps(batch_size, drop_remainder=True)
    steps = recipe.total_steps(steps_per_epoch, batch_size)
    return {
        "scaling": scaling.to_dict() if scaling else None,
        "precision": precision,
        "precision_reason": reason,
        "augmentation": augmentation,
        "batch_size": batch_size,
        "steps_per_epoch": steps_per_epoch,
        "steps": steps,
        "epochs": math.ceil(steps / steps_per_epoch),
    }


class Fit:
    """A run ready to go: the network built and compiled, nothing written yet."""

    def __init__(
        self,
        network,
        train_data,
        held_data,
        recipe: Recipe,
        resolved: Mapping[str, Any],
        seed: int,
        folder: RunFolder,
        class_weight: Sequence[float] | None = None,
    ):
        """Builds and compiles the network, and the pipelines once, so that whatever is wrong shows now."""
        self.train_data, self.held_data, self.recipe, self.seed = train_data, held_data, recipe, seed
        self.resolved, self.folder, self.class_weight = resolved, folder, class_weight
        keras.utils.set_random_seed(seed)
        scaling = Scaling.from_dict(resolved["scaling"]) if resolved["scaling"] else None
        self.model = network.build(resolved["precision"], scaling)
        self.logits = gives_logits(self.model)
        metrics = [TopAccuracy(1, "accuracy")]
        if len(train_data.labels) >= 100:
            metrics.append(TopAccuracy(5, "top5"))
        kind = BinaryCrossentropy if recipe.loss == "binary_crossentropy" else SmoothedCrossentropy
        steps = (resolved[name] for name in ("steps", "steps_per_epoch", "batch_size"))
        self.model.compile(optimizer(recipe, *steps), kind(recipe.label_smoothing, self.logits), metrics=metrics)
        self._batches(0)

    def __call__(
        self, verbose: str | int, callbacks: Sequence[keras.callbacks.Callback], profile: tuple[int, int] | None = None
    ) -> Run:
        """Trains from the last checkpoint to the end."""
        if verbose != 0:
            reason = self.resolved.get("precision_reason", "as begun")
            print(precisions.circumstances(self.model, self.resolved["precision"], reason), flush=True)
        history: list[dict[str, float]] = []
        store = CheckpointStore(self.folder.checkpoints)
        state = store.restore(self.model)
        if state:
            history += state.history
            if verbose != 0:
                print(
                    f"Resuming {self.folder.path} after epoch {state.epoch} of {self.resolved['epochs']}.", flush=True
                )
        progress = progress_callback(verbose, self.resolved["steps"], self.resolved["batch_size"], history)
        recorder = profile and pieces.Profile(self.folder.tensorboard, *profile, self.resolved["steps_per_epoch"])
        callbacks = [*([progress] if progress else []), *([recorder] if recorder else []), *callbacks]
        try:
            if len(history) < self.resolved["epochs"]:
                self._fit(history, [*self._callbacks(history, store), *callbacks])
            else:  # killed after the last checkpoint
                self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
            _draw(self.folder)
            self._compile_plainly()
            self.folder.save_model(self.model)
        except KeyboardInterrupt:
            if verbose != 0:
                print(
                    f"Interrupted after epoch {len(history)}; the same call resumes {self.folder.path}.",
                    file=sys.stderr,
                )
            raise
        except Exception as error:
            if is_disk_full(error) and not isinstance(error, TrainingError):
                raise TrainingError(f"No space left for {self.folder.path}. {store.last_good()}") from error
            raise
        finally:
            for callback in (progress, recorder):
                if callback and hasattr(callback, "close"):
                    callback.close()
        return self.folder.results(self.model)

    def _fit(self, history: list[dict[str, float]], callbacks: list[keras.callbacks.Callback]) -> None:
        first = len(history)
        held = self._held_batches()
        with deep_graphs():
            self.model.fit(
                self._batches(first),
                initial_epoch=first,
                epochs=self.resolved["epochs"],
                steps_per_epoch=self.resolved["steps_per_epoch"],
                validation_data=held,
                shuffle=False,  # the pipeline does it
                callbacks=callbacks,
                verbose=0,
            )

    def _held_batches(self) -> Any:
        if self.held_data is None:
            return None
        size = self.recipe.image_size
        batch = feed.evaluation_batch(self.model, self.held_data, self.resolved["batch_size"], size)
        return feed.evaluation(self.model, self.held_data, batch, size)

    def _batches(self, first_epoch: int) -> Any:
        return feed.training(
            self.model,
            self.train_data,
            self.recipe,
            self.resolved["augmentation"],
            self.seed,
            first_epoch,
            self.class_weight,
        )

    def _callbacks(self, history: list[dict[str, float]], store: CheckpointStore) -> list[keras.callbacks.Callback]:
        """Those of the library, in the order that they need: numbers, then what reads them, then the checkpoint."""
        recipe, resolved = self.recipe, self.resolved
        found: list[keras.callbacks.Callback] = [
            pieces.StopAtStep(resolved["steps"], resolved["steps_per_epoch"]),
            pieces.StopOnNonFinite(store.last_good),
        ]
        if recipe.ema is not None:
            found.append(pieces.AveragedWeights())
        found.append(pieces.MetricsFile(self.folder.metrics, history, resolved["batch_size"]))
        if recipe.schedule == "plateau":
            found.append(pieces.PlateauRate(recipe.learning_rate, recipe.drop, recipe.patience, history))
        if not self.folder.inputs.exists():
            labels = self.train_data.labels
            found.append(pieces.InputGrid(self._batches(0), labels, self.folder.inputs, self.folder.tensorboard))
        found += [pieces.TensorBoardScalars(self.folder.tensorboard, history), Checkpoint(store, history)]
        return [*found, Curves(self.folder)]

    def _compile_plainly(self) -> None:
        """Compiles with what comes with Keras, so that `model.keras` holds no training state and `evaluate` works on it."""
        plain = keras.optimizers.SGD(self.recipe.learning_rate)
        plain.build(self.model.trainable_variables)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=self.logits)
        self.model.compile(plain, loss, metrics=["accuracy"])


class Curves(keras.callbacks.Callback):
    """Keeps the picture of a run's curves up to date, at most every half minute.

    Args:
        folder: of the run; `metrics.csv` must be there when an epoch ends.
        seconds: between pictures.
    """

    def __init__(self, folder: RunFolder, seconds: float = 30.0):
        super().__init__()
        self._folder, self._seconds, self._drawn = folder, seconds, time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Draws, if the picture is old."""
        if time.monotonic() - self._drawn > self._seconds:
            _draw(self._folder)
            self._drawn = time.monotonic()


def _draw(folder: RunFolder) -> None:
    with written_aside(folder.curves) as aside:
        draw_curves(folder.path, aside, folder.path.name)


def _own_precision(model: keras.Model, precision: str | None) -> str:
    own = precisions.policy_of(model)
    if precision not in (None, "auto", own):
        raise InputError(
            f"precision={precision!r}, but model {model.name!r} was built in {own}; give a model's name, or build it under "
            f"keras.config.set_dtype_policy({precision!r})."
        )
    return own
