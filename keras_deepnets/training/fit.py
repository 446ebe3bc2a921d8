"""A run that is ready to start: its phases, callbacks, checkpoints and files."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_deepnets.insight.curves import draw_curves
from keras_deepnets.models import deep_graphs, without_auxiliary
from keras_deepnets.scaling import Scaling
from keras_deepnets.training import boards, class_weights, feed, heads, interim, phases
from keras_deepnets.training import callbacks as monitors
from keras_deepnets.training import precision as precisions
from keras_deepnets.training.accumulation import in_parts
from keras_deepnets.training.averaging import AveragedWeights
from keras_deepnets.training.checkpoints import Checkpoint, CheckpointStore, State
from keras_deepnets.training.choosing import kept_epoch, stalled
from keras_deepnets.training.errors import TrainingError, is_disk_full
from keras_deepnets.training.evaluation import PICTURES, Evaluation, draw, evaluate
from keras_deepnets.training.losses import LOSSES, TopAccuracy, fading, gives_logits
from keras_deepnets.training.networks import NamedNetwork
from keras_deepnets.training.optimizers import head_optimizer
from keras_deepnets.training.optimizers import optimizer as optimizer_of
from keras_deepnets.training.pieces import OwnPieces
from keras_deepnets.training.preemption import Preempted, Signals
from keras_deepnets.training.progress import progress_callback
from keras_deepnets.training.recipe import Recipe
from keras_deepnets.training.run import Run, RunFolder
from keras_deepnets.training.sharing import average_statistics
from keras_deepnets.training.team import Team
from keras_deepnets.training.watching import BestWeights, Diverging, StopEarly, troubles

HEAD_SECONDS = 20.0
"""Seconds between checkpoints while only the classifier trains. Its epochs are shorter than writing a checkpoint."""


class Fit:
    """A run that is ready to start. The network is built and compiled, and nothing is written yet."""

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
        class_weight: Sequence[float] | None,
        team: Team,
        checkpoint_every: str = interim.DEFAULT,
    ):
        """Build and compile the network, and build the pipelines once, so that errors show up early."""
        self.team, self.group, self.strategy, self.every = team, team.group, team.strategy, checkpoint_every
        self.signals = Signals()
        self.state: State | None = None
        self.train_data, self.held_data, self.recipe, self.seed = train_data, held_data, recipe, seed
        self.resolved, self.folder, self.pieces, self.class_weight = resolved, folder, pieces, class_weight
        self.phases = phases.of(resolved)
        self.epochs = self.phases[-1].last_epoch
        keras.utils.set_random_seed(seed)
        scaling = Scaling.from_dict(resolved["scaling"]) if resolved["scaling"] else None
        if not isinstance(network, NamedNetwork):
            team.check_named(network)
        self._build = functools.partial(network.build, resolved["precision"], scaling)
        with self.team.scope():
            self.fitted = self._build()
            """The network in the form that is trained, which may have auxiliary classifiers."""
            self.model = without_auxiliary(self.fitted)
        self.logits = gives_logits(self.model)
        self.freezing = phases.Freezing(self.fitted, recipe)
        if recipe.head_epochs and len(heads.classifier_of(self.model).input.shape) != 2:
            # Whole maps are too large to keep, and less is gained: the classifier is a convolution.
            self.phases = [dataclasses.replace(phase, cached=False) for phase in self.phases]
        for phase in reversed(self.phases):  # reversed, so that the first phase is active afterwards
            self._enter(phase)
        self._batches(0)
        self.history: list[dict[str, float]] = []
        self.store = CheckpointStore(folder.checkpoints)
        self.best = BestWeights(self.fitted, self.history, folder.checkpoints) if self._keeps_best() else None

    def __call__(
        self, verbose: str | int, callbacks: Sequence[keras.callbacks.Callback], profile: tuple[int, int] | None = None
    ) -> Run:
        """Train from the last checkpoint to the end."""
        if verbose != 0:
            reason = self.resolved.get("precision_reason", "as started")
            line = precisions.circumstances(self.model, self.resolved["precision"], reason)
            print(f"{line} {self._plan()}", flush=True)
        self.state = self.team.restored(self.store, self.fitted, lambda state: self._enter(self._phase_of(state)))
        if self.state:
            self.history += self.state.history
            if verbose != 0:
                inside = f", step {self.state.batch}" if self.state.batch else ""
                print(
                    f"Resuming {self.folder.path} after epoch {self.state.epoch} of {self.epochs}{inside}.", flush=True
                )
        total = self.phases[-1].first_step + self.phases[-1].steps
        progress = progress_callback(verbose, total, self.resolved["batch_size"], self.history)
        per_epoch = self.resolved["steps_per_epoch"]
        recorder = None
        if profile and self.group.is_chief:
            recorder = monitors.Profile(self.folder.tensorboard, *profile, per_epoch)
        shown = [*([progress] if progress else []), *([recorder] if recorder else []), *callbacks]
        try:
            with reported(self.folder, self.store, self.history, (progress, recorder), verbose), self.signals.noted():
                if self.group.is_chief:
                    self._show_inputs()
                for phase in self.phases:
                    if len(self.history) < phase.last_epoch and not self._ended_early():
                        self._fit(phase, shown)
                evaluation = self._finish()
                self.group.gather("done")  # the end of one process is a failure to the others
                warnings = troubles(self.history, self.train_data, self.held_data)
                for line in warnings if verbose != 0 else ():
                    print(f"Warning: {line}", file=sys.stderr, flush=True)
        finally:
            self.freezing.restore()
            vars(self.fitted).pop("train_step", None)  # of `in_parts`
        return self.team.results(self.folder, self.history, self.model, warnings, evaluation)

    def _plan(self) -> str:
        """Describe the length of the run in one line."""
        size, per_epoch = self.resolved["batch_size"], self.resolved["steps_per_epoch"]
        words = {phases.HEAD: "classifier only", phases.ALL: "all layers" if len(self.phases) > 1 else "training"}
        parts = [f"{words[phase.name]}: {phase.last_epoch - phase.first_epoch} epochs" for phase in self.phases]
        return f"{', then '.join(parts).capitalize()}, {per_epoch} steps per epoch, {size} images per step."

    def _phase_of(self, state: State) -> phases.Phase:
        """Return the phase that contains the last step of a state."""
        epoch = state.epoch + (1 if state.batch else 0)
        return next((phase for phase in self.phases if epoch <= phase.last_epoch), self.phases[-1])

    def _enter(self, phase: phases.Phase) -> None:
        """Freeze layers and compile for a phase."""
        self.freezing.enter(phase)
        with self.team.scope():  # an optimizer keeps the strategy of the scope in which it is made
            self._compile(phase)
        self.team.connect(self.fitted.optimizer)

    def _compile(self, phase: phases.Phase) -> None:
        recipe = self.recipe
        if phase.name == phases.HEAD:
            made = head_optimizer(recipe, phase.steps)
        elif self.pieces.optimizer is not None:
            made = self.pieces.new_optimizer()
        else:
            rate = self.pieces.learning_rate
            made = optimizer_of(recipe, phase.steps, phase.steps_per_epoch, recipe.images_per_step, rate)
        metrics = [TopAccuracy(1, "accuracy")]
        if len(self.train_data.labels) >= 100:
            metrics.append(TopAccuracy(5, "top5"))
        loss = self.pieces.loss or LOSSES[recipe.loss](recipe.label_smoothing, self.logits)
        self.fitted.compile(made, loss, metrics=metrics, jit_compile=self.team.jit_compile)
        if recipe.accumulate > 1:
            in_parts(self.fitted, recipe.accumulate)
        if recipe.auxiliary_fade and phase.name == phases.ALL:
            self.fitted.auxiliary_factor = fading(made, phase.steps)

    def _fit(self, phase: phases.Phase, shown: list[keras.callbacks.Callback]) -> None:
        """Train one phase from the end of the history."""
        first = len(self.history)
        state = self.state if self.state and self.state.batch else None
        self.state = None  # only the first phase starts from it
        if first == phase.first_epoch and state is None:
            self._enter(phase)
        model, train, held = self.fitted, None, None
        done = state.batch if state else 0
        if phase.cached:
            model, train, held = self._head(phase, first)
        else:
            train, held = self._batches(first, done), self._held_batches()
        if state:
            self._build_metrics()
        callbacks = [*self._callbacks(phase, state), *shown]
        with deep_graphs(), self.team.training(model, train, self.recipe.batch_norm):
            model.fit(
                train,
                initial_epoch=first,
                epochs=phase.last_epoch,
                steps_per_epoch=phase.steps_per_epoch,
                validation_data=held,
                shuffle=False,  # the pipeline shuffles
                callbacks=callbacks,
                verbose=0,
            )

    def _build_metrics(self) -> None:
        """Create the metrics' variables, which Keras creates in the first step."""
        images, labels = next(iter(self._batches(0)))[:2]
        self.fitted.test_on_batch(np.asarray(images), np.asarray(labels))

    def _head(self, phase: phases.Phase, first: int) -> tuple[keras.Model, Any, Any]:
        """Return the classifier as a separate model, with its features as training and validation data."""
        size = self.recipe.image_size
        known = []
        for data in (self.train_data, self.held_data):
            if data is not None:
                batch = feed.evaluation_batch(self.model, data, self.resolved["batch_size"], size)
                known.append(heads.features(self.model, feed.evaluation(self.model, data, batch, size)))
        if self.group.size > 1 and len(known) > 1:
            known[1] = known[1].part(self.group.index, self.group.size)
        strategy = getattr(self.model, "distribute_strategy", None)  # TensorFlow only
        with strategy.scope() if strategy else contextlib.nullcontext():
            head = heads.HeadOnly(heads.classifier_of(self.model).layers)
            head.compile(
                self.fitted.optimizer,
                self.fitted.loss,
                metrics=[TopAccuracy(1, "accuracy")],
                jit_compile=self.team.jit_compile,
            )
        train = heads.training(known[0], self.resolved["batch_size"], self.seed, first, self.team.share)
        if self.class_weight is not None:
            train = class_weights.weighted(train, self.class_weight)
        return head, train, heads.evaluation(known[1]) if len(known) > 1 else None

    def _held_batches(self) -> Any:
        if self.held_data is None:
            return None
        size, share = self.recipe.image_size, self.team.share
        held = self.held_data.part(share) if share else self.held_data
        batch = feed.evaluation_batch(self.model, held, self.resolved["batch_size"], size)
        return feed.evaluation(self.model, held, batch, size)

    def _batches(self, first_epoch: int, first_step: int = 0) -> Any:
        return feed.training(
            self.model,
            self.train_data,
            self.recipe,
            self.resolved["augmentation"],
            self.seed,
            first_epoch,
            self.class_weight,
            first_step,
            self.team.share,
        )

    def _show_inputs(self) -> None:
        """Draw some training images as the network sees them, once per run."""
        if not self.folder.inputs.exists():
            labels = self.train_data.labels
            grid = monitors.InputGrid(self._batches(0), labels, self.folder.inputs, self.folder.tensorboard)
            boards.show_hyperparameters(self.folder)
            grid.set_model(self.model)
            grid.on_train_begin()

    def _callbacks(self, phase: phases.Phase, state: State | None = None) -> list[keras.callbacks.Callback]:
        """Return the library's callbacks in order: metrics first, then those that read them, then the checkpoint.

        Args:
            phase: Phase of the run.
            state: State inside an epoch that the phase starts from.
        """
        recipe, history, averages = self.recipe, self.history, self._averages(phase)
        batch, chief = self.resolved["batch_size"], self.group.is_chief
        done = (state.batch, state.seconds) if state else (0, 0.0)

        def prepare() -> None:
            # Frozen statistics are equal. These checkpoints depend on each worker's clock, so nothing may be exchanged.
            if not phase.cached:
                average_statistics(self.fitted, self.group)

        saved = Checkpoint(
            self.store, history, self.fitted, HEAD_SECONDS if phase.cached else 0.0, prepare, state is not None, chief
        )
        found: list[keras.callbacks.Callback] = [
            *self.team.callbacks(),
            interim.InterimCheckpoint(
                self.store,
                history,
                self.group,
                self.signals,
                self.every,
                state,
                prepare,
                saved.save_if_new,
                inside=not phase.cached,
            ),
            monitors.StopAtStep(phase.steps, phase.steps_per_epoch, phase.first_epoch, done[0]),
            monitors.StopOnNonFinite(self.store.last_good),
        ]
        if averages:
            found.append(AveragedWeights())
        numbered: dict[str, float] = {"phase": self.phases.index(phase) + 1} if len(self.phases) > 1 else {}
        file = self.folder.metrics if chief else None
        found.append(monitors.MetricsFile(file, history, batch, phase.first_step, numbered, done))
        if recipe.schedule == "plateau" and phase.name == phases.ALL:
            found.append(monitors.PlateauRate(recipe.learning_rate, recipe.drop, recipe.patience, history))
        if chief:
            found.append(monitors.TensorBoardScalars(self.folder.tensorboard, history))
        if self.best is not None and phase.name == phases.ALL:
            found.append(self.best)
        if recipe.early_stopping is not None and phase.name == phases.ALL:
            found.append(StopEarly(recipe.early_stopping, history, phase.first_epoch))
        found.append(saved)
        return [*found, Diverging(history, self.train_data.classes), Curves(self.folder)] if chief else found

    def _averages(self, phase: phases.Phase) -> bool:
        return phase.name == phases.ALL and self.recipe.ema is not None and self.pieces.optimizer is None

    def _keeps_best(self) -> bool:
        keeps = self.recipe.keep != "last" and self.held_data is not None and self.phases[-1].name == phases.ALL
        return keeps and self.group.is_chief

    def _ended_early(self) -> bool:
        """Return whether the run stopped early, according to the history."""
        patience, last = self.recipe.early_stopping, self.phases[-1]
        return patience is not None and stalled(self.history[last.first_epoch :], patience)

    def _finish(self) -> Evaluation | None:
        """Set the final weights, evaluate the model and save it. All workers evaluate, and only the chief writes."""
        held = self.held_data.size if self.held_data is not None else 0
        if self.best is not None and kept_epoch(self.history, self.recipe.keep, held) < len(self.history):
            self.best.restore()
        elif self._averages(self.phases[-1]) and len(self.history):
            self.fitted.optimizer.finalize_variable_values(self.fitted.trainable_variables)
        self.freezing.restore()
        self.team.take_weights(self.model)
        if self.strategy is not None:  # Keras' predictions would come once per device
            mirrored, self.model = self.model, without_auxiliary(self._build())
            self.model.set_weights(mirrored.get_weights())
        self._compile_plainly()
        found = None
        if self.held_data is not None:
            size = self.recipe.image_size
            batch = feed.evaluation_batch(self.model, self.held_data, self.resolved["batch_size"], size)
            found = evaluate(self.model, self.held_data, batch, image_size=size, group=self.group)
        if self.group.is_chief:
            draw_run(self.folder)
            if found is not None and self.held_data is not None:
                draw(found, self.held_data, self.folder.path)
                boards.show_pictures(self.folder, PICTURES, self.history)
            self.folder.save_model(self.model)
        return found

    def _compile_plainly(self) -> None:
        """Compile with standard Keras objects.

        `model.keras` then holds no training state, and `evaluate` works on it.
        """
        plain = keras.optimizers.SGD(self.recipe.learning_rate)
        plain.build(self.model.trainable_variables)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=self.logits)
        self.model.compile(plain, loss, metrics=["accuracy"])


@contextlib.contextmanager
def reported(
    folder: RunFolder,
    store: CheckpointStore,
    history: list[dict[str, float]],
    closed: Sequence[keras.callbacks.Callback | None],
    verbose: str | int,
) -> Iterator[None]:
    """Run the block, say how to resume after an interruption, and turn a full disk into a `TrainingError`.

    Args:
        folder: Run folder.
        store: Checkpoints of the run.
        history: Rows of the epochs so far.
        closed: Callbacks that are closed at the end, if they can be.
        verbose: 0: print nothing.
    """
    try:
        yield
    except Preempted as stop:
        if verbose != 0:
            print(stop, file=sys.stderr, flush=True)
        raise
    except KeyboardInterrupt:
        if verbose != 0:
            print(f"Interrupted after epoch {len(history)}. The same call resumes {folder.path}.", file=sys.stderr)
        raise
    except Exception as error:
        if is_disk_full(error) and not isinstance(error, TrainingError):
            raise TrainingError(f"No space left for {folder.path}. {store.last_good()}") from error
        raise
    finally:
        for callback in closed:
            if callback and hasattr(callback, "close"):
                callback.close()


class Curves(keras.callbacks.Callback):
    """Callback that redraws a run's training curves, at most every `seconds` seconds.

    Args:
        folder: Run folder. `metrics.csv` must exist when an epoch ends.
        seconds: Minimum seconds between two pictures.
    """

    def __init__(self, folder: RunFolder, seconds: float = 30.0):
        super().__init__()
        self._folder, self._seconds, self._drawn = folder, seconds, time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Draw the curves if the picture is old."""
        if time.monotonic() - self._drawn > self._seconds:
            draw_run(self._folder)
            self._drawn = time.monotonic()


def draw_run(folder: RunFolder) -> None:
    """Draw the curves of a run."""
    draw_curves(folder.path, folder.curves, folder.path.name)
