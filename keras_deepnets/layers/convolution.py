"""Convolution with the padding of the papers, and grouped convolution that trains fast on every device."""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops

from keras_deepnets.layers import fast
from keras_deepnets.layers.building import named, quickly

KERNEL_INITIALIZER = {"scale": 2.0, "mode": "fan_out", "distribution": "untruncated_normal"}
"""Initialiser of He et al. 2015, "Delving Deep into Rectifiers", eq. 14.

The variance is 2 / (k·k·filters), as in the papers' own code.
"""


def symmetric_padding(kernel_size: int, dilation: int = 1) -> int:
    """Zeros on each side that preserve the size in a stride-1 convolution with an odd kernel."""
    return (kernel_size - 1) * dilation // 2


def same_padding_is_symmetric(size: int | None, kernel_size: int, strides: int, dilation: int = 1) -> bool:
    """Whether TensorFlow's ``"same"`` puts the same number of zeros before the image as symmetric padding.

    At stride 1 it always does. At larger strides it depends on the size. The zeros after the image are either equal in number or not read.
    """
    padding = symmetric_padding(kernel_size, dilation)
    if strides == 1:
        return True
    if size is None:
        return False
    extent = (kernel_size - 1) * dilation + 1
    if -(-size // strides) != (size + 2 * padding - extent) // strides + 1:
        return False
    return max((-(-size // strides) - 1) * strides + extent - size, 0) // 2 == padding


@keras.saving.register_keras_serializable("keras_deepnets")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` with ``padding="symmetric"``, and with groups that train on every device.

    Weights, config and results are those of `keras.layers.Conv2D`, with two differences:

    * ``padding="symmetric"`` puts ``(kernel_size - 1) // 2`` zeros on *every* side, as in the papers and in torch. Keras' ``"same"``
      puts the odd zero of a strided convolution at the end, which shifts every feature map by a pixel. Kernel sizes must be odd.
    * On TensorFlow, ``groups > 1`` runs as one native op if that op has a gradient, and as one convolution per group otherwise. Keras
      compiles it with XLA. On a CPU, that is hundreds of times slower. It also leaves a function in exported models that serving
      builds without XLA reject.

    Shapes: ``[n, h, w, c]`` to ``[n, h', w', filters]`` with ``h' = (h + 2·padding - kernel) // strides + 1``.
    """

    def __init__(self, filters: int, kernel_size: Any, strides: Any = (1, 1), padding: str = "valid", **kwargs: Any):
        """Takes the arguments of `keras.layers.Conv2D`. Raises ValueError for an even kernel size with symmetric padding."""
        symmetric = padding == "symmetric"
        super().__init__(filters, kernel_size, strides, padding="valid" if symmetric else padding, **kwargs)
        if symmetric:
            if any(size % 2 == 0 for size in self.kernel_size):
                raise ValueError(
                    f"Conv2D: padding='symmetric' needs odd kernel sizes; kernel_size={self.kernel_size}. Use 'valid'."
                )
            if self.data_format != "channels_last":
                raise ValueError("Conv2D: padding='symmetric' needs channels last; set data_format='channels_last'.")
            self.padding = "symmetric"

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights."""
        with quickly():
            super().build(input_shape)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output."""
        if self.padding != "symmetric":
            return super().compute_output_shape(input_shape)
        if len(input_shape) != 4:
            raise ValueError(
                f"Conv2D: the input must be [batch, height, width, channels]; its shape is {tuple(input_shape)}."
            )
        sides = []
        for size, kernel, stride, dilation in zip(
            input_shape[1:3], self.kernel_size, self.strides, self.dilation_rate, strict=True
        ):
            extent = (kernel - 1) * dilation + 1
            sides.append(
                None if size is None else (size + 2 * symmetric_padding(kernel, dilation) - extent) // stride + 1
            )
        return (input_shape[0], *sides, self.filters)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """``[n, h, w, c]`` to ``[n, h', w', filters]``."""
        if self._is_exported_group():
            from keras_deepnets.layers.fast.convolution import add_bias

            outputs = add_bias(self.convolution_op(inputs, self.kernel), self.bias)
            return outputs if self.activation is None else self.activation(outputs)
        if not self._is_pointwise():
            return super().call(inputs)
        from keras_deepnets.layers.fast.convolution import commutes

        outputs = self._pointwise(inputs, training)
        if self.strides == (1, 1) and self.activation in (None, keras.activations.linear):
            commutes(outputs, inputs, functools.partial(self._pointwise, training=training))
        return outputs

    def _pointwise(self, inputs: Any, training: bool | None) -> Any:
        from keras_deepnets.layers.fast.channels import widened_pair
        from keras_deepnets.layers.fast.convolution import pointwise_conv2d, pointwise_gradient_pays

        if not training or not pointwise_gradient_pays(inputs):
            return super().call(inputs)
        outputs = pointwise_conv2d(*widened_pair(inputs, self.kernel), self.strides)
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)

    def _is_pointwise(self) -> bool:
        return (
            keras.backend.backend() == "tensorflow"
            and self.kernel_size == (1, 1)
            and self.groups == 1
            and self.data_format == "channels_last"
        )

    def _is_grouped(self) -> bool:
        return self.groups > 1 and self.data_format == "channels_last" and fast.on("grouped_convolution")

    def _is_exported_group(self) -> bool:
        if not (self.use_bias and self._is_grouped()):
            return False
        from keras_deepnets.layers.fast.convolution import is_exporting

        return is_exporting()

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        """The convolution without bias and activation."""
        padding = self.padding
        if keras.backend.backend() == "tensorflow" and self.groups == 1 and self.data_format == "channels_last":
            from keras_deepnets.layers.fast.channels import widened_pair

            inputs, kernel = widened_pair(inputs, kernel)
        if padding == "symmetric":
            inputs, padding = self._pad(inputs)
        if self._is_grouped():
            from keras_deepnets.layers.fast.convolution import grouped_conv2d

            return grouped_conv2d(
                inputs, kernel, self.strides, padding.upper(), self.dilation_rate, self.groups, self.use_bias
            )
        return ops.conv(
            inputs,
            kernel,
            strides=list(self.strides),
            padding=padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )

    def _pad(self, inputs: Any) -> tuple[Any, str]:
        # TensorFlow's explicit padding would save the extra pass. But its gradient does not use oneDNN: in bfloat16 it is a hundred times
        # slower, and with groups it is missing. So use "same" where it is equivalent, and a pad op otherwise.
        geometry = list(zip(inputs.shape[1:3], self.kernel_size, self.strides, self.dilation_rate, strict=True))
        if all(same_padding_is_symmetric(*axis) for axis in geometry):
            return inputs, "same"
        zeros = [symmetric_padding(kernel, dilation) for _, kernel, _, dilation in geometry]
        return ops.pad(inputs, [(0, 0), *((zero, zero) for zero in zeros), (0, 0)]), "valid"


def conv2d(
    x: Any,
    filters: int,
    kernel_size: int,
    *,
    strides: int = 1,
    padding: str = "symmetric",
    groups: int = 1,
    use_bias: bool = False,
    name: str | None = None,
    **kwargs: Any,
) -> Any:
    """A convolution with the defaults of the papers: symmetric padding, He initialisation, and no bias because a BN follows.

    Args:
        x: ``[n, h, w, c]``.
        filters: number of output channels.
        kernel_size: side of the square kernel, odd.
        strides: 1 or 2.
        padding: ``"same"`` for networks trained with TensorFlow's padding, which differs in strided convolutions.
        groups: cardinality; must divide both channel counts.
        use_bias: whether to add a bias, for networks without BN.
        name: layer name.
        **kwargs: further arguments of `keras.layers.Conv2D`.
    """
    kwargs.setdefault("kernel_initializer", keras.initializers.VarianceScaling(**KERNEL_INITIALIZER))
    return Conv2D(
        filters,
        kernel_size,
        strides,
        padding,
        groups=groups,
        use_bias=use_bias,
        data_format="channels_last",
        name=named(name),
        **kwargs,
    )(x)
