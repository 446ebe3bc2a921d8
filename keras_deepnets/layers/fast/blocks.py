"""Functions shared by equal blocks, and fast creation of variables."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from keras_deepnets.layers.fast import internals

_BITS = {2: tf.int16, 4: tf.int32, 8: tf.int64}


@contextlib.contextmanager
def one_name_for_all() -> Iterator[None]:
    """A scope in which variables are created in a tenth of the time. Keras' own names and paths do not change.

    TensorFlow creates a kernel for every variable name. Here, all variables have the same name.
    """
    with tf.name_scope(""), tf.variable_creator_scope(lambda create, **kwargs: create(**kwargs | {"name": "variable"})):
        yield


def shared(
    functions: dict[Any, Callable[..., Any]], compute: Callable[..., Any], places: Sequence[int]
) -> Callable[..., Any]:
    """`compute` as a function that is traced once per kind of arguments and stays a single function in the graph.

    If it were inlined, it would be optimised again at every call.

    Args:
        functions: stores the traced functions.
        compute: ``(x, values, …) -> (y, news)``: the output and, in training, the new values of the variables at `places`.
        places: indices of the values that change.

    Returns:
        ``(x, variables, …) -> y``, which reads and updates the variables.
    """
    key = internals.inside_xla()
    if key not in functions:

        def run(x: Any, variables: Sequence[Any], *args: Any) -> Any:
            y, news = compute(x, [tf.convert_to_tensor(variable) for variable in variables], *args)
            if variables and isinstance(variables[0], tf.Variable):
                for place, new in zip(places, news, strict=False):
                    variables[place].assign(new)
                return y, []
            # Integers have no gradients. The gradients of floats would be constant zeros, and TensorFlow would specialise the function for
            # them at every call.
            return y, [tf.bitcast(new, _BITS[new.dtype.size]) for new in news]

        functions[key] = tf.function(
            run, autograph=False, reduce_retracing=True, experimental_attributes={"_noinline": True}
        )

    def call(x: Any, variables: Sequence[Any], *args: Any) -> Any:
        if not tf.distribute.has_strategy():
            for variable in variables:
                if variable.trainable:
                    internals.variable_accessed(variable.value)
            return functions[key](x, [variable.value for variable in variables], *args)[0]
        # Each of these variables consists of one variable per replica.
        y, news = functions[key](x, [tf.convert_to_tensor(variable.value) for variable in variables], *args)
        for place, bits in zip(places, news, strict=False):
            variable = variables[place]
            variable.assign(tf.bitcast(bits, variable.dtype))
        return y

    return call
