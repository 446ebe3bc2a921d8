"""The `train` function of detectors. The parts of a run are those of classifiers: folder, checkpoints, metrics, curves."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_deepnets import distribution, registry
from keras_deepnets.detection.data import DetectionData
from keras_deepnets.detection.detector import Detector
from keras_deepnets.detection.evaluating import check_classes
from keras_deepnets.detection.sampling import with_seed
from keras_deepnets.detection.training import feeding, freezing, validating
from keras_deepnets.detection.training.recipe import DetectionRecipe
from keras_deepnets.detection.training.recipes import get_recipe
from keras_deepnets.detection.training_model import training_form
from keras_deepnets.errors import InputError
from keras_deepnets.models import deep_graphs
from keras_deepnets.training import boards, interim
from keras_deepnets.training import callbacks as monitors
from keras_deepnets.training import precision as precisions
from keras_deepnets.training.accumulation import in_parts
from keras_deepnets.training.checkpoints import Checkpoint, CheckpointStore, State
from keras_deepnets.training.choosing import kept_epoch
from keras_deepnets.training.fit import Curves, draw_run, reported
from keras_deepnets.training.optimizers import optimizer as optimizer_of
from keras_deepnets.training.preemption import Signals
from keras_deepnets.training.progress import progress_callback
from keras_deepnets.training.run import Run, RunFolder
from keras_deepnets.training.sharing import average_statistics
from keras_deepnets.training.team import Claim, Team
from keras_deepnets.training.watching import BestWeights, StopEarly


def train(
    model: str | os.PathLike | Detector,
    data: str | os.PathLike | DetectionData,
    recipe: str | os.PathLike | DetectionRecipe = "fast",
    run_dir: str | Path | None = None,
    *,
    weights: str | os.PathLike | None = None,
    weights_backbone: str | os.PathLike | None = None,
    validation: str | os.PathLike | DetectionData | float | bool | None = None,
    limit: int | None = None,
    precision: str | None = None,
    seed: int = 0,
    verbose: str | int = "auto",
    model_options: Mapping[str, Any] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    distribute: str = "none",
    checkpoint_every: str = interim.DEFAULT,
    **overrides: Any,
) -> Run:
    """Train a detector by a recipe. The same call resumes an interrupted run.

    The run folder holds what that of `keras_deepnets.training.train` holds. `metrics.csv` has the four losses and, after each
    validation, COCO AP (`val_ap`, `val_ap50`, `val_ap75`). `detections.png`, `examples.png` and `precision_recall.png` show the
    results. All arguments are validated before anything is written.

    Args:
        model: Name from `list_models(task="detection")`, or a built `Detector`. Of a built one, the recipe's `freeze` freezes the lower
            layers whatever their weights are. Give `freeze=None` if they are random.
        data: Source of `keras_deepnets.detection.load`, or its result.
        recipe: Name from `detection.training.recipes()`, a recipe, or a YAML file.
        run_dir: Run folder. `None`: `runs/<model>-<data>-<recipe>`.
        weights: Initial weights of a named detector: published weights, a weight file, or the folder of a finished run. The
            predictions are new unless the data has the same classes.
        weights_backbone: Initial weights of the backbone: weights of the classifier, or the folder of its run.
        validation: Images to validate on: a source, a set, a number or a fraction of images to split off, or `False`. `None`: the
            source's validation split, otherwise a tenth of the images.
        limit: Maximum number of training images.
        precision: `"float32"`, `"mixed_bfloat16"`, `"mixed_float16"` or `"auto"`. `None`: the recipe's.
        seed: Seed of the image order, augmentation, sampling and initial weights.
        verbose: As for classifiers.
        model_options: Additional constructor arguments, e.g. `{"min_size": 400, "max_size": 640}`.
        callbacks: Additional callbacks. They run after those of the library.
        distribute: As for classifiers: `"none"`, `"mirrored"`, `"multiworker"` or `"auto"`.
        checkpoint_every: As for classifiers: interval between checkpoints inside an epoch.
        **overrides: Fields of the recipe, e.g. `epochs=5`.

    Returns:
        The run: its folder, the trained detector, history and last metrics.

    Raises:
        InputError: An argument cannot be used, or the folder belongs to another configuration or process. Another worker
            has another configuration, or stopped.
        Preempted: SIGTERM or SIGUSR1 ended the run. Its state is saved.
        TrainingError: The loss or a weight became NaN or infinite, or the disk is full.
    """
    interim.interval(checkpoint_every)
    _check_backend(distribute)
    team = Team(distribute)
    with distribution.watched(team.group):
        precisions.prepare_gpus()
        verbose = verbose if team.is_chief else 0
        asked = get_recipe(recipe, **overrides)
        if precision is not None:
            asked = asked.with_overrides(precision=precision)
        train_data, held = feeding.sets(data, validation, seed, limit)
        network = _Network(model, weights, weights_backbone, dict(model_options or {}), train_data)
        folder = RunFolder(
            run_dir or Path("runs") / f"{network.name}-{Path(train_data.name).name}-{asked.name}", DetectionRecipe
        )
        identity = {
            "model": network.identity(),
            "data": feeding.identity(train_data),
            "validation": feeding.identity(held),
            "recipe": asked.to_dict(),
            "precision": asked.base.precision,
            "seed": seed,
            "pieces": None,
            "class_weight": None,
        }
        claim = Claim(team, folder, identity)
        team.check_share(asked.base.images_per_step, asked.base.accumulate)
        claim.lengthen(asked, lambda: _lengths(asked, train_data))
        if claim.finished:
            return claim.results(verbose)
        if asked.base.early_stopping is not None and held is None:
            raise InputError(
                f"early_stopping={asked.base.early_stopping} needs validation images. Set validation=0.1, or omit it."
            )
        with contextlib.ExitStack() as stack:
            claim.resume(stack)
            config = claim.config
            resolved = (
                config["resolved"] if config else team.group.from_chief(lambda: _resolve(network, asked, train_data))
            )
            fit = DetectorFit(network, train_data, held, asked, resolved, seed, folder, team, checkpoint_every)
            claim.begin(stack, {"resolved": resolved, "devices": precisions.devices()})
            return fit(verbose, callbacks)


def _check_backend(distribute: str) -> None:
    backend = keras.backend.backend()
    if backend != "tensorflow" and distribution.mode_of(distribute) != "none":
        raise InputError(
            f"distribute={distribute!r}: detectors train on several devices under TensorFlow only, and Keras runs on {backend}. Use "
            "distribute='none'."
        )


class _Network:
    """The detector of a run: a named one with its initial weights, or a given one.

    If a named one starts from random weights, nothing is frozen: neither its lower layers nor its batch normalisation.
    """

    def __init__(self, model: Any, weights: Any, weights_backbone: Any, options: dict[str, Any], data: DetectionData):
        self.given = model if isinstance(model, Detector) else None
        self._data, self._options, self._weights, self._backbone = data, options, weights, weights_backbone
        self.starts_at_random = False
        if self.given is not None:
            if weights is not None or weights_backbone is not None or options:
                raise InputError(
                    f"{model.name} is built already; leave out weights, weights_backbone and model_options."
                )
            check_classes(self.given, data)
            self.name = self.given.name
            return
        facts = registry.constructor_of(os.fspath(model)).facts
        if facts.family.task != "detection":
            raise InputError(
                f"{facts.name} is a classifier; give a detector of list_models(task='detection'), or train it with keras_deepnets.training."
            )
        self._constructor = self.name = facts.name.lower()
        self.starts_at_random = weights is None and weights_backbone is None
        if self.starts_at_random and "frozen_batch_norm" in facts.options:
            self._options = {"frozen_batch_norm": False} | options
        facts.spec_with(options)
        if facts.name == "FasterRCNN":
            if "backbone" not in options:
                raise InputError("FasterRCNN needs a backbone: give model_options={'backbone': 'resnet18'}.")
            self.name = f"fasterrcnn_{options['backbone']}"

    def identity(self) -> dict[str, Any]:
        """The values that identify the network, as plain JSON values."""
        values: dict[str, Any] = {"name": self.name, "options": self._options}
        for name, source in (("weights", self._weights), ("weights_backbone", self._backbone)):
            if source is not None:
                values[name] = os.fspath(source)
        return values

    def own_precision(self) -> tuple[str, str] | None:
        """The precision of a given detector and the reason; None for a named one."""
        return self.given and (precisions.policy_of(self.given), "as the model was built")

    def build(self, precision: str | None) -> Detector:
        """The detector with its initial weights."""
        from keras_deepnets.detection.training.starting import started

        if self.given is not None:
            if self.given.labels is None:
                self.given.labels = self._data.classes
            return self.given
        with precisions.policy(precision):
            return started(self._constructor, self._weights, self._backbone, self._options, self._data.classes)


def _resolve(network: _Network, recipe: DetectionRecipe, data: DetectionData) -> dict[str, Any]:
    """Resolve what a recipe leaves to the data and the machine."""
    base = recipe.base
    precision, reason = base.precision, "as requested"
    if precision == "auto":
        precision, reason = network.own_precision() or precisions.automatic(lambda: network.build(None).fixed_body())
    return {"precision": precision, "precision_reason": reason, **_lengths(recipe, data)}


def _lengths(recipe: DetectionRecipe, data: DetectionData) -> dict[str, Any]:
    """The batch size and the lengths of a run. Raises InputError if there are fewer images than in a batch."""
    base = recipe.base
    size = base.images_per_step
    if len(data) < size:
        raise InputError(f"batch_size={size}, but there are {len(data)} training images; set a smaller batch_size.")
    per_epoch = len(data) // size
    steps = base.total_steps(per_epoch)
    return {
        "batch_size": size,
        "steps_per_epoch": per_epoch,
        "steps": steps,
        "epochs": math.ceil(steps / per_epoch),
    }


class DetectorFit:
    """A run that is ready to start. The detector is built and compiled, and nothing is written yet."""

    def __init__(
        self,
        network: _Network,
        train_data: DetectionData,
        held: DetectionData | None,
        recipe: DetectionRecipe,
        resolved: Mapping[str, Any],
        seed: int,
        folder: RunFolder,
        team: Team,
        checkpoint_every: str = interim.DEFAULT,
    ):
        """Build and compile the detector, and build the pipeline once, so that errors show up early."""
        self.train_data, self.held, self.recipe, self.resolved = train_data, held, recipe, resolved
        self.seed, self.folder, self.team, self.every = seed, folder, team, checkpoint_every
        self.signals = Signals()
        self.state: State | None = None
        self.validated: validating.Validate | None = None
        keras.utils.set_random_seed(seed)
        if network.given is not None:
            team.check_named(network.given)
        self._build = functools.partial(network.build, resolved["precision"])
        with team.scope():
            self.model = self._build()
            self.frozen = freezing.freeze(self.model, None if network.starts_at_random else recipe.freeze)
            with precisions.policy(resolved["precision"]):
                self.fitted = training_form(self.model, with_seed(recipe.sampling, seed), by_image=True)
            made = optimizer_of(recipe.base, resolved["steps"], resolved["steps_per_epoch"], resolved["batch_size"])
            made.global_clipnorm = recipe.clip_norm
            self.fitted.compile(made, jit_compile=team.jit_compile)
            if recipe.base.accumulate > 1:
                in_parts(self.fitted, recipe.base.accumulate)
        team.connect(self.fitted.optimizer)
        self.history: list[dict[str, float]] = []
        self.store = CheckpointStore(folder.checkpoints)
        keeps = recipe.base.keep != "last" and held is not None and team.is_chief
        self.best = BestWeights(self.fitted, self.history, folder.checkpoints) if keeps else None
        self._batches(0, 1)

    def _batches(self, first_epoch: int, end: int, first_step: int = 0) -> Any:
        return feeding.batches(
            self.train_data,
            self.model,
            self.recipe,
            self.resolved,
            self.seed,
            first_epoch,
            end,
            first_step,
            self.team.share,
        )

    def __call__(self, verbose: str | int, callbacks: Sequence[keras.callbacks.Callback]) -> Run:
        """Train from the last checkpoint to the end."""
        if verbose != 0:
            reason = self.resolved["precision_reason"]
            line = precisions.circumstances(self.fitted, self.resolved["precision"], reason)
            epochs, per_epoch, size = (self.resolved[name] for name in ("epochs", "steps_per_epoch", "batch_size"))
            print(feeding.heading(self.train_data, self.held))
            print(f"{line} Training: {epochs} epochs, {per_epoch} steps per epoch, {size} images per step.", flush=True)
        state = self.team.restored(self.store, self.fitted)
        if state:
            self.history += state.history
            self.state = state if state.batch else None
            if verbose != 0:
                inside = f", step {state.batch}" if state.batch else ""
                epochs = self.resolved["epochs"]
                print(f"Resuming {self.folder.path} after epoch {state.epoch} of {epochs}{inside}.", flush=True)
        progress = progress_callback(verbose, self.resolved["steps"], self.resolved["batch_size"], self.history)
        try:
            with reported(self.folder, self.store, self.history, (progress,), verbose), self.signals.noted():
                if self.team.is_chief:
                    validating.show_inputs(self._batches(0, 1), self.train_data.classes, self.folder)
                if len(self.history) < self.resolved["epochs"] and not self._ended_early():
                    self._fit([*([progress] if progress else []), *callbacks])
                evaluation = self._finish()
                self.team.group.gather("done")  # the end of one process is a failure to the others
        finally:
            freezing.restore(self.frozen)
        return self.team.results(self.folder, self.history, self.model, (), evaluation)

    def _fit(self, shown: list[keras.callbacks.Callback]) -> None:
        resolved, first = self.resolved, len(self.history)
        done = self.state.batch if self.state else 0
        batches = self._batches(first, resolved["epochs"], done)
        with deep_graphs(), self.team.training(self.fitted, batches, self.recipe.base.batch_norm):
            self.fitted.fit(
                batches,
                initial_epoch=first,
                epochs=resolved["epochs"],
                steps_per_epoch=resolved["steps_per_epoch"],
                shuffle=False,
                callbacks=[*self._callbacks(), *shown],
                verbose=0,
            )

    def _callbacks(self) -> list[keras.callbacks.Callback]:
        """The library's callbacks in order: validation, metrics, those that read them, then the checkpoint."""
        resolved, history, base = self.resolved, self.history, self.recipe.base
        done = (self.state.batch, self.state.seconds) if self.state else (0, 0.0)
        group, chief = self.team.group, self.team.is_chief

        def prepare() -> None:
            average_statistics(self.fitted, group)

        saved = Checkpoint(
            self.store, history, self.fitted, prepare=prepare, resumed=self.state is not None, writes=chief
        )
        found: list[keras.callbacks.Callback] = [
            *self.team.callbacks(),
            interim.InterimCheckpoint(
                self.store, history, group, self.signals, self.every, self.state, prepare, saved.save_if_new
            ),
            monitors.StopAtStep(resolved["steps"], resolved["steps_per_epoch"], done=done[0]),
            monitors.StopOnNonFinite(self.store.last_good),
        ]
        file = self.folder.metrics if chief else None
        metrics = monitors.MetricsFile(file, history, resolved["batch_size"], done=done)
        if self.held is not None:
            self.validated = validating.Validate(
                self.model,
                self.held,
                self.recipe.validate_every,
                resolved["epochs"],
                self.folder.tensorboard,
                metrics,
                group,
            )
            found.append(self.validated)
        found.append(metrics)
        if chief:
            found.append(monitors.TensorBoardScalars(self.folder.tensorboard, history))
        if self.best is not None:
            found.append(self.best)
        if base.early_stopping is not None:
            found.append(StopEarly(base.early_stopping, history))
        return [*found, saved, Curves(self.folder)] if chief else [*found, saved]

    def _ended_early(self) -> bool:
        from keras_deepnets.training.choosing import stalled

        patience = self.recipe.base.early_stopping
        return patience is not None and stalled(self.history, patience)

    def _finish(self) -> Any:
        """Set the final weights, evaluate the detector, draw the results and save it. Only the chief writes."""
        held = len(self.held) if self.held is not None else 0
        last = self.recipe.base.keep == "last" and self.team.strategy is None
        found = self.validated.found(len(self.history)) if last and self.validated is not None else None
        if self.best is not None and kept_epoch(self.history, self.recipe.base.keep, held) < len(self.history):
            self.best.restore()
        elif self.recipe.base.ema is not None and self.history:
            self.fitted.optimizer.finalize_variable_values(self.fitted.trainable_variables)
        freezing.restore(self.frozen)
        self.team.take_weights(self.model)
        if self.team.strategy is not None:  # a model on one device, to detect with and to save
            mirrored, self.model = self.model, self._build()
            self.model.set_weights(mirrored.get_weights())
        evaluation = None
        if self.held is not None:
            evaluation = validating.report(self.model, self.held, self.folder.path, self.team.group, found)
        if self.team.is_chief:
            draw_run(self.folder)
            if evaluation is not None:
                boards.show_pictures(self.folder, validating.PICTURES, self.history)
            self.folder.save_model(self.model)
        return evaluation
