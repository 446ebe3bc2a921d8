"""Gradient descent as the papers use it: the L2 penalty passes through the momentum."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.training.recipes import Recipe
from keras_deepnets.training.schedules import learning_rate


@keras.saving.register_keras_serializable("keras_deepnets")
class CoupledSGD(keras.optimizers.SGD):
    """`keras.optimizers.SGD` with the penalty `l2 / 2 * ||w||²` in its gradient.

    With gradient `g`, `g' = g + l2 * w` takes the gradient's place in Keras' update
    (`v = momentum * v - rate * g'`; `w += v`, or with Nesterov `w += momentum * v - rate * g'`).
    That is the weight decay of He et al. 2015 (section 3.4) and Huang et al. 2016 (section 4.2). Keras' own
    `weight_decay` shrinks the weights beside the momentum instead, which is 1 / (1 - momentum) times weaker.
    No step is dampened. Works on every Keras backend.

    Args:
        learning_rate: a number or a schedule.
        momentum: 0 for none.
        nesterov: whether the momentum is Nesterov's.
        l2: factor of the penalty; the reported loss does not contain it.
        l2_on: `"all"` trainable variables, or `"kernels"`: those of two dimensions and more, so neither biases nor
            the scales and offsets of normalisation.
        **kwargs: as `keras.optimizers.SGD`.
    """

    def __init__(
        self,
        learning_rate: Any = 0.1,
        momentum: float = 0.9,
        nesterov: bool = False,
        l2: float = 0.0,
        l2_on: str = "all",
        name: str = "coupled_sgd",
        **kwargs: Any,
    ):
        if l2_on not in ("all", "kernels"):
            raise ValueError(f"l2_on={l2_on!r} is not 'all' or 'kernels'.")
        super().__init__(learning_rate, momentum=float(momentum), nesterov=nesterov, name=name, **kwargs)
        self.l2, self.l2_on = float(l2), l2_on

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable.

        The penalty joins here, after gradients were summed over replicas, unscaled, averaged over accumulated steps and
        clipped: each of these would multiply or change it.
        """
        if self.l2 and (self.l2_on == "all" or len(variable.shape) >= 2):
            gradient = ops.add(ops.cast(gradient, variable.dtype), ops.multiply(variable, self.l2))
        if keras.backend.backend() == "tensorflow":
            from keras_deepnets.layers import _tensorflow

            if _tensorflow.momentum_step(self, gradient, variable, learning_rate):
                return
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"l2": self.l2, "l2_on": self.l2_on}


def steps_done(optimizer: keras.optimizers.Optimizer) -> int:
    """How many steps an optimizer has made, also where a `tf.distribute` strategy mirrors its variables."""
    return int(keras.ops.convert_to_numpy(optimizer.iterations))


def optimizer(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    """The recipe's optimizer for a run of `steps` steps."""
    return CoupledSGD(
        learning_rate(recipe, steps),
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        l2=recipe.weight_decay,
        l2_on=recipe.weight_decay_on,
        use_ema=recipe.ema is not None,
        ema_momentum=recipe.ema if recipe.ema is not None else 0.99,
    )
