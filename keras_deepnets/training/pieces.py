"""Optimizers, losses and schedules of the caller's in the place of a recipe's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_deepnets.errors import InputError


@dataclass(frozen=True)
class OwnPieces:
    """What the caller gives in the place of a recipe's names and numbers; `None` where the recipe holds.

    Attributes:
        optimizer: a Keras optimizer, of which copies are trained with.
        loss: a Keras loss.
        learning_rate: a Keras schedule.
    """

    optimizer: keras.optimizers.Optimizer | None = None
    loss: keras.losses.Loss | None = None
    learning_rate: keras.optimizers.schedules.LearningRateSchedule | None = None

    @classmethod
    def split(cls, given: Mapping[str, Any]) -> tuple[OwnPieces, dict[str, Any]]:
        """Keras objects apart from the fields of a recipe; a `None` among these kinds is left out.

        Raises:
            InputError: an object of another kind, or a schedule beside an optimizer that has its own.
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
            raise InputError("learning_rate= beside an optimizer object has no effect; give the rate to the optimizer.")
        return cls(**own), fields

    def identity(self) -> dict[str, Any] | None:
        """The objects as plain JSON values, for a run's record; None where there are none."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        if not given:
            return None
        return json.loads(json.dumps({name: _config(value) for name, value in given.items()}, default=repr))

    def new_optimizer(self) -> keras.optimizers.Optimizer:
        """A copy of the optimizer as it was made, without what it has learnt."""
        return type(self.optimizer).from_config(self.optimizer.get_config())


_MODULES = {"optimizer": "optimizers", "loss": "losses", "learning_rate": "optimizers.schedules"}


def _config(value: Any) -> dict[str, Any]:
    try:
        return {"class": type(value).__name__, "config": value.get_config()}
    except NotImplementedError:
        raise InputError(
            f"{type(value).__name__} has no get_config, which a run's record needs; add it (keras.io: serialization)."
        ) from None
