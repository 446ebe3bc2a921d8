"""Local response normalisation across channels [Krizhevsky et al. 2012, section 3.3]."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.layers import fast
from keras_deepnets.layers.building import named
from keras_deepnets.layers.precision import at_least_float32


@keras.saving.register_keras_serializable("keras_deepnets")
class LocalResponseNormalization(keras.layers.Layer):
    """Divides each channel by a power of the mean square of its neighbours: ``x / (k + alpha·mean(x²))^beta``.

    The mean goes over `size` neighbouring channels. Channels beyond the first and the last count as zeros. This is Caffe's and torch's
    definition. The paper's own has the sum instead of the mean, so its `alpha` is `size` times smaller.

    Shapes: ``[n, …, c]``, unchanged. It computes in float32 also in mixed precision.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, **kwargs: Any):
        """Raises ValueError for an even `size`."""
        super().__init__(**kwargs)
        if size % 2 == 0:
            raise ValueError(f"LocalResponseNormalization: size={size} must be odd, e.g. 5.")
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The normalised maps."""
        if training and fast.on("local_response"):
            from keras_deepnets.layers.fast.local_response import local_response_norm

            return local_response_norm(inputs, self.size, self.alpha, self.beta, self.k)
        x = ops.cast(inputs, at_least_float32(self.compute_dtype))
        channels, side = x.shape[-1], self.size // 2
        squares = ops.pad(ops.square(x), [(0, 0)] * (len(x.shape) - 1) + [(side, side)])
        total = squares[..., :channels]
        for shift in range(1, self.size):
            total = total + squares[..., shift : shift + channels]
        scale = self.k + self.alpha / self.size * total
        # A power costs ten times as much as two roots.
        root = ops.rsqrt(scale)
        factor = root * ops.sqrt(root) if self.beta == 0.75 else ops.power(scale, -self.beta)
        return ops.cast(x * factor, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        own = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k}
        return super().get_config() | own


def local_response_norm(x: Any, *, name: str | None = None) -> Any:
    """Local response normalisation over five channels, with the numbers of Caffe's GoogLeNet."""
    return LocalResponseNormalization(name=named(name))(x)
