"""A running average of a network's weights, kept by its optimizer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_deepnets.layers.fast import internals


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


class AveragedWeights(keras.callbacks.Callback):
    """Validate with the optimizer's running average of the weights (`use_ema=True`) instead of the weights.

    Keras' `SwapEMAWeights` swaps by additions, which leaves rounding errors. This callback restores the exact weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[np.ndarray] = []

    def on_test_begin(self, logs=None):
        """Set the averaged weights."""
        self._kept = _put_average(self.model)

    def on_test_end(self, logs=None):
        """Restore the weights."""
        _put_back(self.model, self._kept)
        self._kept = []


def running_averages(model: keras.Model) -> dict[int, Any]:
    """The variables that hold the averages of a model's weights, by the identity of the weight. Empty without averages."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    return internals.running_averages(optimizer) if getattr(optimizer, "use_ema", False) else {}


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """Give a model the running average of its weights during the block, if its optimizer keeps one."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    kept = _put_average(model) if getattr(optimizer, "use_ema", False) else []
    try:
        yield
    finally:
        _put_back(model, kept)


def _put_average(model: keras.Model) -> list[np.ndarray]:
    """Set the averaged weights of a model and return the previous weights."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    weights = model.trainable_variables
    kept = [_copied(weight) for weight in weights]
    optimizer.finalize_variable_values(weights)
    for weight in weights:
        weight.assign(_copied(weight))  # under JAX the two would share memory, which the next step donates
    return kept


def _put_back(model: keras.Model, kept: list[np.ndarray]) -> None:
    for weight, value in zip(model.trainable_variables if kept else (), kept, strict=True):
        weight.assign(value)


def _copied(variable: Any) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))
