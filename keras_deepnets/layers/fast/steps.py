"""Steps of `fit` and `evaluate` as single functions."""

from __future__ import annotations

from typing import Any

import keras


def single_functions(model: keras.Model) -> None:
    """Make the step functions of a model take their batch outside the graph. Other backends than TensorFlow do so by themselves.

    Keras calls the function of a batch inside a function of the iterator. All variables are then inputs of two functions, and both are
    traced and optimised. `train_on_batch` calls the function of a batch directly. With this, `fit` and `evaluate` do the same.
    """
    if keras.backend.backend() != "tensorflow" or model.run_eagerly or model.steps_per_execution != 1:
        return
    for name in ("train_function", "test_function"):
        function = getattr(model, name)
        if function is not None and not isinstance(function, _OfBatches):
            setattr(model, name, _OfBatches(function))


class _OfBatches:
    """A step function of Keras that gets its batch as from `train_on_batch`."""

    def __init__(self, function: Any):
        self._function = function

    def __call__(self, iterator: Any) -> Any:
        """Run one step. Raise StopIteration at the end of a data set."""
        import tensorflow as tf

        return self._function(iter([next(iterator)]) if isinstance(iterator, tf.data.Iterator) else iterator)
