"""The parametric rectifier [He et al. 2015, "Delving Deep into Rectifiers", arXiv:1502.01852, section 2.1]."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.layers import fast
from keras_deepnets.layers.building import named

SLOPE = 0.25
"""Initial slope of the paper."""


@keras.saving.register_keras_serializable("keras_deepnets")
class PReLU(keras.layers.Layer):
    """The parametric rectifier ``max(x, 0) + alpha·min(x, 0)`` with one slope per channel, or one for all channels.

    `keras.layers.PReLU` has a slope per pixel by default. Its slopes have the dimensions of a feature map, and optimizers take them for
    a kernel. Here they are a vector. The optimizers of this library never decay them. Weight decay would push them to zero, that is,
    to a ReLU (section 2.1). In training on CPUs, a compiled pass is faster than Keras' operations.

    Shapes: ``[n, …, c]``, unchanged.
    """

    def __init__(self, shared: bool = False, slope: float = SLOPE, **kwargs: Any):
        """`shared` is whether all channels have the same slope. `slope` is the initial value."""
        super().__init__(**kwargs)
        self.shared, self.slope = shared, slope

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the slopes, ``[c]`` or ``[1]``."""
        self.alpha = self.add_weight(
            shape=(1 if self.shared else input_shape[-1],),
            initializer=keras.initializers.Constant(self.slope),
            name="alpha",
        )
        self.alpha.decays = False  # for the optimizers of this library

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Applies the rectifier elementwise."""
        alpha = ops.convert_to_tensor(self.alpha)
        if training and fast.on("prelu"):
            from keras_deepnets.layers.fast.sums import prelu

            return prelu(inputs, alpha, rectified)
        return rectified(inputs, alpha)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"shared": self.shared, "slope": self.slope}


def rectified(x: Any, alpha: Any) -> Any:
    """``max(x, 0) + alpha·min(x, 0)``."""
    # TFLite makes one operator of exactly this form, with slopes of one dimension less than the input. In int8 that is more exact.
    slopes = ops.reshape(alpha, (1,) * (len(x.shape) - 2) + (-1,))
    return ops.relu(x) + ops.negative(slopes) * ops.relu(ops.negative(x))


def prelu(x: Any, *, shared: bool = False, name: str | None = None) -> Any:
    """The parametric rectifier, with the initial slope of the paper."""
    return PReLU(shared, name=named(name))(x)
