"""Training of one network by several workers: what they share, and when.

Each worker trains on its share of every batch. Gradients are averaged in every step, so the weights of all workers stay equal.
Metrics, and the moving statistics of batch normalisation, are shared when an epoch ends and when a checkpoint is written.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_deepnets.distribution import Group

_SLOW = 1.5
"""A worker that needs this many times the median time for its own work is reported."""


class Waiting:
    """Time in seconds that this worker spent in sums of gradients. The sums end when the slowest worker has its gradients."""

    def __init__(self) -> None:
        import tensorflow as tf

        self._total = tf.Variable(0.0, dtype="float64", trainable=False)

    def averaged(self, group: Group, gradients: Sequence[Any]) -> list[Any]:
        """The means of gradients over the workers. None stays None."""
        import tensorflow as tf

        known = [tf.convert_to_tensor(gradient) for gradient in gradients if gradient is not None]
        with tf.control_dependencies(known):
            begin = tf.timestamp()
        with tf.control_dependencies([begin]):
            sums = group.sum([tf.identity(gradient) for gradient in known])
        with tf.control_dependencies(sums):
            spent = self._total.assign_add(tf.timestamp() - begin)
        with tf.control_dependencies([spent]):
            means = iter([total / group.size for total in sums])
            return [None if gradient is None else tf.identity(next(means)) for gradient in gradients]

    def taken(self) -> float:
        """The seconds since the last call."""
        seconds = float(self._total.numpy())
        self._total.assign(0.0)
        return seconds


def share_gradients(optimizer: keras.optimizers.Optimizer, group: Group, waiting: Waiting) -> None:
    """Make an optimizer apply the means of the gradients of all workers.

    The mean comes before the loss scale is removed, and before clipping and decay, as if one process had computed the whole batch.
    """
    apply = optimizer.apply

    def apply_mean(grads: Any, trainable_variables: Any = None) -> Any:
        return apply(waiting.averaged(group, grads), trainable_variables)

    optimizer.apply = apply_mean


def clip_sums(optimizer: keras.optimizers.Optimizer, devices: Any) -> None:
    """Make an optimizer on several devices clip the norm of the whole batch's gradients.

    Keras clips the gradients of each device before it adds them up.

    Args:
        optimizer: Optimizer in the scope of a `MirroredStrategy`. Its `global_clipnorm` is removed.
        devices: The devices, as `distribution.Devices`.
    """
    inner: Any = getattr(optimizer, "inner_optimizer", optimizer)
    norm, apply = inner.global_clipnorm, inner.apply
    if norm is None:
        return
    inner.global_clipnorm = None

    def apply_clipped(grads: Any, trainable_variables: Any = None) -> Any:
        import tensorflow as tf

        known = [tf.convert_to_tensor(gradient) for gradient in grads if gradient is not None]
        clipped, _ = tf.clip_by_global_norm(devices.sum(known), norm)
        # Keras adds up what the devices return.
        parts = iter([gradient / devices.size for gradient in clipped])
        return apply([None if gradient is None else next(parts) for gradient in grads], trainable_variables)

    inner.apply = apply_clipped


def share_from_chief(variables: Sequence[Any], group: Group) -> None:
    """Give every worker the chief's values of some variables."""
    values = [np.asarray(keras.ops.convert_to_numpy(variable)) for variable in variables]
    wide = [_summable(value) for value in values]
    sent = wide if group.is_chief else [np.zeros_like(value) for value in wide]
    for variable, total in zip(variables, group.sum(sent), strict=True):
        variable.assign(keras.ops.cast(total, variable.dtype))


def average_statistics(model: keras.Model, group: Group) -> None:
    """Set the moving statistics of batch normalisation to their means over the workers.

    Each update of these statistics is linear. So it does not matter when and how often they are averaged.
    """
    if group.size == 1 or group.one_program:
        return
    moving = [weight for weight in model.weights if weight.name in ("moving_mean", "moving_variance")]
    # float64: the mean of equal values is that value.
    sums = group.sum([np.asarray(keras.ops.convert_to_numpy(weight), "float64") for weight in moving])
    for weight, total in zip(moving, sums, strict=True):
        weight.assign(keras.ops.cast(total / group.size, weight.dtype))


def vary_seeds(generators: Sequence[Any], group: Group) -> None:
    """Give each worker its own random numbers, e.g. for dropout. The chief keeps those of a single process.

    Args:
        generators: State variables of seed generators, equal on all workers.
        group: The workers.
    """
    for state in generators:
        value = np.array(keras.ops.convert_to_numpy(state), np.int64)
        value[0] = (value[0] + group.index * 0x9E3779B1) % (1 << 32)
        state.assign(value.astype(keras.backend.standardize_dtype(state.dtype)))


def _summable(value: np.ndarray) -> np.ndarray:
    """The same values in a dtype that can be summed over workers."""
    if value.dtype in (np.float32, np.float64):
        return value
    return value.astype("int64" if value.dtype.kind in "biu" else "float32")


class SharedMetrics(keras.callbacks.Callback):
    """Make the metrics of an epoch those of all workers' images. Place this callback first.

    Keras' metrics are sums over images. This callback adds the sums of all workers.

    Args:
        group: The workers.
        waiting: Where the time of the sums of gradients is measured. None: all workers compute one program.
        say: Called with one line if a worker is slow. None: print it to stderr.
    """

    def __init__(self, group: Group, waiting: Waiting | None, say: Callable[[str], None] | None = None):
        super().__init__()
        self._group, self._waiting = group, waiting
        self._say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        self._begin = 0.0
        self._steps = 0
        self._train: dict[str, float] | None = None
        self._held: dict[str, float] = {}

    def on_epoch_begin(self, epoch, logs=None):
        """Forget the metrics of the epoch before."""
        self._steps, self._train, self._held = 0, None, {}

    def on_train_batch_begin(self, batch, logs=None):
        """Count the steps. The first one is not timed, because TensorFlow may trace the graph in it."""
        self._steps = batch
        if batch == 1:
            self._begin = time.perf_counter()
            if self._waiting is not None:
                self._waiting.taken()

    def on_test_begin(self, logs=None):
        """Add up the training metrics before validation resets them. Average the statistics that validation uses."""
        self._training_ends()
        average_statistics(self.model, self._group)

    def on_test_end(self, logs=None):
        """Add up the validation metrics."""
        self._held = self._total()

    def on_epoch_end(self, epoch, logs=None):
        """Replace this worker's metrics."""
        self._training_ends()
        if logs is not None:
            logs.update(self._train or {})
            logs.update({f"val_{name}": value for name, value in self._held.items()})

    def _training_ends(self) -> None:
        if self._train is None:
            self._train = self._result() if self._group.one_program else self._total()
            if self._waiting is not None:
                self._report(time.perf_counter() - self._begin, self._waiting.taken())

    def _total(self) -> dict[str, float]:
        sum_metrics(self.model, self._group)
        return self._result()

    def _result(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.model.get_metrics_result().items()}

    def _report(self, seconds: float, waited: float) -> None:
        """Name a worker that the others wait for.

        Synchronised batch normalisation hides it, because all workers then wait in every layer.
        """
        if not self._steps:
            return
        own = np.zeros(self._group.size, np.float64)
        own[self._group.index] = max(seconds - waited, 0.0) / self._steps
        times = [float(each) for each in np.asarray(self._group.sum([own])[0])]
        slowest, typical = max(times), statistics.median_low(times)
        if self._group.is_chief and slowest > _SLOW * typical and slowest - typical > 0.005:
            name = self._group.name_of(times.index(slowest))
            self._say(
                f"{name.capitalize()} is slow: it needs {slowest:.3f} s per step without the exchange, and the others need {typical:.3f} s."
            )


def sum_metrics(model: keras.Model, group: Group) -> None:
    """Add the metrics of all workers, in place."""
    if group.size == 1:
        return
    variables = model.metrics_variables
    for variable, total in zip(variables, group.sum([variable.value for variable in variables]), strict=True):
        variable.assign(total)
