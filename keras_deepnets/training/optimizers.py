"""Optimizers as the papers use them: SGD with a coupled L2 penalty, AdamW and LAMB."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_deepnets.layers import fast
from keras_deepnets.training import durations
from keras_deepnets.training.averaging import RisingAverage
from keras_deepnets.training.muon import Muon
from keras_deepnets.training.recipe import Recipe
from keras_deepnets.training.schedules import HalfCosine, learning_rate

_HEAD_DECAY = 0.01


def decays(optimizer: keras.optimizers.Optimizer, variable: Any, on: str) -> bool:
    """Return whether the weight decay of a built optimizer applies to a variable.

    It applies to `"all"` variables or to `"kernels"`, those of two or more dimensions. It never applies to a variable
    whose attribute `decays` is false. The slopes of a parametric rectifier are such variables.
    """
    # On TensorFlow, Keras passes the backend's variable, which does not have the attribute.
    own = optimizer._trainable_variables[optimizer._get_variable_index(variable)]
    return getattr(own, "decays", True) and (on == "all" or len(variable.shape) >= 2)


@keras.saving.register_keras_serializable("keras_deepnets")
class CoupledSGD(RisingAverage, keras.optimizers.SGD):
    """`keras.optimizers.SGD` with the penalty `l2 / 2 * ||w||²` in its gradient.

    With gradient `g`, `g' = g + l2 * w` replaces the gradient in Keras' update (`v = momentum * v - rate * g'`; `w +=
    v`, or with Nesterov `w += momentum * v - rate * g'`). That is the weight decay of He et al. 2015 (section 3.4) and
    Huang et al. 2016 (section 4.2). Keras' own `weight_decay` shrinks the weights outside the momentum, which is 1 / (1
    - momentum) times weaker. No dampening is applied. This class works on every Keras backend.

    Args:
        learning_rate: A number or a schedule.
        momentum: Momentum. 0: no momentum.
        nesterov: Whether to use Nesterov momentum.
        l2: Factor of the penalty. The reported loss does not include the penalty.
        l2_on: `"all"` trainable variables, or `"kernels"`: those of two or more dimensions, so no biases and no scales
            or offsets of normalisation.
        momentum_start: Momentum of the first step, if it rises.
        momentum_steps: Steps over which the momentum rises linearly to `momentum`. 0: it is constant.
        rate_factors: Factors of the learning rate by a regular expression that is found in a variable's path.
        **kwargs: As for `keras.optimizers.SGD`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        nesterov: bool = False,
        l2: float = 0.0,
        l2_on: str = "all",
        momentum_start: float = 0.5,
        momentum_steps: int = 0,
        rate_factors: Mapping[str, float] | None = None,
        name: str = "coupled_sgd",
        **kwargs: Any,
    ):
        if l2_on not in ("all", "kernels"):
            raise ValueError(f"l2_on={l2_on!r} is not 'all' or 'kernels'.")
        super().__init__(learning_rate, momentum=float(momentum), nesterov=nesterov, name=name, **kwargs)
        self.l2, self.l2_on = float(l2), l2_on
        self.momentum_start, self.momentum_steps = float(momentum_start), int(momentum_steps)
        self.rate_factors = dict(rate_factors or {})

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable.

        The penalty is added here, after gradients are summed over replicas, unscaled, averaged over accumulated steps
        and clipped. Each of these would multiply or change it.
        """
        if self.l2 and decays(self, variable, self.l2_on):
            gradient = ops.add(ops.cast(gradient, variable.dtype), ops.multiply(variable, self.l2))
        if self.rate_factors:
            learning_rate = learning_rate * self._rate_factor(variable)
        momentum = self.momentum_at(self.iterations)
        if fast.on("momentum"):
            from keras_deepnets.layers.fast.momentum import momentum_step

            if momentum_step(self, gradient, variable, learning_rate, momentum):
                return
        if not self.momentum_steps:
            super().update_step(gradient, variable, learning_rate)
            return
        step = ops.cast(learning_rate, variable.dtype) * ops.cast(gradient, variable.dtype)
        velocity, momentum = self.momentums[self._get_variable_index(variable)], ops.cast(momentum, variable.dtype)
        self.assign(velocity, momentum * velocity - step)
        self.assign_add(variable, momentum * velocity - step if self.nesterov else velocity)

    def _rate_factor(self, variable: Any) -> float:
        path = self._trainable_variables[self._get_variable_index(variable)].path
        return next((factor for pattern, factor in self.rate_factors.items() if re.search(pattern, path)), 1.0)

    def momentum_at(self, step: Any) -> Any:
        """Return the momentum of a step (0 is the first): a number, or a float32 scalar if it rises."""
        if not self.momentum_steps:
            return self.momentum
        part = ops.minimum(ops.cast(step, "float32") / self.momentum_steps, 1.0)
        return self.momentum_start + (self.momentum - self.momentum_start) * part

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        own = ("l2", "l2_on", "momentum_start", "momentum_steps", "rate_factors")
        return super().get_config() | {name: getattr(self, name) for name in own}


@keras.saving.register_keras_serializable("keras_deepnets")
class AdamW(RisingAverage, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW` with weight decay on kernels only, or on all variables.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: Each step subtracts `learning_rate * weight_decay * w` from a variable that decays.
        decay_on: `"all"` trainable variables, or `"kernels"`: those of two or more dimensions.
        **kwargs: As for `keras.optimizers.AdamW`.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        weight_decay: float = 0.01,
        decay_on: str = "kernels",
        name: str = "adamw",
        **kwargs: Any,
    ):
        if decay_on not in ("all", "kernels"):
            raise ValueError(f"decay_on={decay_on!r} is not 'all' or 'kernels'.")
        super().__init__(learning_rate, weight_decay=float(weight_decay), name=name, **kwargs)
        self.decay_on = decay_on

    def _use_weight_decay(self, variable):
        """Return whether a variable decays."""
        return decays(self, variable, self.decay_on) and super()._use_weight_decay(variable)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return super().get_config() | {"decay_on": self.decay_on}


def steps_done(optimizer: keras.optimizers.Optimizer) -> int:
    """Return the number of steps of an optimizer, also if a `tf.distribute` strategy mirrors its variables."""
    return int(keras.ops.convert_to_numpy(optimizer.iterations))


def last_learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """Return the learning rate of the last step, or of the first step if there was none yet."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    schedule: Any = getattr(optimizer, "_learning_rate", None)
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        return float(schedule(max(steps_done(optimizer) - 1, 0)))
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


@keras.saving.register_keras_serializable("keras_deepnets")
class Lamb(RisingAverage, keras.optimizers.Lamb):
    """`keras.optimizers.Lamb` with the weight decay inside the trust ratio.

    This follows the paper (You et al. 2019, Algorithm 2) and timm. Keras' own `weight_decay` shrinks the weights
    outside the update. Variables that do not decay (biases, scales, offsets) are not scaled by the trust ratio either,
    as in timm.

    Args:
        learning_rate: A number or a schedule.
        weight_decay: λ. The update is that of Adam plus λ·w, scaled to the norm of w.
        decay_on: `"all"` trainable variables, or `"kernels"`: those of two or more dimensions.
        clip: Maximum global norm of the gradients. 0: no clipping.
        **kwargs: As for `keras.optimizers.Lamb`.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        weight_decay: float = 0.0,
        decay_on: str = "kernels",
        clip: float = 1.0,
        epsilon: float = 1e-6,
        name: str = "lamb",
        **kwargs: Any,
    ):
        if decay_on not in ("all", "kernels"):
            raise ValueError(f"decay_on={decay_on!r} is not 'all' or 'kernels'.")
        if clip:
            kwargs["global_clipnorm"] = clip
        super().__init__(learning_rate, epsilon=epsilon, name=name, **kwargs)
        self.decay, self.decay_on, self.clip = float(weight_decay), decay_on, float(clip)

    def update_step(self, gradient, variable, learning_rate):
        """Update one variable."""
        place = self._get_variable_index(variable)
        first, second = self._momentums[place], self._velocities[place]
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        first.assign(self.beta_1 * first + (1.0 - self.beta_1) * gradient)
        second.assign(self.beta_2 * second + (1.0 - self.beta_2) * ops.square(gradient))
        mean = first / (1.0 - ops.power(ops.cast(self.beta_1, variable.dtype), step))
        square = second / (1.0 - ops.power(ops.cast(self.beta_2, variable.dtype), step))
        update = mean / (ops.sqrt(square) + self.epsilon)
        if self.decay and decays(self, variable, self.decay_on):
            update = update + self.decay * variable
            weight_norm, update_norm = (ops.sqrt(ops.sum(ops.square(values))) for values in (variable, update))
            usable = ops.logical_and(weight_norm > 0, update_norm > 0)
            rate = rate * ops.where(usable, weight_norm / ops.where(usable, update_norm, 1.0), 1.0)
        variable.assign(variable - rate * update)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        config = super().get_config() | {"weight_decay": self.decay, "decay_on": self.decay_on, "clip": self.clip}
        return {name: value for name, value in config.items() if name != "global_clipnorm"}


def optimizer(
    recipe: Recipe,
    steps: int,
    steps_per_epoch: int | None = None,
    batch_size: int | None = None,
    rate: keras.optimizers.schedules.LearningRateSchedule | None = None,
) -> keras.optimizers.Optimizer:
    """Return the recipe's optimizer for a run of `steps` steps.

    Args:
        recipe: Recipe of the run.
        steps: Length of the run in steps.
        steps_per_epoch: Steps per epoch, for milestones and warm-ups in epochs.
        batch_size: Images per step, for milestones and warm-ups in examples.
        rate: Schedule that replaces the recipe's learning rate.
    """
    rate = rate or learning_rate(recipe, steps, steps_per_epoch, batch_size)
    decay: dict[str, Any] = {"weight_decay": recipe.weight_decay}
    average: dict[str, Any] = {} if recipe.ema is None else {"use_ema": True, "ema_momentum": recipe.ema}
    if recipe.optimizer == "lamb":
        return Lamb(rate, decay_on=recipe.weight_decay_on, **decay, **average)
    if recipe.optimizer == "muon":
        return Muon(rate, momentum=recipe.momentum, relative=recipe.relative_rate, **decay, **average)
    if recipe.optimizer == "adamw":
        return AdamW(rate, decay_on=recipe.weight_decay_on, **decay, **average)
    return CoupledSGD(
        rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        l2=recipe.weight_decay,
        l2_on=recipe.weight_decay_on,
        momentum_start=recipe.momentum_start,
        momentum_steps=_ramp(recipe, steps, steps_per_epoch, batch_size),
        rate_factors=recipe.rate_factors,
        **average,
    )


def _ramp(recipe: Recipe, steps: int, steps_per_epoch: int | None, batch_size: int | None) -> int:
    """Return the steps over which the momentum rises."""
    if not recipe.momentum_ramp:
        return 0
    per_epoch, size = steps_per_epoch or steps, batch_size or recipe.images_per_step
    return durations.in_steps(recipe.momentum_ramp, steps=steps, steps_per_epoch=per_epoch, batch_size=size)


def head_optimizer(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer of the epochs that train only the classifier.

    It is AdamW with half a cosine from `head_learning_rate` to zero.
    """
    return AdamW(HalfCosine(recipe.head_learning_rate, steps), weight_decay=_HEAD_DECAY)
