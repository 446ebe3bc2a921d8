"""One function that runs any recipe: `model.compile` and `model.fit`, with callbacks that also work alone."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_deepnets import registry
from keras_deepnets.errors import InputError
from keras_deepnets.files import digest, written_aside
from keras_deepnets.insight.curves import draw_curves
from keras_deepnets.models import deep_graphs
from keras_deepnets.scaling import Scaling
from keras_deepnets.training import callbacks as monitors
from keras_deepnets.training import class_weights, feed, heads, phases
from keras_deepnets.training import precision as precisions
from keras_deepnets.training.checkpoints import Checkpoint, CheckpointStore
from keras_deepnets.training.choosing import stalled
from keras_deepnets.training.errors import TrainingError, is_disk_full
from keras_deepnets.training.evaluation import Evaluation, report
from keras_deepnets.training.identity import identities
from keras_deepnets.training.losses import BinaryCrossentropy, SmoothedCrossentropy, TopAccuracy, gives_logits
from keras_deepnets.training.networks import GivenNetwork, NamedNetwork, constructor_name
from keras_deepnets.training.optimizers import head_optimizer
from keras_deepnets.training.optimizers import optimizer as optimizer_of
from keras_deepnets.training.pieces import OwnPieces
from keras_deepnets.training.pretrained import PretrainedNetwork
from keras_deepnets.training.progress import progress_callback
from keras_deepnets.training.recipes import Recipe, get_recipe
from keras_deepnets.training.run import Run, RunFolder, changes
from keras_deepnets.training.sizing import SIZED, sized
from keras_deepnets.training.watching import BestWeights, Diverging, StopEarly, troubles

HEAD_SECONDS = 20.0
"""Between checkpoints of the classifier alone, whose epochs take less than writing one."""


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
    **overrides: Any,
) -> Run:
    """Trains a classifier by a recipe, in a folder that the same call resumes.

    The folder holds `config.json` (all that is needed to repeat the run), `metrics.csv`, `model.keras`, `checkpoints/`,
    `tensorboard/`, `curves.png` and `inputs.png` (some training images as the network sees them). A run that was interrupted
    goes on after its last whole epoch and ends with the weights that it would have had (to the bit where TensorFlow's
    `enable_op_determinism` is on). A finished one returns at once, or continues where the same call asks for more epochs.
    Everything is checked before anything is written.

    Args:
        model: a name of `list_models()`, built for the data with its input scaling inside; or a built Keras model that takes
            images `[n, h, w, c]` and ends in a softmax or in logits, or the `.keras` file of one. A model that is not ours gets
            RGB 0–255.
        data: a source of `keras_deepnets.data.load`: a name, a folder, arrays ``(images, labels)``, a `tf.data.Dataset`; or an
            `ImageData` to train on; or what `feed.load` gave.
        recipe: a name of `recipes()`, a `Recipe`, or a YAML file of its fields. `None`: `"fine_tune"` with weights, else
            `"fast"`.
        run_dir: the folder; `None`: `runs/<model>-<data>-<recipe>`.
        weights: what a named model starts from: a card (`model_info(name).weights`), `"imagenet"`, a weight file, or the folder of
            a finished run. They set the network's options and its input scaling. Its classifier is new unless the classes are
            those of the weights. `None`: random weights.
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
        optimizer: in place of the recipe's: `"sgd"`, `"adamw"` or `"lamb"` with the recipe's numbers, or a Keras optimizer with
            its own. A copy is trained with. Epochs of the classifier alone keep the recipe's.
        loss: in place of the recipe's: `"crossentropy"`, `"binary_crossentropy"`, or a Keras loss of (labels, outputs).
        callbacks: of the caller, run after those of the library.
        **overrides: fields of the recipe, e.g. `epochs=5`. `learning_rate` may be a Keras schedule.

    Returns:
        The run: its folder, trained model, history and last metrics.

    Raises:
        InputError: something that was given cannot be used, or the folder belongs to another configuration or process.
        TrainingError: the loss, or a weight, is not finite any more, or no space is left; the message names the last good checkpoint.
    """
    precisions.prepare_gpus()
    model, file_digest = _opened(model, seed)
    given = isinstance(model, keras.Model)
    if given and weights is not None:
        raise InputError(
            f"weights={os.fspath(weights)!r} are for a network's name; model {model.name!r} is built: keras_deepnets.load_weights gives "
            "it weights."
        )
    pieces, overrides = OwnPieces.split({"optimizer": optimizer, "loss": loss, **overrides})
    recipe = recipe or ("fast" if weights is None else "fine_tune")
    asked = get_recipe(recipe).for_model(constructor_name(model)).with_overrides(**overrides)
    if given:
        asked = asked.with_overrides(precision=_own_precision(model, precision))
    elif precision is not None:
        asked = asked.with_overrides(precision=precision)
    train_data, held_data, _ = sets = feed.load(data, validation, seed, limit=limit)
    balance = None
    if class_weight is not None:  # counting may mean reading all records
        balance = class_weights.resolve(class_weight, train_data.labels, train_data.class_counts)
    network = _network(model, weights, model_options or {}, train_data, asked)
    if verbose != 0 and not given and (missing := _missing_options(model, asked)):
        print(
            f"{model} has no option {', '.join(missing)}, which recipe {asked.name} sets; it is trained without.",
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
        "pieces": pieces.identity(),
        "class_weight": balance and list(balance),
    }
    config = folder.check(identity)
    if config and folder.finished() and folder.asks_for_more(config, asked):
        lengths = {"sized": _numbers(sized(asked, train_data.size))} | phases.planned(
            sized(asked, train_data.size), train_data.size
        )
        with folder.locked():
            config = folder.lengthened(config, asked, lengths)
    if config and folder.finished():
        if verbose != 0:
            print(f"{folder.path} holds the finished run; give another folder to train again.")
        if given:
            model.load_weights(folder.model)
        return folder.results(model if given else None)
    phases.check_early_stopping(asked, held_data is not None)
    with contextlib.ExitStack() as stack:
        if config:
            stack.enter_context(folder.locked())
            if changed := changes(config):
                print(f"Resuming {folder.path} in other surroundings: {changed}.", file=sys.stderr, flush=True)
        resolved = config["resolved"] if config else _resolve(network, train_data, asked)
        if profile is not None:
            monitors.check_profile(profile, sum(phase.steps for phase in phases.of(resolved)))
        known = _sized(asked, resolved)
        fit = Fit(network, train_data, held_data, known, resolved, seed, folder, pieces, balance)
        if config is None:  # not before: until here something may be wrong with what was given
            stack.enter_context(folder.locked())
            folder.begin(identity, {"resolved": resolved, "devices": precisions.devices()})
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
    missing = _missing_options(name, recipe)
    return {option: value for option, value in recipe.model_options.items() if option not in missing} | dict(given)


def _missing_options(name: str, recipe: Recipe) -> list[str]:
    """The options that a recipe sets and a named network does not have."""
    known = registry.constructor_of(name).facts.options if recipe.model_options else ()
    return [option for option in recipe.model_options if option not in known]


def _resolve(network: NamedNetwork | GivenNetwork, data: feed.ImageData, recipe: Recipe) -> dict[str, Any]:
    """What a recipe leaves to the data and the machine, decided once and kept with the run: plain JSON values."""
    scaling = network.scaling()
    precision, reason = recipe.precision, "as asked" if isinstance(network, NamedNetwork) else "as the model was built"
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
    """The recipe with the numbers that the run began with."""
    numbers = resolved.get("sized", {"batch_size": resolved["batch_size"]})
    return recipe.with_overrides(**{name: value for name, value in numbers.items() if value is not None})


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
        pieces: OwnPieces,
        class_weight: Sequence[float] | None = None,
    ):
        """Builds and compiles the network, and the pipelines once, so that whatever is wrong shows now."""
        self.train_data, self.held_data, self.recipe, self.seed = train_data, held_data, recipe, seed
        self.resolved, self.folder, self.pieces, self.class_weight = resolved, folder, pieces, class_weight
        self.phases = phases.of(resolved)
        self.epochs = self.phases[-1].last_epoch
        keras.utils.set_random_seed(seed)
        scaling = Scaling.from_dict(resolved["scaling"]) if resolved["scaling"] else None
        self.model = network.build(resolved["precision"], scaling)
        self.logits = gives_logits(self.model)
        self.freezing = phases.Freezing(self.model, recipe)
        if recipe.head_epochs:
            heads.classifier_of(self.model)
        for phase in reversed(self.phases):  # the first last: it is the one to begin with
            self._enter(phase)
        self._batches(0)
        self.history: list[dict[str, float]] = []
        self.store = CheckpointStore(folder.checkpoints)
        self.best = BestWeights(self.model, self.history, folder.checkpoints) if self._keeps_best() else None

    def __call__(
        self, verbose: str | int, callbacks: Sequence[keras.callbacks.Callback], profile: tuple[int, int] | None = None
    ) -> Run:
        """Trains from the last checkpoint to the end."""
        if verbose != 0:
            reason = self.resolved.get("precision_reason", "as begun")
            line = precisions.circumstances(self.model, self.resolved["precision"], reason)
            print(f"{line} {self._plan()}", flush=True)
        state = self.store.restore(self.model, lambda state: self._enter(self._phase_of(state.epoch)))
        if state:
            self.history += state.history
            if verbose != 0:
                print(f"Resuming {self.folder.path} after epoch {state.epoch} of {self.epochs}.", flush=True)
        total = self.phases[-1].first_step + self.phases[-1].steps
        progress = progress_callback(verbose, total, self.resolved["batch_size"], self.history)
        per_epoch = self.resolved["steps_per_epoch"]
        recorder = profile and monitors.Profile(self.folder.tensorboard, *profile, per_epoch)
        shown = [*([progress] if progress else []), *([recorder] if recorder else []), *callbacks]
        try:
            self._show_inputs()
            for phase in self.phases:
                if len(self.history) < phase.last_epoch and not self._ended_early():
                    self._fit(phase, shown)
            evaluation = self._finish()
            warnings = troubles(self.history, self.train_data, self.held_data)
            for line in warnings if verbose != 0 else ():
                print(f"Warning: {line}", file=sys.stderr, flush=True)
        except KeyboardInterrupt:
            if verbose != 0:
                print(
                    f"Interrupted after epoch {len(self.history)}; the same call resumes {self.folder.path}.",
                    file=sys.stderr,
                )
            raise
        except Exception as error:
            if is_disk_full(error) and not isinstance(error, TrainingError):
                raise TrainingError(f"No space left for {self.folder.path}. {self.store.last_good()}") from error
            raise
        finally:
            self.freezing.restore()
            for callback in (progress, recorder):
                if callback and hasattr(callback, "close"):
                    callback.close()
        return self.folder.results(self.model, warnings, evaluation)

    def _plan(self) -> str:
        """How long the run is, in one line."""
        size, per_epoch = self.resolved["batch_size"], self.resolved["steps_per_epoch"]
        words = {phases.HEAD: "the classifier alone", phases.ALL: "all layers" if len(self.phases) > 1 else "training"}
        parts = [f"{words[phase.name]} {phase.last_epoch - phase.first_epoch} epochs" for phase in self.phases]
        return f"{', then '.join(parts).capitalize()}, of {per_epoch} steps with {size} images each."

    def _phase_of(self, epoch: int) -> phases.Phase:
        """The phase of which `epoch` was the last epoch done."""
        return next((phase for phase in self.phases if epoch <= phase.last_epoch), self.phases[-1])

    def _enter(self, phase: phases.Phase) -> None:
        """Freezes and compiles for a phase."""
        recipe = self.recipe
        self.freezing.enter(phase)
        if phase.name == phases.HEAD:
            made = head_optimizer(recipe, phase.steps)
        elif self.pieces.optimizer is not None:
            made = self.pieces.new_optimizer()
        else:
            rate = self.pieces.learning_rate
            made = optimizer_of(recipe, phase.steps, phase.steps_per_epoch, recipe.batch_size, rate)
        metrics = [TopAccuracy(1, "accuracy")]
        if len(self.train_data.labels) >= 100:
            metrics.append(TopAccuracy(5, "top5"))
        kind = BinaryCrossentropy if recipe.loss == "binary_crossentropy" else SmoothedCrossentropy
        loss = self.pieces.loss or kind(recipe.label_smoothing, self.logits)
        self.model.compile(made, loss, metrics=metrics)

    def _fit(self, phase: phases.Phase, shown: list[keras.callbacks.Callback]) -> None:
        """Trains one phase from where the history ends."""
        first = len(self.history)
        if first == phase.first_epoch:
            self._enter(phase)
        model, train, held = self.model, None, None
        if phase.cached:
            model, train, held = self._head(phase, first)
        else:
            train, held = self._batches(first), self._held_batches()
        callbacks = [*self._callbacks(phase), *shown]
        with deep_graphs():
            model.fit(
                train,
                initial_epoch=first,
                epochs=phase.last_epoch,
                steps_per_epoch=phase.steps_per_epoch,
                validation_data=held,
                shuffle=False,  # the pipeline does it
                callbacks=callbacks,
                verbose=0,
            )

    def _head(self, phase: phases.Phase, first: int) -> tuple[keras.Model, Any, Any]:
        """The classifier as a model of its own, with its features as training and validation data."""
        size = self.recipe.image_size
        known = []
        for data in (self.train_data, self.held_data):
            if data is not None:
                batch = feed.evaluation_batch(self.model, data, self.resolved["batch_size"], size)
                known.append(heads.features(self.model, feed.evaluation(self.model, data, batch, size)))
        strategy = getattr(self.model, "distribute_strategy", None)  # of TensorFlow's models
        with strategy.scope() if strategy else contextlib.nullcontext():
            head = heads.HeadOnly(heads.classifier_of(self.model))
        head.compile(self.model.optimizer, self.model.loss, metrics=[TopAccuracy(1, "accuracy")])
        train = heads.training(known[0], self.resolved["batch_size"], self.seed, first)
        if self.class_weight is not None:
            train = class_weights.weighted(train, self.class_weight)
        return head, train, heads.evaluation(known[1]) if len(known) > 1 else None

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

    def _show_inputs(self) -> None:
        """Draws some training images as the network sees them, once a run."""
        if not self.folder.inputs.exists():
            labels = self.train_data.labels
            grid = monitors.InputGrid(self._batches(0), labels, self.folder.inputs, self.folder.tensorboard)
            grid.set_model(self.model)
            grid.on_train_begin()

    def _callbacks(self, phase: phases.Phase) -> list[keras.callbacks.Callback]:
        """Those of the library, in the order that they need: numbers, then what reads them, then the checkpoint."""
        recipe, history, averages = self.recipe, self.history, self._averages(phase)
        found: list[keras.callbacks.Callback] = [
            monitors.StopAtStep(phase.steps, phase.steps_per_epoch, phase.first_epoch),
            monitors.StopOnNonFinite(self.store.last_good),
        ]
        if averages:
            found.append(monitors.AveragedWeights())
        numbered = {"phase": self.phases.index(phase) + 1} if len(self.phases) > 1 else {}
        batch = self.resolved["batch_size"]
        found.append(monitors.MetricsFile(self.folder.metrics, history, batch, phase.first_step, numbered))
        if recipe.schedule == "plateau" and phase.name == phases.ALL:
            found.append(monitors.PlateauRate(recipe.learning_rate, recipe.drop, recipe.patience, history))
        found.append(monitors.TensorBoardScalars(self.folder.tensorboard, history))
        if self.best is not None and phase.name == phases.ALL:
            found.append(self.best)
        if recipe.early_stopping is not None and phase.name == phases.ALL:
            found.append(StopEarly(recipe.early_stopping, history, phase.first_epoch))
        found.append(Checkpoint(self.store, history, self.model, HEAD_SECONDS if phase.cached else 0.0))
        return [*found, Diverging(history, self.train_data.classes), Curves(self.folder)]

    def _averages(self, phase: phases.Phase) -> bool:
        return phase.name == phases.ALL and self.recipe.ema is not None and self.pieces.optimizer is None

    def _keeps_best(self) -> bool:
        return self.recipe.keep == "best" and self.held_data is not None and self.phases[-1].name == phases.ALL

    def _ended_early(self) -> bool:
        """Whether the history says that the run has ended before its last epoch."""
        patience, last = self.recipe.early_stopping, self.phases[-1]
        return patience is not None and stalled(self.history[last.first_epoch :], patience)

    def _finish(self) -> Evaluation | None:
        """Gives the model its final weights, measures what it mistakes, and writes it."""
        if self.best is not None and self.best.epoch < len(self.history):
            self.best.restore()
        elif self._averages(self.phases[-1]) and len(self.history):
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        self.freezing.restore()
        _draw(self.folder)
        self._compile_plainly()
        found = None
        if self.held_data is not None:
            size = self.recipe.image_size
            batch = feed.evaluation_batch(self.model, self.held_data, self.resolved["batch_size"], size)
            found = report(self.model, self.held_data, self.folder.path, batch, image_size=size)
        self.folder.save_model(self.model)
        return found

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
