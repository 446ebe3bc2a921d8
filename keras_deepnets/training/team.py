"""What the workers or devices of a run do together, for classifiers and detectors alike: agree, start, share, resume and end."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras

from keras_deepnets import distribution
from keras_deepnets.data.pipelines import Share
from keras_deepnets.distribution import Devices, Group
from keras_deepnets.errors import InputError
from keras_deepnets.layers import replicas
from keras_deepnets.training.checkpoints import CheckpointStore, State, state_of
from keras_deepnets.training.run import Run, RunFolder, changes, columns, differences, software, summary
from keras_deepnets.training.sharing import (
    SharedMetrics,
    Waiting,
    clip_sums,
    share_from_chief,
    share_gradients,
    vary_seeds,
)


class Team:
    """The processes, or the devices of one process, that train one network.

    Attributes:
        group: The processes.
        strategy: A `MirroredStrategy` over the devices of this process, or None.
        whole: Under JAX, the devices of all processes as one. None: there is only one device, or the backend is TensorFlow.

    Args:
        distribute: Way to distribute the run; see `distribution.MODES`. None: one device of one process.
    """

    def __init__(self, distribute: str = "none"):
        mode, self.group = distribution.join(distribute)
        on_jax = keras.backend.backend() == "jax"
        self.whole = distribution.one_program() if on_jax and mode != "none" else None
        self.strategy = distribution.mirrored() if mode == "mirrored" and not on_jax else None
        self._waiting = Waiting() if self.group.size > 1 and not on_jax else None

    @property
    def is_chief(self) -> bool:
        """Whether this process writes the run folder."""
        return self.group.is_chief

    @property
    def is_alone(self) -> bool:
        """Whether one device of one process trains the network."""
        return self.group.size == 1 and self.strategy is None and self.whole is None

    @property
    def jit_compile(self) -> bool | str:
        """The argument of `compile`. XLA can compile neither TensorFlow's sums over workers nor, in Keras, its mirrored variables."""
        if self.is_alone:
            return "auto"
        return self.whole is not None

    @property
    def _devices(self) -> int:
        """Number of parts into which each batch is split."""
        if self.whole is not None:
            return self.whole.size
        return self.strategy.num_replicas_in_sync if self.strategy is not None else self.group.size

    @property
    def share(self) -> Share | None:
        """The part of each batch that this process reads. None: all of it."""
        return Share(self.group.index, self.group.size) if self.group.size > 1 else None

    def check_share(self, batch_size: int, parts: int = 1) -> None:
        """Raise `InputError` unless the workers and devices can share each batch.

        Args:
            batch_size: Images of a batch.
            parts: Number of parts in which each worker computes its share.
        """
        count = self._devices
        unit = count * parts
        if batch_size % unit == 0:
            return
        workers = f"{count} {'workers' if count == self.group.size else 'devices'}"
        shared = " and ".join(
            [f"shared by {workers}"] * (count > 1) + [f"computed in {parts} parts (accumulate)"] * (parts > 1)
        )
        raise InputError(
            f"batch_size={batch_size} is {shared}, so it must be divisible by {unit}. Set "
            f"batch_size={max(batch_size // unit, 1) * unit}."
        )

    def check_named(self, model: Any) -> None:
        """Raise `InputError` if a built model would have to be mirrored on several devices."""
        if self.strategy is not None:
            raise InputError(
                f"distribute='mirrored' needs the name of a network, and model {model.name!r} is built already. Start one process per "
                "GPU with distribute='multiworker', or give a name."
            )

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """The scope in which variables are mirrored on several devices."""
        return self.strategy.scope() if self.strategy is not None else contextlib.nullcontext()

    def connect(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Make an optimizer use the gradients of the whole batch."""
        if self._waiting is not None:
            share_gradients(optimizer, self.group, self._waiting)
        elif self.strategy is not None:
            clip_sums(optimizer, Devices(self.strategy))

    @contextlib.contextmanager
    def training(self, model: keras.Model, batches: Any, batch_norm: str = "train") -> Iterator[None]:
        """The scope of `fit`. Losses count the objects of the whole batch. Batch normalisation may use all its images.

        Args:
            model: The model that is fitted.
            batches: Its training data.
            batch_norm: As in a recipe.
        """
        if self.is_alone:
            yield
            return
        if self.whole is not None:
            with self.whole.training(model, batches):
                yield
            return
        all_of_them = self.group if self.strategy is None else Devices(self.strategy)
        wide = replicas.synchronized(all_of_them) if batch_norm == "synchronized" else contextlib.nullcontext()
        with replicas.together(all_of_them), wide:
            yield

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """The callbacks that come first: they make the metrics of an epoch those of all workers."""
        return [SharedMetrics(self.group, self._waiting)] if self.group.size > 1 else []

    def restored(
        self, store: CheckpointStore, model: keras.Model, enter: Callable[[State], None] | None = None
    ) -> State | None:
        """Restore the newest checkpoint on the chief, and give every worker the chief's state.

        Args:
            store: Checkpoints of the run.
            model: Compiled model.
            enter: Called with the state before it is restored, to compile the model as it was at that time.
        """
        if self.group.size == 1:
            return store.restore(model, enter)
        found: list[State | None] = [None]

        def restore() -> dict[str, Any] | None:
            found[0] = store.restore(model, enter)
            return found[0].record() if found[0] else None

        record = self.group.from_chief(restore)
        state = found[0] or (State(**record) if record else None)
        if state and enter is not None and not self.is_chief:
            enter(state)
        own = state_of(model)
        share_from_chief(list(own.values()), self.group)
        if not self.group.one_program:
            vary_seeds([variable for name, variable in own.items() if name.startswith("random/")], self.group)
        return state

    def take_weights(self, model: keras.Model) -> None:
        """Give every worker the chief's weights of a model."""
        if self.group.size > 1:
            share_from_chief(model.weights, self.group)

    def results(
        self,
        folder: RunFolder,
        history: list[dict[str, float]],
        model: keras.Model,
        warnings: tuple[str, ...],
        evaluation: Any,
    ) -> Run:
        """The run that ended. The folder may be on another machine than this worker."""
        if self.is_chief:
            return folder.results(model, warnings, evaluation)
        return Run(folder.path, columns(history), summary(history), warnings, evaluation, model)


class Claim:
    """A run folder that all workers of a run use and only the chief reads and writes.

    Attributes:
        config: Configuration in the folder. None: a run has yet to begin.
        finished: Whether the folder holds the whole run.

    Args:
        team: The workers.
        folder: Run folder.
        identity: Configuration of the requested run.

    Raises:
        InputError: Another worker has another run, or the folder belongs to another configuration.
    """

    def __init__(self, team: Team, folder: RunFolder, identity: Mapping[str, Any]):
        self._group, self._folder, self._identity = team.group, folder, identity
        _check_agreement(self._group, identity)
        self.config: dict[str, Any] | None = self._group.from_chief(lambda: folder.check(identity))
        self.finished: bool = self.config is not None and self._group.from_chief(folder.finished)

    def lengthen(self, recipe: Any, lengths: Callable[[], Mapping[str, Any]]) -> None:
        """Continue a finished run if the recipe asks for more epochs.

        Args:
            recipe: Requested recipe.
            lengths: Returns its resolved lengths.
        """
        config = self.config
        if config is None or not self.finished:
            return
        if not self._group.from_chief(lambda: self._folder.asks_for_more(config, recipe)):
            return

        def lengthened() -> dict[str, Any]:
            with self._folder.locked():
                return self._folder.lengthened(config, recipe, lengths())

        self.config, self.finished = self._group.from_chief(lengthened), False

    def results(self, verbose: str | int, model: keras.Model | None = None) -> Run:
        """The finished run. `model`, if given, gets its weights on the chief."""
        if verbose != 0:
            print(f"{self._folder.path} holds the finished run; choose another folder to train again.")
        rows = self._group.from_chief(self._folder.rows)
        if not self._group.is_chief:
            return Run(self._folder.path, columns(rows), summary(rows))
        if model is not None:
            model.load_weights(self._folder.model)
        return self._folder.results(model)

    def resume(self, stack: contextlib.ExitStack) -> None:
        """Lock the folder of an unfinished run, and report different software."""
        if self.config is None:
            return
        self._group.from_chief(lambda: stack.enter_context(self._folder.locked()))
        if (changed := changes(self.config)) and self._group.is_chief:
            print(f"Resuming {self._folder.path} with different software: {changed}.", file=sys.stderr, flush=True)

    def begin(self, stack: contextlib.ExitStack, details: Mapping[str, Any]) -> None:
        """Lock the folder of a new run and write its configuration. An argument may be wrong until here."""
        if self.config is not None:
            return

        def begin() -> None:
            stack.enter_context(self._folder.locked())
            self._folder.begin(self._identity, dict(details) | {"workers": self._group.size})

        self._group.from_chief(begin)


def _check_agreement(group: Group, identity: Mapping[str, Any]) -> None:
    """Raise `InputError` on all workers unless all have the same run, software and backend."""
    here = {**json.loads(json.dumps(identity)), "software": software()}
    for part in ("data", "validation"):  # copies of a file differ in their modification times
        if here[part]:
            here[part]["digests"].pop("files", None)
    found = [json.loads(text) for text in group.gather(json.dumps(here))]
    for index, other in enumerate(found):
        if differing := differences(found[0], other):
            lines = [
                line.replace(" there, ", f" on {group.name_of(0)} and ").removesuffix(" here") for line in differing
            ]
            raise InputError(
                f"{group.name_of(index).capitalize()} has another run than {group.name_of(0)}: {'; '.join(lines[:4])} on "
                f"{group.name_of(index)}. Start all workers with the same command, data and software."
            )
