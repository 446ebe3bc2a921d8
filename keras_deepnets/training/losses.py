"""Cross entropy with smoothed labels, from whole-number labels or from given distributions."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.errors import InputError


@keras.saving.register_keras_serializable("keras_deepnets")
class SmoothedCrossentropy(keras.losses.Loss):
    """Cross entropy against `(1 - smoothing) * target + smoothing / classes` (Szegedy et al. 2015, section 7).

    `y_true` is `[batch]` whole numbers or `[batch, classes]` distributions; `y_pred` `[batch, classes]`.
    Where probabilities come straight from a softmax, Keras takes the logits behind it, so nothing is lost to rounding; on
    backends other than TensorFlow it cannot, and probabilities below 1e-7 count as that: end the model in logits there.

    Args:
        label_smoothing: in [0, 1).
        from_logits: whether `y_pred` are logits rather than probabilities.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        from_logits: bool = False,
        name: str = "smoothed_crossentropy",
        reduction: str = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.label_smoothing, self.from_logits = label_smoothing, from_logits

    def call(self, y_true, y_pred):
        """The loss of each example, `[batch]`."""
        if len(y_true.shape) < len(y_pred.shape):
            y_true = ops.one_hot(ops.cast(y_true, "int32"), y_pred.shape[-1], dtype=y_pred.dtype)
        return keras.losses.categorical_crossentropy(
            y_true, y_pred, from_logits=self.from_logits, label_smoothing=self.label_smoothing
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return super().get_config() | {"label_smoothing": self.label_smoothing, "from_logits": self.from_logits}


def gives_logits(model: keras.Model) -> bool:
    """Whether a classifier's outputs are logits (its last layer has no activation) rather than probabilities.

    Raises:
        InputError: if its last layer ends in something else than a softmax or nothing.
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
    raise InputError(f"Model {model.name!r} ends in {name!r}; end it in a softmax, or in logits (no activation).")
