"""Grouped and 1×1 convolutions, and average pooling before a 1×1 convolution."""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from keras_deepnets.layers import fast
from keras_deepnets.layers.fast import notes
from keras_deepnets.layers.fast.channels import narrow, widened
from keras_deepnets.layers.fast.internals import has_gpu, inside_xla


@functools.cache
def grouped_convolution_trains(dtype: tf.DType = tf.float32) -> bool:
    """Whether the native grouped convolution has a gradient here. It is tested on a tiny tensor, once per process and dtype.

    TensorFlow's own CPU kernels have no gradient; those of oneDNN and cuDNN do. oneDNN supports float16 only on some processors.
    """
    # Call the gradient op directly, because tapes do not record inside `init_scope`.
    with tf.init_scope():
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=[1, 3, 3, 4],
                filter=tf.ones([3, 3, 2, 4], dtype),
                out_backprop=tf.ones([1, 3, 3, 4], dtype),
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
            return False
    return True


_exporting = contextvars.ContextVar("_exporting", default=False)


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """A scope that traces graphs for inference. They may run on other machines, so they do not depend on this one's processor."""
    token = _exporting.set(True)
    try:
        yield
    finally:
        _exporting.reset(token)


def is_exporting() -> bool:
    """Whether the graph being traced may run on another machine."""
    return _exporting.get()


def grouped_conv2d(images, kernel, strides, padding: str, dilations, groups: int, biased: bool = False):
    """A grouped convolution, channels last, that trains on every device.

    It is one native op if that op has a gradient, and one convolution per group otherwise. Inside an XLA program on the CPU, the native
    op compiles to a loop that is five hundred times slower. There it is always one convolution per group.

    In an export it is one native op if `add_bias` follows (`biased`). TensorFlow fuses a convolution with a following ``BiasAdd`` or
    batch normalisation, also where it has no fused kernel for groups. Without oneDNN, the graph then fails.
    """
    native = biased if is_exporting() else grouped_convolution_trains(images.dtype)
    if native and (has_gpu() or not inside_xla()):
        return tf.nn.conv2d(images, kernel, strides, padding, dilations=dilations)
    parts = zip(tf.split(images, groups, axis=-1), tf.split(kernel, groups, axis=-1), strict=True)
    return tf.concat(
        [tf.nn.conv2d(part, weights, strides, padding, dilations=dilations) for part, weights in parts], axis=-1
    )


def add_bias(outputs: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """The sum of maps and a bias by an ``AddV2``. TensorFlow fuses it only where oneDNN can."""
    return tf.add(outputs, bias)


def pointwise_gradient_pays(images: tf.Tensor) -> bool:
    """Whether `pointwise_conv2d` is faster than the convolution's own gradient: with bfloat16 on CPUs, outside XLA."""
    return fast.on("pointwise_gradient") and images.dtype == tf.bfloat16 and not has_gpu() and not inside_xla()


def pointwise_conv2d(images: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int]) -> tf.Tensor:
    """A 1×1 convolution, channels last, whose weight gradient is a matrix product.

    The sums are the same. oneDNN's bfloat16 convolution takes two to three times as long to compute them.
    """
    geometry = {"strides": [1, *strides, 1], "padding": "VALID"}

    @tf.custom_gradient
    def run(images: tf.Tensor, kernel: tf.Tensor) -> Any:
        def gradient(d_outputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            d_images = tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(images), filter=kernel, out_backprop=d_outputs, **geometry
            )
            return d_images, pointwise_kernel_gradient(images, d_outputs, strides)

        return tf.nn.conv2d(images, kernel, geometry["strides"], geometry["padding"]), gradient

    # In a branch of `tf.cond`, TensorFlow's gradient accepts only tensors of the branch's own graph, not images or weights from outside.
    return run(tf.identity(images), tf.identity(kernel))


def pointwise_kernel_gradient(images: tf.Tensor, d_outputs: tf.Tensor, strides: Sequence[int] = (1, 1)) -> tf.Tensor:
    """The gradient ``[1, 1, c, filters]`` of a 1×1 convolution's kernel."""
    if max(strides) > 1:
        # Select the pixels that it reads. A strided slice takes several times as long as this pooling of single pixels.
        images = tf.nn.max_pool2d(images, 1, list(strides), "VALID")
    channels, filters = images.shape[-1], d_outputs.shape[-1]
    gradient = tf.matmul(tf.reshape(images, [-1, channels]), tf.reshape(d_outputs, [-1, filters]), transpose_a=True)
    return tf.reshape(gradient, [1, 1, channels, filters])


def commutes(outputs: tf.Tensor, inputs: tf.Tensor, pointwise: Callable[[tf.Tensor], tf.Tensor]) -> None:
    """Notes for a subsequent average pooling that `outputs` is `pointwise` of `inputs`, a linear function of each pixel."""
    if fast.on("pooling_first"):
        notes.attach(outputs, notes.Pointwise(pointwise, inputs))


def average_pool(images: tf.Tensor, pool: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """`pool` of `images`. If a 1×1 convolution computes `images`, the pooling runs before it.

    With 2×2 pooling, the convolution then does a quarter of the work. If other layers also read the convolution's output, it is
    computed for them as well.
    """
    note = notes.read(images, notes.Pointwise)
    if note is None or note.inputs.graph is not images.graph:
        return pool(images)
    return note.compute(narrow(pool(widened(note.inputs)), note.inputs.shape[-1]))
