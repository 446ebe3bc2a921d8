"""Batch normalisation on TensorFlow's fused kernel, and the conv-norm-activation sequences of the papers."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.errors import InputError
from keras_deepnets.layers import fast
from keras_deepnets.layers.building import named, quickly
from keras_deepnets.layers.convolution import conv2d

MOMENTUM = 0.9
EPSILON = 1e-5
"""The papers' and torch's values; Keras' own defaults are 0.99 and 1e-3."""


@keras.saving.register_keras_serializable("keras_deepnets")
class BatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` on TensorFlow's fused kernel.

    Weights, config and results are those of `keras.layers.BatchNormalization` (the moving variance too: it is the biased one).
    bfloat16 and float16 activations are read and written as they are; statistics, gamma and beta stay float32.
    Where the kernel does not apply (other backends, an axis that is not the last of four, masks, renormalisation,
    synchronisation across replicas, float64) Keras' own computation runs.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights."""
        with quickly():
            super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises ``[n, h, w, c]``; in training with the batch's statistics, which update the moving ones."""
        if not self._fuses(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        from keras_deepnets.layers.fast.normalization import fused_batch_norm

        training = bool(training) and self.trainable
        gamma = self.gamma if self.scale else ops.ones_like(self.moving_variance)
        beta = self.beta if self.center else ops.zeros_like(self.moving_mean)
        outputs, mean, variance = fused_batch_norm(
            inputs,
            *(
                ops.convert_to_tensor(value, "float32")
                for value in (gamma, beta, self.moving_mean, self.moving_variance)
            ),
            epsilon=self.epsilon,
            training=training,
        )
        if training:
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + ops.cast(batch, moving.dtype) * (1.0 - self.momentum))
        return outputs

    def _fuses(self, inputs: Any, mask: Any) -> bool:
        if not fast.on("fused_batch_norm") or mask is not None or self.synchronized or getattr(self, "renorm", False):
            return False
        from keras_deepnets.layers.fast.normalization import FUSED_DTYPES

        return len(inputs.shape) == 4 and self.axis in (-1, 3) and inputs.dtype in FUSED_DTYPES


def batch_norm(
    x: Any, *, name: str | None = None, momentum: float = MOMENTUM, epsilon: float = EPSILON, zero_gamma: bool = False
) -> Any:
    """Batch normalisation over the channels of ``[n, h, w, c]`` with the papers' momentum and epsilon.

    Args:
        x: the input.
        name: layer name.
        momentum: share of the old moving statistics that stays.
        epsilon: added to the variance.
        zero_gamma: start gamma at zero, so that a residual branch starts as nothing (Goyal et al. 2017, 5.1).
    """
    gamma = "zeros" if zero_gamma else "ones"
    return BatchNormalization(momentum=momentum, epsilon=epsilon, gamma_initializer=gamma, name=named(name))(x)


GROUPS = 32
"""Of group normalisation, as in the paper's networks (section 4) and timm's."""


def group_norm(x: Any, *, name: str | None = None, zero_gamma: bool = False) -> Any:
    """Normalisation over each image's pixels and each of `GROUPS` groups of the channels of ``[n, h, w, c]``; no moving statistics.

    Y. Wu, K. He: "Group Normalization", ECCV 2018, arXiv:1803.08494. The arguments are those of `batch_norm`.

    Raises:
        InputError: the groups do not divide the channels.
    """
    if x.shape[-1] % GROUPS:
        raise InputError(
            f"{name}: norm='group' makes {GROUPS} groups of the channels, and here are {x.shape[-1]}; give filters that {GROUPS} divides."
        )
    gamma = "zeros" if zero_gamma else "ones"
    return keras.layers.GroupNormalization(GROUPS, epsilon=EPSILON, gamma_initializer=gamma, name=named(name))(x)


@keras.saving.register_keras_serializable("keras_deepnets")
class Activation(keras.layers.Activation):
    """`keras.layers.Activation`; in training on a TensorFlow CPU the ReLU of a sum is one pass over memory, and so is its gradient.

    Config and results are those of `keras.layers.Activation`.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Elementwise."""
        if not training or self.activation is not keras.activations.relu or not fast.on("relu_of_sum"):
            return super().call(inputs)
        from keras_deepnets.layers.fast.sums import relu

        return relu(inputs)


def activation(x: Any, kind: str = "relu", *, name: str | None = None) -> Any:
    """An elementwise activation."""
    return Activation(kind, name=named(name))(x)


def norm_activation(x: Any, sequence: tuple[str, ...], *, name: str, zero_gamma: bool = False) -> Any:
    """What follows or precedes a convolution: any of ``"bn"``, ``"gn"``, ``"relu"`` in turn, as ``{name}_bn``, ``{name}_relu``."""
    norms = {"bn": batch_norm, "gn": group_norm}
    for step in sequence:
        part = f"{name}_{step}"
        x = norms[step](x, name=part, zero_gamma=zero_gamma) if step in norms else activation(x, step, name=part)
    return x


def conv_bn(x: Any, filters: int, kernel_size: int, *, name: str, zero_gamma: bool = False, **kwargs: Any) -> Any:
    """Convolution, BN: ``{name}_conv``, ``{name}_bn``."""
    x = conv2d(x, filters, kernel_size, name=f"{name}_conv", **kwargs)
    return batch_norm(x, name=f"{name}_bn", zero_gamma=zero_gamma)


def conv_bn_relu(x: Any, filters: int, kernel_size: int, *, name: str, **kwargs: Any) -> Any:
    """Convolution, BN, ReLU: ``{name}_conv``, ``{name}_bn``, ``{name}_relu``."""
    return activation(conv_bn(x, filters, kernel_size, name=name, **kwargs), name=f"{name}_relu")
