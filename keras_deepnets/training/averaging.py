"""A running average of a network's weights, kept by its optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops


class RisingAverage:
    """Optimizer mixin whose average of the weights (`use_ema=True`) covers at most the steps done so far.

    The decay of step n is (1 + n) / (10 + n), at most `ema_momentum`, as in TensorFlow's `ExponentialMovingAverage`.
    The initial weights therefore have little influence in a short run. The average of a constrained weight is that of
    its constrained values, so the average of weights of bounded norm has a bounded norm. Put this class before the Keras class in the
    list of bases.
    """

    __init__: Callable[..., None]
    use_ema: bool
    ema_momentum: float
    iterations: Any
    _model_variables_moving_average: list[Any]

    def _update_model_variables_moving_average(self, trainable_variables):
        if not self.use_ema:
            return
        steps = ops.cast(self.iterations, "float32")
        decay = ops.minimum(self.ema_momentum, (1.0 + steps) / (10.0 + steps))
        for variable, average in zip(trainable_variables, self._model_variables_moving_average, strict=True):
            kept = ops.where(steps > 0, decay, 0.0)
            # Keras applies the constraint only after this.
            value = variable if variable.constraint is None else variable.constraint(variable)
            average.assign(average + ops.cast(1.0 - kept, average.dtype) * (value - average))
