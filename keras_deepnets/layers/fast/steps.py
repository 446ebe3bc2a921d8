"""Steps of `fit` and `evaluate` as single functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf


def single_function(model: keras.Model, step: Callable[[Any], Any]) -> Any:
    """Return a step of a model as one compiled function, for use as its `train_function` or `test_function`.

    Keras calls the function of a batch inside a function of the iterator. All variables are then inputs of two functions, and both are
    traced and optimised.

    Args:
        model: a compiled model.
        step: its `train_step` or `test_step`.

    Returns:
        The function, or None if the model needs that of Keras: with a strategy, several steps per call, or no graph.
    """
    if model.run_eagerly or model.steps_per_execution != 1:
        return None
    if tf.distribute.has_strategy() or model.distribute_strategy is not tf.distribute.get_strategy():
        return None
    return _Step(step, model.jit_compile)


class _Step:
    """A step of training or evaluation that takes its batch outside the graph."""

    def __init__(self, step: Callable[[Any], Any], jit_compile: bool):
        self._function = tf.function(step, reduce_retracing=True, jit_compile=jit_compile, autograph=False)
        self._traced: list[Any] = []

    def __call__(self, iterator: Any) -> Any:
        """Run the step on the next batch. Raise StopIteration at the end of the data."""
        if isinstance(iterator, tf.data.Iterator) and iterator.element_spec not in self._traced:
            # The last batch may be smaller. One trace for the shapes of all batches serves it too.
            self._function.get_concrete_function(_without_optionals(iterator.element_spec))
            self._traced.append(iterator.element_spec)
        return self._function(_without_optionals(next(iterator)))


def _without_optionals(batch: Any) -> Any:
    """Return a batch, or the type of one, with None for each missing part, as in Keras."""
    missing = (tf.experimental.Optional, tf.OptionalSpec, tf.NoneTensorSpec)
    return keras.tree.map_structure(lambda part: None if isinstance(part, missing) else part, batch)
