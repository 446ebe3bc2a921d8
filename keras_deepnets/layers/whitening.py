"""Contrast normalisation and whitening of images inside a model, as in the papers before batch normalisation.

[G13] is I. Goodfellow et al.: "Maxout Networks", ICML 2013, arXiv:1302.4389, section 4.2. The numbers are those of its published code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_deepnets.layers.building import named
from keras_deepnets.layers.precision import at_least_float32

SCALE = 55.0
"""Norm of a normalised image [G13]. An image of 32×32×3 values then has a standard deviation of about 1."""
FILTER_BIAS = 0.1
"""Added to the variance of every component before whitening [G13]."""


@keras.saving.register_keras_serializable("keras_deepnets")
class GlobalContrastNormalization(keras.layers.Layer):
    """Subtracts the mean of each image and scales the image to a fixed norm.

    ``scale · (x - mean(x)) / ‖x - mean(x)‖``, with the mean and the norm over all pixels and channels of an image. A constant image
    becomes zero. It computes in float32 also in mixed precision. The output has the policy's compute dtype.

    Shapes: ``[n, h, w, c]``, unchanged.

    Args:
        scale: norm of the output.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    def __init__(self, scale: float = SCALE, **kwargs: Any):
        """Raises ValueError if `scale` is not above 0."""
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        if not scale > 0:
            raise ValueError(f"GlobalContrastNormalization: scale={scale} must be above 0.")
        self.scale = float(scale)
        self.built = True

    def call(self, inputs: Any) -> Any:
        """The normalised images."""
        x = ops.cast(inputs, at_least_float32(self.compute_dtype))
        x = x - ops.mean(x, axis=(1, 2, 3), keepdims=True)
        norm = ops.sqrt(ops.sum(ops.square(x), axis=(1, 2, 3), keepdims=True))
        return ops.cast(x * (self.scale / ops.maximum(norm, 1e-8)), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output: the input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"scale": self.scale}


@keras.saving.register_keras_serializable("keras_deepnets")
class ZCAWhitening(keras.layers.Layer):
    """Multiplies the values of an image with a symmetric matrix, so that they are uncorrelated over the data set that it was fitted to.

    ``(x - mean) · V · diag(1 / sqrt(λ + bias)) · Vᵀ`` for the eigenvectors V and eigenvalues λ of the covariance of the images. Mean and
    matrix are weights that are not trained. They are zero and the identity until `fit` is called. It computes in float32 also in
    mixed precision. The output has the policy's compute dtype.

    Shapes: ``[n, h, w, c]`` of fixed size, unchanged.

    Args:
        bias: added to the variances. The larger it is, the less noise is amplified.
        **kwargs: arguments of `keras.layers.Layer`.
    """

    LARGEST = 4096
    """Maximum number of values of an image. The matrix has the square of this number of entries."""

    def __init__(self, bias: float = FILTER_BIAS, **kwargs: Any):
        """Raises ValueError if `bias` is negative."""
        kwargs.setdefault("autocast", False)
        super().__init__(**kwargs)
        if bias < 0:
            raise ValueError(f"ZCAWhitening: bias={bias} must not be negative.")
        self.bias = float(bias)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights. Raises ValueError if the size is unknown or has more than `LARGEST` values."""
        if None in input_shape[1:]:
            raise ValueError(f"ZCAWhitening: the input must have a fixed size; its shape is {tuple(input_shape)}.")
        values = math.prod(side or 0 for side in input_shape[1:])
        if values > self.LARGEST:
            raise ValueError(
                f"ZCAWhitening: an image of {tuple(input_shape[1:])} has {values:,} values; at most {self.LARGEST:,} can be whitened."
            )
        self.mean = self.add_weight(name="mean", shape=(values,), initializer="zeros", trainable=False, autocast=False)
        self.matrix = self.add_weight(
            name="matrix", shape=(values, values), initializer="identity", trainable=False, autocast=False
        )

    def fit(self, batches: Iterable[Any]) -> None:
        """Sets mean and matrix from batches of images ``[n, h, w, c]``. Sums are in float64.

        Raises ValueError if there is nothing to fit to.
        """
        size = self.mean.shape[0]
        count, total, products = 0, np.zeros(size), np.zeros((size, size))
        for batch in batches:
            values = np.asarray(batch, "float64").reshape(len(batch), -1)
            count, total = count + len(values), total + values.sum(0)
            products += values.T @ values
        if not count:
            raise ValueError("ZCAWhitening: the batches are empty, so there is nothing to fit to.")
        mean = total / count
        covariance = products / count - np.outer(mean, mean) + self.bias * np.eye(size)
        variances, vectors = np.linalg.eigh(covariance)
        self.mean.assign(mean.astype(self.mean.dtype))
        self.matrix.assign(((vectors / np.sqrt(variances)) @ vectors.T).astype(self.matrix.dtype))

    def call(self, inputs: Any) -> Any:
        """The whitened images."""
        values = ops.reshape(ops.cast(inputs, at_least_float32(self.compute_dtype)), (-1, self.mean.shape[0]))
        values = ops.matmul(values - ops.convert_to_tensor(self.mean), ops.convert_to_tensor(self.matrix))
        return ops.cast(ops.reshape(values, (-1, *inputs.shape[1:])), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output: the input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"bias": self.bias}


def normalize_contrast(x: Any, scale: float = SCALE, *, name: str = "contrast") -> Any:
    """Global contrast normalisation of images inside the model."""
    return GlobalContrastNormalization(scale, name=named(name))(x)
