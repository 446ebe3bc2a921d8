"""Dense connectivity [Huang et al. 2016] in memory that grows linearly with depth.

Layer l of a dense block reads the maps of all layers before it: concatenation and ReLU store about l²k/2 maps each, although the
block makes only lk. Pleiss et al. 2017 ("Memory-Efficient Implementation of DenseNets", arXiv:1707.06990) compute these cheap
parts again in the backward pass. Here that is one layer: concatenated maps in, convolution out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_deepnets.layers import fast
from keras_deepnets.layers.building import named
from keras_deepnets.layers.convolution import KERNEL_INITIALIZER, Conv2D
from keras_deepnets.layers.normalization import EPSILON, MOMENTUM, BatchNormalization


@keras.saving.register_keras_serializable("keras_deepnets")
class Concatenate(keras.layers.Concatenate):
    """`keras.layers.Concatenate`; in training on a TensorFlow CPU its gradient, a sum in a dense block, is one pass over memory.

    Config and results are those of `keras.layers.Concatenate`.
    """

    def call(self, inputs: Sequence[Any], training: bool | None = None) -> Any:
        """``[n, h, w, c_i]`` each to ``[n, h, w, c]``."""
        last = self.axis in (-1, len(inputs[0].shape) - 1)
        if not training or not last or keras.backend.backend() != "tensorflow":
            return super().call(inputs)
        from keras_deepnets.layers.fast.normalization import made_of
        from keras_deepnets.layers.fast.sums import concatenate

        total = concatenate(inputs) if fast.on("concatenation_gradient") else super().call(inputs)
        made_of(total, inputs)
        return total


def concatenate(maps: Sequence[Any], *, name: str | None = None) -> Any:
    """Feature maps side by side, along the channels."""
    return Concatenate(name=named(name))(maps)


@keras.saving.register_keras_serializable("keras_deepnets")
class RecomputedConv2D(keras.layers.Layer):
    """BN, ReLU and a convolution of concatenated feature maps that keeps only the maps for the backward pass.

    Concatenation, BN and ReLU are computed again where the gradient needs them; the batch's statistics are kept, the moving ones are
    updated once, and the convolution is not repeated. Outputs and gradients are those of the three layers to rounding.
    The two that have weights are its sublayers `norm` and `convolution`; their weights have the paths and the order that they
    have in a network of separate layers.

    On TensorFlow this is a custom gradient around the fused kernels; on JAX and torch it is `keras.remat` of the same computation.
    Called with ``training=False``, and where the fused kernels do not apply (float64), the three layers run as they are. On
    TensorFlow the saving is whole where network and gradient are in one `tf.function`, as in `fit`; eager tapes keep `joined`, and
    XLA's CPU compiler (``jit_compile=True``) reorders so much that about a fifth is saved. Results are the same everywhere.

    Args:
        filters: channels of the convolution.
        kernel_size: side of its kernel, odd; the stride is 1.
        norm_name: name of the BN.
        convolution_name: name of the convolution.
        momentum: of the BN.
        epsilon: of the BN.
        kernel_initializer: of the convolution; He's by default.

    Shapes: ``[joined, *maps]`` to ``[n, h, w, filters]``; `joined` is the `maps` side by side, ``[n, h, w, c]``.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 1,
        *,
        norm_name: str | None = None,
        convolution_name: str | None = None,
        momentum: float = MOMENTUM,
        epsilon: float = EPSILON,
        kernel_initializer: Any = None,
        **kwargs: Any,
    ):
        """Raises ValueError for an even kernel."""
        super().__init__(**kwargs)
        initializer = kernel_initializer or keras.initializers.VarianceScaling(**KERNEL_INITIALIZER)
        self.norm = BatchNormalization(momentum=momentum, epsilon=epsilon, dtype=self.dtype_policy, name=norm_name)
        self.convolution = Conv2D(
            filters,
            kernel_size,
            padding="symmetric",
            use_bias=False,
            data_format="channels_last",
            kernel_initializer=initializer,
            dtype=self.dtype_policy,
            name=convolution_name,
        )

    def build(self, input_shape: Sequence[tuple[int | None, ...]]) -> None:
        """Creates the weights. Raises ValueError where the maps do not make up the joined ones."""
        joined, *maps = input_shape
        if not maps or sum(shape[-1] for shape in maps) != joined[-1]:
            raise ValueError(
                f"RecomputedConv2D: the inputs must be [joined, *maps] where the maps' channels add up to the joined; "
                f"the shapes are {[tuple(shape) for shape in input_shape]}."
            )
        for layer in (self.norm, self.convolution):
            # Weight paths as those of a layer of the network, not of a layer in a layer.
            with keras.name_scope(layer.name, caller=layer, override_parent="/"):
                layer.build(joined)

    def call(self, inputs: Sequence[Any], training: bool | None = None) -> Any:
        """``[joined, *maps]`` to the convolution's output."""
        joined, *maps = inputs
        on_tensorflow = keras.backend.backend() == "tensorflow"
        if not training or (on_tensorflow and not (fast.on("recomputation") and self.norm._fuses(joined, None))):
            return self.convolution(ops.relu(self.norm(joined, training=training)))
        use_batch = bool(self.norm.trainable)
        run = self._on_tensorflow if on_tensorflow else self._rematerialised
        outputs, mean, variance = run(joined, maps, use_batch)
        if use_batch:
            momentum = self.norm.momentum
            for moving, batch in ((self.norm.moving_mean, mean), (self.norm.moving_variance, variance)):
                moving.assign(moving * momentum + ops.cast(batch, moving.dtype) * (1.0 - momentum))
        return outputs

    def _on_tensorflow(self, joined: Any, maps: list[Any], use_batch: bool) -> tuple[Any, Any, Any]:
        from keras_deepnets.layers.fast.dense_connectivity import norm_relu_conv

        norm = self.norm
        gamma, beta, mean, variance = (
            ops.convert_to_tensor(value, "float32")
            for value in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        )
        return norm_relu_conv(
            joined,
            maps,
            gamma,
            beta,
            (mean, variance),
            ops.convert_to_tensor(self.convolution.kernel, self.compute_dtype),
            epsilon=norm.epsilon,
            use_batch=use_batch,
        )

    def _rematerialised(self, joined: Any, maps: list[Any], use_batch: bool) -> tuple[Any, Any, Any]:
        norm, convolution = self.norm, self.convolution

        def run(gamma, beta, statistics, kernel, *maps):
            x = ops.cast(ops.concatenate(maps, -1), "float32")
            mean, variance = ops.moments(x, (0, 1, 2)) if use_batch else statistics
            x = ops.batch_normalization(x, mean, variance, -1, beta, gamma, norm.epsilon)
            x = convolution.convolution_op(ops.relu(ops.cast(x, self.compute_dtype)), kernel)
            return x, mean, variance

        gamma, beta, *statistics = (
            ops.convert_to_tensor(value, "float32")
            for value in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        )
        # Torch refuses to recompute from what has changed in between, as the moving statistics do.
        statistics = () if use_batch else tuple(statistics)
        kernel = ops.convert_to_tensor(convolution.kernel, self.compute_dtype)
        return keras.remat(run)(gamma, beta, statistics, kernel, *maps)

    def compute_output_shape(self, input_shape: Sequence[tuple[int | None, ...]]) -> tuple[int | None, ...]:
        """The shape of the convolution's output."""
        return self.convolution.compute_output_shape(input_shape[0])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        norm, convolution = self.norm, self.convolution
        return super().get_config() | {
            "filters": convolution.filters,
            "kernel_size": convolution.kernel_size[0],
            "norm_name": norm.name,
            "convolution_name": convolution.name,
            "momentum": norm.momentum,
            "epsilon": norm.epsilon,
            "kernel_initializer": keras.saving.serialize_keras_object(convolution.kernel_initializer),
        }


def recomputed_conv2d(
    x: Any, maps: Sequence[Any], filters: int, kernel_size: int, *, norm_name: str, convolution_name: str, name: str
) -> Any:
    """BN, ReLU and a stride-1 convolution of `x` that keep only `maps`, of which `x` is the concatenation."""
    layer = RecomputedConv2D(
        filters, kernel_size, norm_name=named(norm_name), convolution_name=named(convolution_name), name=named(name)
    )
    return layer([x, *maps])
