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

    def apply(self, grads, trainable_variables=None):
        """Adds the penalty's gradient to `grads` and makes the step.

        Gradients are added before Keras clips or accumulates them, as they would be were the penalty part of the loss.
        """
        variables = self._trainable_variables if trainable_variables is None else list(trainable_variables)
        grads = [self._with_penalty(grad, variable) for grad, variable in zip(grads, variables, strict=True)]
        return super().apply(grads, trainable_variables)

    def _with_penalty(self, grad, variable):
        if grad is None or not self.l2 or (self.l2_on == "kernels" and len(variable.shape) < 2):
            return grad
        # A fixed loss scale multiplies the gradients that come in, and is divided out later.
        factor = self.l2 * (self.loss_scale_factor or 1.0)
        return ops.add(grad, ops.multiply(ops.cast(variable, grad.dtype), factor))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"l2": self.l2, "l2_on": self.l2_on}


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
