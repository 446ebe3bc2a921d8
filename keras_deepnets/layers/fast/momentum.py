"""SGD with momentum in one operation per variable."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from keras_deepnets.layers import fast


def momentum_in_one_pass(optimizer: Any) -> None:
    """Makes a `keras.optimizers.SGD` with momentum update each variable with one op, in place.

    Keras composes the update from four ops, which read and write the memory of the weights twice as often.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not fast.on("momentum"):
        return
    if type(optimizer) is keras.optimizers.SGD and optimizer.momentum and "update_step" not in vars(optimizer):
        composed = optimizer.update_step

        def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
            if not momentum_step(optimizer, gradient, variable, learning_rate):
                composed(gradient, variable, learning_rate)

        optimizer.update_step = update_step


def momentum_step(optimizer: Any, gradient: Any, variable: Any, learning_rate: Any, momentum_now: Any = None) -> bool:
    """Updates a variable and its momentum with one op. Returns False, without an update, if TensorFlow cannot do that here.

    `momentum_now` is a scalar in the place of the optimizer's momentum.
    """
    if not optimizer.momentum or not isinstance(gradient, tf.Tensor) or tf.distribute.has_strategy():
        return False
    place = optimizer._get_variable_index(variable)
    momentum, weight = (
        value.value if isinstance(value, keras.Variable) else value for value in (optimizer.momentums[place], variable)
    )
    if not all(isinstance(value, tf.Variable) and hasattr(value, "handle") for value in (momentum, weight)):
        return False
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=weight.handle,
        accum=momentum.handle,
        lr=tf.cast(learning_rate, weight.dtype),
        grad=tf.cast(gradient, weight.dtype),
        momentum=tf.cast(optimizer.momentum if momentum_now is None else momentum_now, weight.dtype),
        use_nesterov=optimizer.nesterov,
    )
    return True
