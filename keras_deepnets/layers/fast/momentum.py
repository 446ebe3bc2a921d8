"""SGD with momentum in one operation per variable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_deepnets.layers import fast
from keras_deepnets.layers.fast.constants import constant


def momentum_in_one_pass(optimizer: Any) -> None:
    """Makes a `keras.optimizers.SGD` with momentum update each variable with one op, in place.

    Keras composes the update from four ops, which read and write the memory of the weights twice as often. It also traces a read of the
    learning rate and an identity of the gradient for each variable.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not fast.on("momentum") or not isinstance(optimizer, keras.optimizers.SGD) or not optimizer.momentum:
        return
    own = [getattr(kind, "_backend_update_step", None) for kind in (type(optimizer), keras.optimizers.SGD)]
    if own[0] and own[0] is own[1] and "_backend_update_step" not in vars(optimizer):  # a subclass may do more
        _update_without_replicas(optimizer)
    if type(optimizer) is keras.optimizers.SGD and "update_step" not in vars(optimizer):
        composed = optimizer.update_step

        def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
            if not momentum_step(optimizer, gradient, variable, learning_rate):
                composed(gradient, variable, learning_rate)

        optimizer.update_step = update_step


def _update_without_replicas(optimizer: Any) -> None:
    """Makes an optimizer update its variables in a plain loop if there is one replica."""
    over_replicas = optimizer._backend_update_step

    def update(gradients: Sequence[Any], variables: Sequence[Any], learning_rate: Any) -> None:
        if tf.distribute.has_strategy():
            over_replicas(gradients, variables, learning_rate)
            return
        learning_rate = tf.convert_to_tensor(learning_rate)
        for gradient, variable in zip(gradients, variables, strict=True):
            optimizer.update_step(gradient, _value(variable), learning_rate)

    optimizer._backend_update_step = update


def _value(variable: Any) -> Any:
    """The variable of TensorFlow."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def momentum_step(optimizer: Any, gradient: Any, variable: Any, learning_rate: Any, momentum_now: Any = None) -> bool:
    """Updates a variable and its momentum with one op. Returns False, without an update, if TensorFlow cannot do that here.

    `momentum_now` is a scalar in the place of the optimizer's momentum.
    """
    if not optimizer.momentum or not isinstance(gradient, tf.Tensor) or tf.distribute.has_strategy():
        return False
    place = optimizer._get_variable_index(variable)
    momentum, weight = _value(optimizer.momentums[place]), _value(variable)
    if not all(isinstance(value, tf.Variable) and hasattr(value, "handle") for value in (momentum, weight)):
        return False
    factor = optimizer.momentum if momentum_now is None else momentum_now
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=weight.handle,
        accum=momentum.handle,
        lr=tf.cast(learning_rate, weight.dtype),
        grad=tf.cast(gradient, weight.dtype),
        momentum=tf.cast(factor, weight.dtype) if tf.is_tensor(factor) else constant(factor, weight.dtype),
        use_nesterov=optimizer.nesterov,
    )
    return True
