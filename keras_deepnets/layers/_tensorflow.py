"""What the fast paths need to know of TensorFlow. Imported only where Keras runs on TensorFlow."""

from __future__ import annotations

import contextlib
import functools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf
from tensorflow.python.framework import ops as tf_ops
from tensorflow.python.ops import control_flow_util, resource_variable_ops


def inside_xla() -> bool:
    """Whether the function being traced will be compiled by XLA (``jit_compile=True``)."""
    return not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(tf_ops.get_default_graph())


@functools.cache
def has_gpu() -> bool:
    """Whether TensorFlow sees a GPU."""
    return bool(tf.config.list_logical_devices("GPU"))


@functools.cache
def grouped_convolution_trains(dtype: tf.DType = tf.float32) -> bool:
    """Whether the native grouped convolution has a gradient here: tried, once a process and type, on a tiny tensor.

    TensorFlow's own CPU kernels have none; oneDNN's and cuDNN's have. oneDNN has float16 on some processors only.
    """
    # The gradient op itself: tapes do not record inside `init_scope`.
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


def grouped_conv2d(images, kernel, strides, padding: str, dilations, groups: int):
    """A grouped convolution that trains everywhere, channels last.

    One native op where it has a gradient; a convolution a group where not, and inside an XLA program on the CPU,
    where the native form compiles to a loop five hundred times slower.
    """
    if grouped_convolution_trains(images.dtype) and (has_gpu() or not inside_xla()):
        return tf.nn.conv2d(images, kernel, strides, padding, dilations=dilations)
    parts = zip(tf.split(images, groups, axis=-1), tf.split(kernel, groups, axis=-1), strict=True)
    return tf.concat(
        [tf.nn.conv2d(part, weights, strides, padding, dilations=dilations) for part, weights in parts], axis=-1
    )


@contextlib.contextmanager
def one_name_for_all() -> Iterator[None]:
    """For creating variables: a tenth of the time. Keras' own names and paths are not concerned.

    TensorFlow makes a kernel for every name that a variable is created under.
    """
    with tf.name_scope(""), tf.variable_creator_scope(lambda create, **kwargs: create(**kwargs | {"name": "variable"})):
        yield


def shared(
    functions: dict[Any, Callable[..., Any]], compute: Callable[..., Any], places: Sequence[int]
) -> Callable[..., Any]:
    """`compute` as a function that is traced once for every kind of arguments and stays one function in the graph.

    Inlined, it would be optimised again at every call.

    Args:
        functions: keeps what has been traced.
        compute: ``(x, values, …) -> (y, news)``: output and, while training, the new values of those at `places`.
        places: which of the values change.

    Returns:
        ``(x, variables, …) -> y``, which reads and updates the variables.
    """
    key = inside_xla()
    if key not in functions:

        def run(x: Any, variables: Sequence[Any], *args: Any) -> Any:
            y, news = compute(x, [tf.convert_to_tensor(variable) for variable in variables], *args)
            if variables and isinstance(variables[0], tf.Variable):
                for place, new in zip(places, news, strict=False):
                    variables[place].assign(new)
                return y, []
            # As integers, or their gradients would be zeros, which are constants, for which TensorFlow specialises functions at every call.
            return y, [tf.bitcast(new, _BITS[new.dtype.size]) for new in news]

        functions[key] = tf.function(
            run, autograph=False, reduce_retracing=True, experimental_attributes={"_noinline": True}
        )

    def call(x: Any, variables: Sequence[Any], *args: Any) -> Any:
        if not tf.distribute.has_strategy():
            for variable in variables:
                if variable.trainable:
                    resource_variable_ops.variable_accessed(variable.value)
            return functions[key](x, [variable.value for variable in variables], *args)[0]
        # Replicas have variables of their own behind each of these.
        y, news = functions[key](x, [tf.convert_to_tensor(variable.value) for variable in variables], *args)
        for place, bits in zip(places, news, strict=False):
            variable = variables[place]
            variable.assign(tf.bitcast(bits, variable.dtype))
        return y

    return call


_BITS = {2: tf.int16, 4: tf.int32, 8: tf.int64}


def pointwise_gradient_pays(images: tf.Tensor) -> bool:
    """Whether `pointwise_conv2d` beats the convolution's own gradient: with bfloat16 on CPUs."""
    return images.dtype == tf.bfloat16 and not has_gpu() and not inside_xla()


def pointwise_conv2d(images: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int]) -> tf.Tensor:
    """A 1×1 convolution, channels last, whose weight gradient is a matrix product.

    The same sums; oneDNN's bfloat16 convolution takes two to three times as long for them.
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

    # In a branch of `tf.cond` TensorFlow's gradient takes only what is of the branch's own graph, not images or weights from outside.
    return run(tf.identity(images), tf.identity(kernel))


def pointwise_kernel_gradient(images: tf.Tensor, d_outputs: tf.Tensor, strides: Sequence[int] = (1, 1)) -> tf.Tensor:
    """The gradient ``[1, 1, c, filters]`` of a 1×1 convolution's kernel."""
    if max(strides) > 1:
        # The pixels that it reads; a strided slice takes several times as long as this pooling of single pixels.
        images = tf.nn.max_pool2d(images, 1, list(strides), "VALID")
    channels, filters = images.shape[-1], d_outputs.shape[-1]
    gradient = tf.matmul(tf.reshape(images, [-1, channels]), tf.reshape(d_outputs, [-1, filters]), transpose_a=True)
    return tf.reshape(gradient, [1, 1, channels, filters])


def narrow(wide: tf.Tensor, channels: int) -> tf.Tensor:
    """The first `channels` of `wide`, whose others are zeros; who can takes these too and spares the cut (`widened`)."""
    if wide.shape[-1] == channels:
        return wide
    images = wide[..., :channels]
    images._kd_wide = tf_ops.get_default_graph(), wide
    return images


def widened(images: tf.Tensor) -> tf.Tensor:
    """What `images` were cut from where they were in this graph, with more channels, which are zeros; or themselves."""
    graph, wide = getattr(images, "_kd_wide", (None, images))
    return wide if graph in (None, tf_ops.get_default_graph()) else images


def widened_pair(images: tf.Tensor, kernel: Any) -> tuple[tf.Tensor, Any]:
    """`widened` images, and a convolution's kernel with zeros for the channels that it does not know."""
    wide = widened(images)
    if wide is images:
        return images, kernel
    missing = wide.shape[-1] - images.shape[-1]
    return wide, tf.pad(tf.cast(tf.convert_to_tensor(kernel), wide.dtype), [[0, 0], [0, 0], [0, missing], [0, 0]])


def commutes(outputs: tf.Tensor, inputs: tf.Tensor, pointwise: Callable[[tf.Tensor], tf.Tensor]) -> None:
    """Notes that `outputs` is `pointwise` of `inputs`, linear and a pixel at a time, for an average pooling that may follow."""
    if not tf.executing_eagerly():
        outputs._kd_pointwise = pointwise, inputs


def average_pool(images: tf.Tensor, pool: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """`pool` of `images`, before a 1×1 convolution that made them instead of after it: for a quarter of its work if the sides are two.

    Where others read the convolution's output as well it is computed for them.
    """
    pointwise, inputs = getattr(images, "_kd_pointwise", (None, None))
    if pointwise is None or inputs.graph is not tf_ops.get_default_graph():
        return pool(images)
    return pointwise(narrow(pool(widened(inputs)), inputs.shape[-1]))


FUSED_ELEMENTS = 8192
"""Numbers an image from which one compiled pass pays."""


def relu(images: tf.Tensor) -> tf.Tensor:
    """ReLU in compiled passes where these pay: in half precision, for large maps, on CPUs, outside XLA.

    Of a sum it is computed without the sum being written and read: TensorFlow's own addition and ReLU take 17 ms for 16 bfloat16 maps of
    56²×256, this takes 4; their gradients 12 and 5.
    """
    wide = widened(images)
    if wide is not images:
        return narrow(tf.nn.relu(wide), images.shape[-1])
    if tf.executing_eagerly() or not _large(images) or images.dtype.size > 2 or has_gpu() or inside_xla():
        return tf.nn.relu(images)

    @tf.custom_gradient
    def run(*addends: tf.Tensor) -> Any:
        outputs = _relu_of_sum(*addends) if len(addends) == 2 else tf.nn.relu(*addends)

        def gradient(d_outputs: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return (_relu_gradient_of_sum(outputs, *_addends(d_outputs)),) * len(addends)

        return outputs, gradient

    return run(*_addends(images))


def concatenate(maps: Sequence[tf.Tensor]) -> tf.Tensor:
    """`maps` side by side, with a gradient in one compiled pass where that pays: in half precision, for large maps, on CPUs, outside XLA.

    Of a dense block's maps the gradient is a sum, of what the next layer and the next concatenation send; here it is added and cut into
    the parts' gradients without being written and read.
    """
    if tf.executing_eagerly() or not _large(maps[0]) or maps[0].dtype.size > 2 or has_gpu() or inside_xla():
        return tf.concat(maps, -1)
    sizes = tuple(part.shape[-1] for part in maps)

    @tf.custom_gradient
    def run(*maps: tf.Tensor) -> Any:
        def gradient(d_total: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return _parts_of_sum(sizes, *_addends(d_total))

        return tf.concat(maps, -1), gradient

    return run(*maps)


@functools.partial(tf.function, jit_compile=True, autograph=False)
def _parts_of_sum(sizes: tuple[int, ...], *addends: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The sum of `addends`, cut along the last axis."""
    # In groups of channels of which no part cuts one: the compiler's loops over odd lengths take up to twice as long in bfloat16.
    group = math.gcd(*sizes)
    images = tf.shape(addends[0])[:-1]
    addends = [tf.reshape(addend, [-1, sum(sizes) // group, group]) for addend in addends]
    parts, start = [], 0
    for size in sizes:
        part = functools.reduce(operator.add, [addend[:, start : start + size // group] for addend in addends])
        parts.append(tf.reshape(part, tf.concat([images, [size]], 0)))
        start += size // group
    return tuple(parts)


def _large(images: tf.Tensor) -> bool:
    sides = images.shape[1:]
    return sides.is_fully_defined() and sides.num_elements() >= FUSED_ELEMENTS


def _addends(total: tf.Tensor) -> tuple[tf.Tensor, ...]:
    """The two tensors of one shape that `total` is the sum of in the graph, or itself."""
    if total.op.type in ("AddV2", "AddN") and len(total.op.inputs) == 2:
        first, second = total.op.inputs
        # Of static shapes: a part of batch 1 would be broadcast, and its gradient summed.
        if first.shape.as_list() == second.shape.as_list() == total.shape.as_list() and _large(first):
            return first, second
    return (total,)


def _compiled(compute: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    return tf.function(compute, jit_compile=True, autograph=False)


_relu_of_sum = _compiled(lambda first, second: tf.nn.relu(first + second))
_relu_gradient_of_sum = _compiled(
    lambda outputs, *parts: tf.where(outputs > 0, functools.reduce(operator.add, parts), tf.zeros([], outputs.dtype))
)


def momentum_in_one_pass(optimizer: Any) -> None:
    """Lets a `keras.optimizers.SGD` with momentum update each variable by one op; in place.

    Keras composes the same update of four, which read and write the weights' memory twice as often.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if type(optimizer) is keras.optimizers.SGD and optimizer.momentum and "update_step" not in vars(optimizer):
        composed = optimizer.update_step

        def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
            if not momentum_step(optimizer, gradient, variable, learning_rate):
                composed(gradient, variable, learning_rate)

        optimizer.update_step = update_step


def momentum_step(optimizer: Any, gradient: Any, variable: Any, learning_rate: Any) -> bool:
    """Updates a variable and its momentum by one op where TensorFlow has it; False where not: then nothing was done."""
    if not optimizer.momentum or not isinstance(gradient, tf.Tensor) or tf.distribute.has_strategy():
        return False
    place = optimizer._get_variable_index(variable)
    momentum, weight = (
        value.value if isinstance(value, keras.Variable) else value for value in (optimizer.momentums[place], variable)
    )
    if not all(isinstance(value, resource_variable_ops.BaseResourceVariable) for value in (momentum, weight)):
        return False
    tf.raw_ops.ResourceApplyKerasMomentum(
        var=weight.handle,
        accum=momentum.handle,
        lr=tf.cast(learning_rate, weight.dtype),
        grad=tf.cast(gradient, weight.dtype),
        momentum=tf.constant(optimizer.momentum, weight.dtype),
        use_nesterov=optimizer.nesterov,
    )
    return True
