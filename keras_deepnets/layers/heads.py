"""Global pooling and the classifier."""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops

from keras_deepnets.layers.building import named
from keras_deepnets.layers.precision import at_least_float32
from keras_deepnets.layers.unnormalized import RELU_GAIN, biased_conv2d

POOLINGS = ("avg", "max")


def pool_features(x: Any, pooling: str, *, dtype: str | None = None) -> Any:
    """Global pooling of ``[n, h, w, c]`` to ``[n, c]``. `pooling` is ``"avg"`` or ``"max"``; `dtype` overrides the policy."""
    layer = keras.layers.GlobalAveragePooling2D if pooling == "avg" else keras.layers.GlobalMaxPooling2D
    return layer(name=named(f"{pooling}_pool"), data_format="channels_last", dtype=dtype)(x)


def map_classifier(
    x: Any,
    classes: int,
    activation: Any,
    *,
    map_activation: Any = None,
    stddev: float | None = None,
    name: str = "predictions",
) -> Any:
    """A 1×1 convolution with one channel per class, then global average pooling (Lin et al. 2014, section 3.2).

    It maps ``[n, h, w, c]`` to ``[n, classes]`` and computes in float32 also in mixed precision.

    Args:
        x: the last feature map.
        classes: number of classes.
        activation: activation of the averages; None returns logits. It is a layer ``{name}_activation``.
        map_activation: activation of the class maps before pooling, or None.
        stddev: initial standard deviation of the weights. None: as for `biased_conv2d`.
        name: name of the convolution.
    """
    gain = RELU_GAIN if map_activation == "relu" else 1.0
    x = biased_conv2d(x, classes, 1, activation=map_activation, gain=gain, stddev=stddev, name=name, dtype=_full())
    x = pool_features(x, "avg", dtype=_full())
    if activation is None:
        return x
    return keras.layers.Activation(activation, dtype=_full(), name=named(f"{name}_activation"))(x)


@keras.saving.register_keras_serializable("keras_deepnets")
class SlowDense(keras.layers.Dense):
    """`keras.layers.Dense` with the gradients of its weights multiplied by a factor. The gradient of its input is unchanged.

    With SGD, the factor acts as a factor of the learning rate, which Keras layers do not have.

    Args:
        units: number of outputs.
        gradient_factor: factor, above 0.
        **kwargs: further arguments of `keras.layers.Dense`.
    """

    def __init__(self, units: int, gradient_factor: float = 1.0, **kwargs: Any):
        """Raises ValueError if the factor is not above 0."""
        super().__init__(units, **kwargs)
        if gradient_factor <= 0:
            raise ValueError(f"SlowDense: gradient_factor={gradient_factor} must be above 0.")
        self.gradient_factor = gradient_factor

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """``[n, c]`` to ``[n, units]``."""
        outputs = ops.matmul(inputs, self._slow(self.kernel))
        if self.use_bias:
            outputs = ops.add(outputs, self._slow(self.bias))
        return outputs if self.activation is None else self.activation(outputs)

    def _slow(self, weight: Any) -> Any:
        weight = ops.convert_to_tensor(weight)
        still = ops.stop_gradient(weight)
        return still + self.gradient_factor * (weight - still)  # exactly the weight, because the difference is 0

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"gradient_factor": self.gradient_factor}


def classifier(
    x: Any,
    classes: int,
    activation: Any,
    *,
    gradient_factor: float = 1.0,
    kernel_constraint: Any = None,
    name: str = "predictions",
) -> Any:
    """A fully connected layer to ``[n, classes]``, after average pooling if `x` is a feature map.

    It computes in float32 also in mixed precision. A `gradient_factor` other than 1 makes it a `SlowDense`. `kernel_constraint` is
    that of `keras.layers.Dense`.
    """
    if len(x.shape) == 4:
        x = pool_features(x, "avg", dtype=_full())
    # Uniform with variance 1 / (3·fan_in): the default of the papers' own code.
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    kind = keras.layers.Dense if gradient_factor == 1 else functools.partial(SlowDense, gradient_factor=gradient_factor)
    return kind(
        classes,
        activation=activation,
        kernel_initializer=initializer,
        kernel_constraint=kernel_constraint,
        dtype=_full(),
        name=named(name),
    )(x)


def _full() -> str:
    """The dtype of outputs and their sums: float32 also in mixed precision."""
    return at_least_float32(keras.config.dtype_policy().compute_dtype)
