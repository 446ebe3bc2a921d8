"""Cross-entropy losses and accuracies for integer labels or target distributions, such as those of mixed images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_deepnets.errors import InputError


class _SmoothedLoss(keras.losses.Loss):
    """A loss with label smoothing for outputs that are probabilities or logits."""

    default_name = "loss"

    def __init__(
        self,
        label_smoothing: float = 0.0,
        from_logits: bool = False,
        name: str | None = None,
        reduction: str = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name or self.default_name, reduction=reduction, dtype=dtype)
        self.label_smoothing, self.from_logits = label_smoothing, from_logits

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return super().get_config() | {"label_smoothing": self.label_smoothing, "from_logits": self.from_logits}


@keras.saving.register_keras_serializable("keras_deepnets")
class SmoothedCrossentropy(_SmoothedLoss):
    """Cross entropy against `(1 - smoothing) * target + smoothing / classes` (Szegedy et al. 2015, section 7).

    `y_true` is `[batch]` integers or `[batch, classes]` distributions. `y_pred` is `[batch, classes]`.

    If the probabilities come directly from a softmax, Keras uses the logits behind it, so nothing is lost to rounding.
    Backends other than TensorFlow do not support this. There, probabilities below 1e-7 count as 1e-7, so end the model
    in logits.

    Args:
        label_smoothing: Label smoothing in [0, 1).
        from_logits: Whether `y_pred` are logits rather than probabilities.
    """

    default_name = "smoothed_crossentropy"

    def call(self, y_true, y_pred):
        """Return the loss of each example, `[batch]`."""
        if len(y_true.shape) < len(y_pred.shape):
            y_true = ops.one_hot(ops.cast(y_true, "int32"), y_pred.shape[-1], dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(
            y_true, y_pred, from_logits=self.from_logits, label_smoothing=self.label_smoothing
        )


@keras.saving.register_keras_serializable("keras_deepnets")
class BinaryCrossentropy(_SmoothedLoss):
    """The mean over the classes of binary cross entropies (Wightman et al. 2021, section 3.1).

    `y_true` is `[batch]` integers or `[batch, classes]` distributions. Every class with a share of at least `threshold`
    in a mixed image is a full target, as in the paper. `y_pred` is `[batch, classes]` logits, or comes directly from a
    softmax whose logits Keras keeps on TensorFlow.

    Args:
        label_smoothing: Label smoothing in [0, 1). Targets are `1 - smoothing + smoothing / classes` and `smoothing /
            classes`.
        from_logits: Whether `y_pred` are logits rather than probabilities.
        threshold: Minimum share of a class in a mixed image to count as a target.
    """

    default_name = "binary_crossentropy"

    def __init__(self, label_smoothing: float = 0.0, from_logits: bool = False, threshold: float = 0.2, **kwargs: Any):
        super().__init__(label_smoothing, from_logits, **kwargs)
        self.threshold = threshold

    def call(self, y_true, y_pred):
        """Return the loss of each example, `[batch]`."""
        logits = _logits(y_pred, self.from_logits, "binary cross entropy")
        classes = logits.shape[-1]
        if len(y_true.shape) < len(logits.shape):
            y_true = ops.one_hot(ops.cast(y_true, "int32"), classes)
        y_true = ops.cast(y_true >= self.threshold, logits.dtype)
        y_true = y_true * (1.0 - self.label_smoothing) + self.label_smoothing / classes
        return keras.losses.binary_crossentropy(y_true, logits, from_logits=True)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return super().get_config() | {"threshold": self.threshold}


@keras.saving.register_keras_serializable("keras_deepnets")
class SquaredHinge(_SmoothedLoss):
    """The sum over the classes of squared hinge losses, one class against all others (Lee et al. 2015, equation 2).

    It is `max(0, 1 - sign * output) ** 2`, where `sign` is 1 for the example's class and -1 for the others. `y_true` is
    `[batch]` integers or `[batch, classes]` distributions: a share p gives the sign `2 * p - 1`. `y_pred` is as for
    `BinaryCrossentropy`.

    Args:
        label_smoothing: Label smoothing in [0, 1), as in `SmoothedCrossentropy`.
        from_logits: Whether `y_pred` are logits rather than probabilities.
    """

    default_name = "squared_hinge"

    def call(self, y_true, y_pred):
        """Return the loss of each example, `[batch]`."""
        logits = _logits(y_pred, self.from_logits, "the squared hinge loss")
        classes = logits.shape[-1]
        if len(y_true.shape) < len(logits.shape):
            y_true = ops.one_hot(ops.cast(y_true, "int32"), classes)
        y_true = ops.cast(y_true, logits.dtype) * (1.0 - self.label_smoothing) + self.label_smoothing / classes
        return ops.sum(ops.square(ops.relu(1.0 - (2.0 * y_true - 1.0) * logits)), axis=-1)


def _logits(y_pred: Any, from_logits: bool, what: str) -> Any:
    """Return the logits of a model's output, which Keras keeps behind a softmax on TensorFlow."""
    logits = y_pred if from_logits else getattr(y_pred, "_keras_logits", None)
    if logits is None:
        raise InputError(
            f"{what} needs logits, and this model gives probabilities. End it in logits (classifier_activation=None)."
        )
    return logits


@keras.saving.register_keras_serializable("keras_deepnets")
class TopAccuracy(keras.metrics.Mean):
    """Share of the examples whose class is among the `k` highest outputs. Of equal outputs, the first is the higher one.

    `y_true` is `[batch]` integers, or `[batch, classes]` distributions, of which the largest entry counts. `y_pred` is
    `[batch, classes]`.

    Args:
        k: Number of highest outputs. 1 is top-1 accuracy.
    """

    def __init__(self, k: int = 1, name: str = "accuracy", dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self.k = k

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add a batch."""
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.cast(y_pred, "float32")
        if y_true.shape[1:] == y_pred.shape[1:]:
            y_true = ops.argmax(y_true, -1)
        labels = ops.reshape(ops.cast(y_true, "int32"), (-1, 1))
        own = ops.take_along_axis(y_pred, labels, axis=-1)
        # Of equal outputs, the first counts as the higher one, as in argmax. Otherwise a dead network would be perfect.
        first = ops.logical_and(y_pred == own, ops.arange(y_pred.shape[-1], dtype="int32") < labels)
        found = ops.sum(ops.cast(ops.logical_or(y_pred > own, first), "int32"), axis=-1) < self.k
        return super().update_state(ops.cast(found, self.dtype), sample_weight)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return super().get_config() | {"k": self.k}


LOSSES = {
    "crossentropy": SmoothedCrossentropy,
    "binary_crossentropy": BinaryCrossentropy,
    "squared_hinge": SquaredHinge,
}
"""The losses of recipes by name."""


def fading(optimizer: keras.optimizers.Optimizer, steps: int) -> Callable[[], Any]:
    """Return a function for a factor that falls linearly from 1 to 0 over `steps` steps of an optimizer.

    Raises:
        InputError: The backend is JAX. Its training step does not see the optimizer's steps in the loss.
    """
    if keras.backend.backend() == "jax":
        raise InputError("auxiliary_fade=True needs the TensorFlow or PyTorch backend. Set auxiliary_fade=False.")

    def factor() -> Any:
        return ops.maximum(1.0 - ops.cast(optimizer.iterations, "float32") / steps, 0.0)

    return factor


def gives_logits(model: keras.Model) -> bool:
    """Return whether a classifier outputs logits (no activation in its last layer) rather than probabilities.

    Raises:
        InputError: The last layer ends in an activation other than softmax.
    """
    layer = model.layers[-1] if model.layers else model
    while isinstance(layer, keras.Model) and layer.layers:
        layer = layer.layers[-1]
    if isinstance(layer, keras.layers.Softmax):
        return False
    activation = getattr(layer, "activation", None)
    name = getattr(activation, "__name__", None)
    if name == "softmax":
        return False
    if activation is None or name == "linear":
        return True
    raise InputError(f"Model {model.name!r} ends in {name!r}. End it in a softmax, or in logits (no activation).")
