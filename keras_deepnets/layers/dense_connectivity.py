"""Dense connectivity [Huang et al. 2016] with memory that grows linearly with depth.

Layer l of a dense block reads the feature maps of all preceding layers. Concatenation and ReLU each store about l²k/2 maps, although the
block produces only lk. Pleiss et al. 2017 ("Memory-Efficient Implementation of DenseNets", arXiv:1707.06990) recompute these cheap
operations in the backward pass. Here, one layer does this: it takes concatenated maps and returns the convolution's output.
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
from keras_deepnets.layers.precision import at_least_float32


@keras.saving.register_keras_serializable("keras_deepnets")
class Concatenate(keras.layers.Concatenate):
    """`keras.layers.Concatenate` with a faster gradient on TensorFlow CPUs.

    In training, the gradient, which is a sum in a dense block, takes one pass over memory. Config and results are those of
    `keras.layers.Concatenate`.
    """

    def call(self, inputs: Sequence[Any], training: bool | None = None) -> Any:
        """Maps of ``[n, h, w, c_i]`` each to ``[n, h, w, c]``."""
        last = self.axis in (-1, len(inputs[0].shape) - 1)
        if not training or not last or keras.backend.backend() != "tensorflow":
            return super().call(inputs)
        from keras_deepnets.layers.fast.normalization import made_of
        from keras_deepnets.layers.fast.sums import concatenate

        total = concatenate(inputs) if fast.on("concatenation_gradient") else super().call(inputs)
        made_of(total, inputs)
        return total


def concatenate(maps: Sequence[Any], *, name: str | None = None) -> Any:
    """Concatenates feature maps along the channels."""
    return Concatenate(name=named(name))(maps)


@keras.saving.register_keras_serializable("keras_deepnets")
class RecomputedConv2D(keras.layers.Layer):
    """BN, ReLU and a convolution of concatenated feature maps. For the backward pass, only the maps are kept.

    The gradient recomputes concatenation, BN and ReLU. It reuses the batch's statistics and does not repeat the convolution. The moving
    statistics are updated once. Outputs and gradients are those of the three layers, up to rounding. BN and convolution are the sublayers
    `norm` and `convolution`. Their weights have the same paths and order as in a network of separate layers.

    On TensorFlow, the layer is a custom gradient around the fused kernels. On JAX and torch, it is `keras.remat` of the same computation.
    With ``training=False``, and where the fused kernels do not apply (float64), the three layers run without recomputation.

    On TensorFlow, the full memory saving needs network and gradient in one `tf.function`, as in `fit`. Eager tapes keep `joined`. XLA's CPU
    compiler (``jit_compile=True``) reorders so much that only about a fifth is saved. Results are the same in all cases.

    Args:
        filters: output channels of the convolution.
        kernel_size: side of the kernel, odd; the stride is 1.
        norm_name: name of the BN.
        convolution_name: name of the convolution.
        momentum: momentum of the BN.
        epsilon: epsilon of the BN.
        kernel_initializer: initialiser of the convolution; He's by default.

    Shapes: ``[joined, *maps]`` to ``[n, h, w, filters]``. `joined`, ``[n, h, w, c]``, is the concatenation of `maps`.
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
        """Raises ValueError for an even kernel size."""
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

    def build(self, input_shape: Sequence[tuple[Any, ...]]) -> None:
        """Creates the weights. Raises ValueError if the channels of the maps do not add up to those of the concatenation."""
        joined, *maps = input_shape
        if not maps or sum(shape[-1] for shape in maps) != joined[-1]:
            raise ValueError(
                f"RecomputedConv2D: the inputs must be [joined, *maps], and the channels of the maps must add up to those of joined; "
                f"the shapes are {[tuple(shape) for shape in input_shape]}."
            )
        for layer in (self.norm, self.convolution):
            # The weights get the paths of a top-level layer, not of a nested one.
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
            self.norm.update_moving(mean, variance)
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
        dtype = at_least_float32(self.compute_dtype)

        def run(gamma, beta, statistics, kernel, *maps):
            x = ops.cast(ops.concatenate(maps, -1), dtype)
            mean, variance = ops.moments(x, (0, 1, 2)) if use_batch else statistics
            x = ops.batch_normalization(x, mean, variance, -1, beta, gamma, norm.epsilon)
            x = convolution.convolution_op(ops.relu(ops.cast(x, self.compute_dtype)), kernel)
            return x, mean, variance

        gamma, beta, *statistics = (
            ops.convert_to_tensor(value, dtype)
            for value in (norm.gamma, norm.beta, norm.moving_mean, norm.moving_variance)
        )
        # Torch refuses to recompute from values that have changed in the meantime, such as the moving statistics.
        kept = () if use_batch else tuple(statistics)
        kernel = ops.convert_to_tensor(convolution.kernel, self.compute_dtype)
        return keras.remat(run)(gamma, beta, kept, kernel, *maps)

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
    """BN, ReLU and a stride-1 convolution of `x`, the concatenation of `maps`. For the backward pass, only `maps` are kept."""
    layer = RecomputedConv2D(
        filters, kernel_size, norm_name=named(norm_name), convolution_name=named(convolution_name), name=named(name)
    )
    return layer([x, *maps])
