"""Batch normalisation on TensorFlow's fused kernel, group normalisation, and the papers' sequences of convolution, BN and activation."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.errors import InputError
from keras_deepnets.layers import fast, replicas
from keras_deepnets.layers.building import named, quickly
from keras_deepnets.layers.convolution import conv2d
from keras_deepnets.layers.precision import at_least_float32

MOMENTUM = 0.9
EPSILON = 1e-5
"""The values of the papers and of torch. Keras' defaults are 0.99 and 1e-3."""


@keras.saving.register_keras_serializable("keras_deepnets")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` on TensorFlow's fused kernel.

    Weights, config and results are those of `keras.layers.BatchNormalization`, including the moving variance, which is the biased one.
    bfloat16 and float16 activations are read and written without a cast to float32. Statistics, gamma and beta stay float32.

    Keras' own computation runs where the kernel does not apply. These cases are other backends, masks, renormalisation, float64,
    `synchronized=True`, and an axis that is not the last of four. On processors without AVX-512, it also runs in inference in float32,
    where TensorFlow's kernel would make the convolution before it slow.

    In training by several replicas, the statistics are those of the images of all of them if `layers.replicas` says so.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights."""
        with quickly():
            super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises ``[n, h, w, c]``. Training uses the batch's statistics, which also update the moving statistics."""
        inference = not training
        training = bool(training) and self.trainable
        if training and mask is None and self._spans_replicas(inputs):
            return self._over_replicas(inputs)
        if not self._fuses(inputs, mask) or (inference and self._slows_convolution(inputs)):
            return super().call(inputs, training=training, mask=mask)
        from keras_deepnets.layers.fast.normalization import fused_batch_norm

        gamma = self.gamma if self.scale else ops.ones_like(self.moving_variance)
        beta = self.beta if self.center else ops.zeros_like(self.moving_mean)
        gamma, beta, mean, variance = (
            ops.convert_to_tensor(value, "float32") for value in (gamma, beta, self.moving_mean, self.moving_variance)
        )
        outputs, mean, variance = fused_batch_norm(inputs, gamma, beta, mean, variance, self.epsilon, training)
        if training:
            self.update_moving(mean, variance)
        return outputs

    def update_moving(self, mean: Any, variance: Any) -> None:
        """Updates the moving statistics with those of a batch."""
        average = _moving_average
        if fast.on("fused_batch_norm"):
            from keras_deepnets.layers.fast.normalization import moving_average as average
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(average(moving.value, batch, self.momentum))

    def _spans_replicas(self, inputs: Any) -> bool:
        """Whether the statistics are those of the images of all replicas."""
        return replicas.synchronizes() and len(inputs.shape) == 4 and self.axis in (-1, 3)

    def _over_replicas(self, inputs: Any) -> Any:
        from keras_deepnets.layers.fast.synchronized import synchronized_batch_norm

        gamma = self.gamma if self.scale else ops.ones_like(self.moving_variance)
        beta = self.beta if self.center else ops.zeros_like(self.moving_mean)
        dtype = at_least_float32(self.compute_dtype)
        gamma, beta, pivot = (
            ops.cast(ops.convert_to_tensor(value), dtype) for value in (gamma, beta, self.moving_mean)
        )
        outputs, mean, variance = synchronized_batch_norm(inputs, gamma, beta, pivot, self.epsilon)
        self.update_moving(mean, variance)
        return outputs

    def _fuses(self, inputs: Any, mask: Any) -> bool:
        spans = self.synchronized or replicas.synchronizes()
        if not fast.on("fused_batch_norm") or mask is not None or spans or getattr(self, "renorm", False):
            return False
        from keras_deepnets.layers.fast.normalization import FUSED_DTYPES

        return len(inputs.shape) == 4 and self.axis in (-1, 3) and inputs.dtype in FUSED_DTYPES

    def _slows_convolution(self, inputs: Any) -> bool:
        """Whether the fused kernel is slower in inference on this machine. An export may run on another one."""
        from keras_deepnets.layers.fast.convolution import is_exporting
        from keras_deepnets.layers.fast.internals import fuses_slowly

        return inputs.dtype == "float32" and fuses_slowly() and not is_exporting()


def _moving_average(moving: Any, batch: Any, momentum: float) -> Any:
    return moving * momentum + ops.cast(batch, moving.dtype) * (1.0 - momentum)


def batch_norm(
    x: Any, *, name: str | None = None, momentum: float = MOMENTUM, epsilon: float = EPSILON, zero_gamma: bool = False
) -> Any:
    """Batch normalisation over the channels of ``[n, h, w, c]`` with the papers' momentum and epsilon.

    Args:
        x: the input.
        name: layer name.
        momentum: weight of the old moving statistics in an update.
        epsilon: number added to the variance.
        zero_gamma: initialise gamma to zero, so that a residual branch initially adds zero (Goyal et al. 2017, 5.1).
    """
    gamma = "zeros" if zero_gamma else "ones"
    return BatchNormalization(momentum=momentum, epsilon=epsilon, gamma_initializer=gamma, name=named(name))(x)


GROUPS = 32
"""Groups of group normalisation, as in the paper's networks (section 4) and in timm."""


def group_norm(x: Any, *, name: str | None = None, zero_gamma: bool = False) -> Any:
    """Normalises ``[n, h, w, c]`` over the pixels of each image and each of `GROUPS` channel groups. It has no moving statistics.

    Y. Wu, K. He: "Group Normalization", ECCV 2018, arXiv:1803.08494. The arguments are those of `batch_norm`.

    Raises:
        InputError: the number of channels is not divisible by `GROUPS`.
    """
    if x.shape[-1] % GROUPS:
        raise InputError(
            f"{name}: norm='group' divides the channels into {GROUPS} groups, but there are {x.shape[-1]} channels; "
            f"give filters divisible by {GROUPS}."
        )
    gamma = "zeros" if zero_gamma else "ones"
    return keras.layers.GroupNormalization(GROUPS, epsilon=EPSILON, gamma_initializer=gamma, name=named(name))(x)


@keras.saving.register_keras_serializable("keras_deepnets")
class Activation(keras.layers.Activation):
    """`keras.layers.Activation` with a faster ReLU of sums on TensorFlow CPUs.

    In training, the ReLU of a sum takes one pass over memory, and so does its gradient. Config and results are those of
    `keras.layers.Activation`.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Applies the activation elementwise."""
        if not training or self.activation is not keras.activations.relu or not fast.on("relu_of_sum"):
            return super().call(inputs)
        from keras_deepnets.layers.fast.sums import relu

        return relu(inputs)


def activation(x: Any, kind: str = "relu", *, name: str | None = None) -> Any:
    """An elementwise activation."""
    return Activation(kind, name=named(name))(x)


def norm_activation(x: Any, sequence: tuple[str, ...], *, name: str, zero_gamma: bool = False) -> Any:
    """The layers before or after a convolution: any of ``"bn"``, ``"gn"`` and ``"relu"`` in order, named ``{name}_bn``, ``{name}_relu``."""
    norms = {"bn": batch_norm, "gn": group_norm}
    for step in sequence:
        part = f"{name}_{step}"
        x = norms[step](x, name=part, zero_gamma=zero_gamma) if step in norms else activation(x, step, name=part)
    return x


def conv_bn(
    x: Any,
    filters: int,
    kernel_size: int,
    *,
    name: str,
    zero_gamma: bool = False,
    epsilon: float = EPSILON,
    **kwargs: Any,
) -> Any:
    """Convolution and BN, named ``{name}_conv`` and ``{name}_bn``."""
    x = conv2d(x, filters, kernel_size, name=f"{name}_conv", **kwargs)
    return batch_norm(x, name=f"{name}_bn", zero_gamma=zero_gamma, epsilon=epsilon)


def conv_bn_relu(x: Any, filters: int, kernel_size: int, *, name: str, **kwargs: Any) -> Any:
    """Convolution, BN and ReLU, named ``{name}_conv``, ``{name}_bn`` and ``{name}_relu``."""
    return activation(conv_bn(x, filters, kernel_size, name=name, **kwargs), name=f"{name}_relu")
