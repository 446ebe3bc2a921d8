"""Learning-rate schedules.

They are registered with Keras, so that an optimizer that uses one can be saved and loaded.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_deepnets.errors import InputError
from keras_deepnets.training import durations
from keras_deepnets.training.recipe import Recipe


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule whose config is the arguments of its constructor."""

    def __init__(self, **config: Any):
        self._config = config

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return dict(self._config)


@keras.saving.register_keras_serializable("keras_deepnets")
class PiecewiseDrops(_Schedule):
    """`learning_rate * drop ** n` after `n` milestones.

    Args:
        learning_rate: Initial learning rate.
        boundaries: First step of each later piece, in increasing order.
        drop: Factor from one piece to the next.
    """

    def __init__(self, learning_rate: float, boundaries: list[int], drop: float = 0.1):
        super().__init__(learning_rate=learning_rate, boundaries=list(boundaries), drop=drop)
        # The products are computed here, in double precision, so that 0.1 / 10 is exactly the 0.01 of a paper.
        self._rates = [learning_rate * drop**n for n in range(len(boundaries) + 1)]
        self._boundaries = list(boundaries)

    def __call__(self, step):
        """Return the learning rate at `step` (0 is the first), a float32 scalar."""
        step = ops.cast(step, "float32")
        rate = ops.convert_to_tensor(self._rates[0], "float32")
        for boundary, later in zip(self._boundaries, self._rates[1:], strict=True):
            rate = ops.where(step >= boundary, ops.cast(later, "float32"), rate)
        return rate


@keras.saving.register_keras_serializable("keras_deepnets")
class OneCycle(_Schedule):
    """Linear rise from `learning_rate / 25` to `learning_rate`, then linear fall to zero (Smith & Topin 2017, section 3).

    Args:
        learning_rate: Peak learning rate.
        steps: Length of the run in steps.
        peak_at: Position of the peak, as a fraction of the run. 0: the run starts at the peak.
    """

    def __init__(self, learning_rate: float, steps: int, peak_at: float = 0.25):
        super().__init__(learning_rate=learning_rate, steps=steps, peak_at=peak_at)
        self._peak, self._steps, self._top = learning_rate, steps, peak_at * steps

    def __call__(self, step):
        """Return the learning rate at `step` (0 is the first), a float32 scalar."""
        step = ops.cast(step, "float32")
        low = self._peak / 25
        up = low + (self._peak - low) * step / max(self._top, 1.0)
        down = self._peak * (self._steps - step) / max(self._steps - self._top, 1.0)
        return ops.where(step < self._top, up, ops.maximum(down, 0.0))


@keras.saving.register_keras_serializable("keras_deepnets")
class LinearFall(_Schedule):
    """A linear fall from `learning_rate` to `drop * learning_rate`.

    Args:
        learning_rate: Initial learning rate.
        steps: Length of the run in steps.
        drop: Ratio of the final rate to the initial rate.
    """

    def __init__(self, learning_rate: float, steps: int, drop: float = 0.01):
        super().__init__(learning_rate=learning_rate, steps=steps, drop=drop)
        self._first, self._steps, self._drop = learning_rate, steps, drop

    def __call__(self, step):
        """Return the learning rate at `step` (0 is the first), a float32 scalar."""
        part = ops.minimum(ops.cast(step, "float32") / self._steps, 1.0)
        return self._first * (1.0 - (1.0 - self._drop) * part)


@keras.saving.register_keras_serializable("keras_deepnets")
class HalfCosine(_Schedule):
    """`learning_rate * (1 + cos(pi * step / steps)) / 2` (Loshchilov & Hutter 2016, equation 5, without restarts).

    Args:
        learning_rate: Initial learning rate.
        steps: Length of the run in steps.
    """

    def __init__(self, learning_rate: float, steps: int):
        super().__init__(learning_rate=learning_rate, steps=steps)
        self._first, self._steps = learning_rate, steps

    def __call__(self, step):
        """Return the learning rate at `step` (0 is the first), a float32 scalar."""
        part = ops.minimum(ops.cast(step, "float32") / self._steps, 1.0)
        return 0.5 * self._first * (1.0 + ops.cos(math.pi * part))


@keras.saving.register_keras_serializable("keras_deepnets")
class WarmUp(_Schedule):
    """A warm-up in front of another schedule.

    The other schedule is not shifted: step 500 has the same rate as without a warm-up.

    Args:
        schedule: Learning rate after the warm-up: a number, a schedule, or the serialised form of a schedule.
        steps: Length of the warm-up in steps.
        learning_rate: Learning rate at the start of the warm-up.
        shape: `"linear"`: rises linearly to the value of `schedule`. `"constant"`: stays at `learning_rate`.
    """

    def __init__(self, schedule: Any, steps: int, learning_rate: float = 0.0, shape: str = "linear"):
        if isinstance(schedule, dict):
            schedule = keras.saving.deserialize_keras_object(schedule)
        super().__init__(steps=steps, learning_rate=learning_rate, shape=shape)
        self._schedule, self._steps, self._first, self._shape = schedule, steps, learning_rate, shape

    def __call__(self, step):
        """Return the learning rate at `step` (0 is the first), a float32 scalar."""
        after = self._schedule(step) if callable(self._schedule) else self._schedule
        after = ops.cast(after, "float32")
        step = ops.cast(step, "float32")
        first = ops.convert_to_tensor(self._first, "float32")
        during = first + (after - first) * step / self._steps if self._shape == "linear" else first
        return ops.where(step < self._steps, during, after)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor, with the inner schedule serialised."""
        inner = self._schedule
        return super().get_config() | {
            "schedule": keras.saving.serialize_keras_object(inner) if callable(inner) else inner
        }


@keras.saving.register_keras_serializable("keras_deepnets")
class ExponentialFall(_Schedule):
    """`learning_rate * drop ** (step / steps)`.

    Args:
        learning_rate: Initial learning rate.
        steps: Length of the run in steps.
        drop: Ratio of the final rate to the initial rate.
    """

    def __init__(self, learning_rate: float, steps: int, drop: float = 0.01):
        super().__init__(learning_rate=learning_rate, steps=steps, drop=drop)
        self._first, self._steps, self._drop = learning_rate, steps, drop

    def __call__(self, step):
        """Return the learning rate at `step` (0 is the first), a float32 scalar."""
        part = ops.minimum(ops.cast(step, "float32") / self._steps, 1.0)
        return self._first * ops.exp(math.log(self._drop) * part)


def learning_rate(recipe: Recipe, steps: int, steps_per_epoch: int | None = None, batch_size: int | None = None) -> Any:
    """Return a recipe's value for the `learning_rate` argument of a Keras optimizer.

    Args:
        recipe: Recipe of the run.
        steps: Length of the run in steps.
        steps_per_epoch: Steps per epoch, for milestones and warm-ups in epochs. `None`: the run is one epoch.
        batch_size: Images per step, for milestones and warm-ups in examples. `None`: that of the recipe.

    Returns:
        A schedule, or a number if the rate is constant (`"constant"`) or follows the measured error (`"plateau"`).

    Raises:
        InputError: The milestones do not rise.
    """
    scale: dict[str, Any] = {
        "steps": steps,
        "steps_per_epoch": steps_per_epoch or steps,
        "batch_size": batch_size or recipe.batch_size,
    }
    rate: Any = recipe.learning_rate
    if recipe.schedule == "piecewise":
        boundaries = [durations.in_steps(at, **scale) for at in recipe.milestones]
        if boundaries != sorted(boundaries):
            raise InputError(f"milestones={recipe.milestones} are steps {boundaries} of this run, which do not rise.")
        rate = PiecewiseDrops(rate, boundaries, recipe.drop)
    elif recipe.schedule == "one_cycle":
        rate = OneCycle(rate, steps, recipe.peak_at)
    elif recipe.schedule == "cosine":
        rate = HalfCosine(rate, steps)
    elif recipe.schedule == "linear":
        rate = LinearFall(rate, steps, recipe.drop)
    elif recipe.schedule == "exponential":
        rate = ExponentialFall(rate, steps, recipe.drop)
    warmup = durations.in_steps(recipe.warmup, **scale)
    if warmup and recipe.schedule != "plateau":
        rate = WarmUp(rate, warmup, recipe.warmup_learning_rate, recipe.warmup_shape)
    return rate
