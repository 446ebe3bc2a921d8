"""Optimizers, losses and schedules from the caller that replace those of a recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_deepnets.errors import InputError


@dataclass(frozen=True)
class OwnPieces:
    """Objects from the caller that replace names and numbers of a recipe. `None`: the recipe applies.

    Attributes:
        optimizer: Keras optimizer. Copies of it are used.
        loss: Keras loss.
        learning_rate: Keras schedule.
    """

    optimizer: keras.optimizers.Optimizer | None = None
    loss: keras.losses.Loss | None = None
    learning_rate: keras.optimizers.schedules.LearningRateSchedule | None = None

    @classmethod
    def split(cls, given: Mapping[str, Any]) -> tuple[OwnPieces, dict[str, Any]]:
        """Separate Keras objects from recipe fields. An `optimizer`, `loss` or `learning_rate` of `None` is dropped.

        Raises:
            InputError: An object has the wrong type, or a schedule is given with an optimizer that has its own.
        """
        kinds = {
            "optimizer": keras.optimizers.Optimizer,
            "loss": keras.losses.Loss,
            "learning_rate": keras.optimizers.schedules.LearningRateSchedule,
        }
        fields = {name: value for name, value in given.items() if not (name in kinds and value is None)}
        own = {name: fields.pop(name) for name, kind in kinds.items() if isinstance(fields.get(name), kind)}
        for name, kind in kinds.items():
            if name in fields and not isinstance(fields[name], (str, int, float)):
                raise InputError(
                    f"{name}={fields[name]!r} must be a name or number of a recipe, or an object of keras.{_MODULES[name]} "
                    f"({kind.__name__})."
                )
        if "optimizer" in own and "learning_rate" in given and given["learning_rate"] is not None:
            raise InputError("learning_rate= beside an optimizer object has no effect; set the rate in the optimizer.")
        return cls(**own), fields

    def identity(self) -> dict[str, Any] | None:
        """Return the objects as plain JSON values for the run's record; None if there are none."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if not given:
            return None
        return json.loads(json.dumps({name: _config(value) for name, value in given.items()}, default=repr))

    def new_optimizer(self) -> keras.optimizers.Optimizer:
        """Return a copy of the optimizer in its initial state."""
        assert self.optimizer is not None, "there is no optimizer to copy"
        return type(self.optimizer).from_config(self.optimizer.get_config())


_MODULES = {"optimizer": "optimizers", "loss": "losses", "learning_rate": "optimizers.schedules"}


def _config(value: Any) -> dict[str, Any]:
    try:
        return {"class": type(value).__name__, "config": value.get_config()}
    except NotImplementedError:
        raise InputError(
            f"{type(value).__name__} has no get_config, which the record of a run needs. Add it (keras.io: serialization)."
        ) from None
