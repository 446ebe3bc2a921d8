"""Max pooling with symmetric padding, average pooling before a preceding 1×1 convolution, pooling to a fixed size, and pyramids."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_deepnets.layers import fast
from keras_deepnets.layers.building import named
from keras_deepnets.layers.convolution import same_padding_is_symmetric, symmetric_padding
from keras_deepnets.layers.precision import at_least_float32


@keras.saving.register_keras_serializable("keras_deepnets")
class MaxPooling2D(keras.layers.MaxPooling2D):
    """`keras.layers.MaxPooling2D` with two more paddings, for channels last.

    * ``padding="symmetric"``: ``(pool_size - 1) // 2`` on every side. Sizes must be odd.
    * ``padding="ceil"``: only after the last row and column, as much as the last window needs. This is Caffe's padding, and torch's with
      ``ceil_mode=True``.

    The padding is minus infinity, as in torch, so it is never the maximum, whatever the sign of the input.
    """

    def __init__(self, pool_size: Any = (2, 2), strides: Any = None, padding: str = "valid", **kwargs: Any):
        """Takes the arguments of `keras.layers.MaxPooling2D`. Raises ValueError for an even size with symmetric padding."""
        own = padding in ("symmetric", "ceil")
        super().__init__(pool_size, strides, padding="valid" if own else padding, **kwargs)
        if own:
            even = padding == "symmetric" and any(size % 2 == 0 for size in self.pool_size)
            if even or self.data_format != "channels_last":
                raise ValueError(
                    f"MaxPooling2D: padding={padding!r} needs channels last, and 'symmetric' odd sizes; "
                    f"pool_size={self.pool_size}, data_format={self.data_format!r}. Use 'valid'."
                )
            self.padding = padding

    def call(self, inputs: Any) -> Any:
        """``[n, h, w, c]`` to ``[n, h', w', c]``."""
        if self.padding not in ("symmetric", "ceil"):
            return super().call(inputs)
        same, pads = self.pads(inputs.shape)
        if same:
            return ops.max_pool(inputs, self.pool_size, self.strides, "same", "channels_last")
        if any(map(any, pads)):
            inputs = ops.pad(inputs, [(0, 0), *pads, (0, 0)], constant_values=-float("inf"))
        return ops.max_pool(inputs, self.pool_size, self.strides, "valid", "channels_last")

    def pads(self, input_shape: tuple[int | None, ...]) -> tuple[bool, list[tuple[int, int]]]:
        """Whether TensorFlow's ``"same"`` pads alike, and the rows and columns before and after an input with padding of this library."""
        geometry = list(zip(input_shape[1:3], self.pool_size, self.strides, strict=True))
        if self.padding == "symmetric":
            same = all(same_padding_is_symmetric(*axis) for axis in geometry)
            return same, [(symmetric_padding(size), symmetric_padding(size)) for size in self.pool_size]
        same = all(_same_padding_is_at_the_end(*axis) for axis in geometry)
        return same, [(0, _padding_at_the_end(*axis)) for axis in geometry]

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output."""
        if self.padding not in ("symmetric", "ceil"):
            return super().compute_output_shape(input_shape)
        return _shape_with_own_padding(self, input_shape)


def _shape_with_own_padding(layer: Any, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    sides = []
    for side, size, stride in zip(input_shape[1:3], layer.pool_size, layer.strides, strict=True):
        rest = stride - 1 if layer.padding == "ceil" else 2 * symmetric_padding(size)
        sides.append(None if side is None else (side + rest - size) // stride + 1)
    return (input_shape[0], *sides, input_shape[-1])


def _padding_at_the_end(side: int | None, size: int, stride: int) -> int:
    """The rows after the last that complete the last window. For an unknown side, rows that may stay unused."""
    return stride - 1 if side is None else -(side - size) % stride


def _same_padding_is_at_the_end(side: int | None, size: int, stride: int) -> bool:
    """Whether TensorFlow's ``"same"`` puts no row before the first, and as many after the last as ``"ceil"``."""
    if side is None:
        return False
    total = max((-(-side // stride) - 1) * stride + size - side, 0)
    return total < 2 and total == _padding_at_the_end(side, size, stride)


@keras.saving.register_keras_serializable("keras_deepnets")
class AveragePooling2D(keras.layers.AveragePooling2D):
    """`keras.layers.AveragePooling2D` with one more padding, for channels last.

    ``padding="ceil"`` pads only after the last row and column, as much as the last window needs. The average does not count this padding.
    So Caffe and torch with ``ceil_mode=True`` compute. Config and results of the other paddings are those of
    `keras.layers.AveragePooling2D`, up to rounding. In TensorFlow graphs, the layer runs before a preceding 1×1 `Conv2D` of this library.
    The two operations commute.
    """

    def __init__(self, pool_size: Any, strides: Any = None, padding: str = "valid", **kwargs: Any):
        """Takes the arguments of `keras.layers.AveragePooling2D`. Raises ValueError for ``"ceil"`` with channels first."""
        super().__init__(pool_size, strides, padding="valid" if padding == "ceil" else padding, **kwargs)
        if padding == "ceil" and self.data_format != "channels_last":
            raise ValueError(f"AveragePooling2D: padding='ceil' needs channels last, not {self.data_format!r}.")
        self.padding = padding

    def call(self, inputs: Any) -> Any:
        """``[n, h, w, c]`` to ``[n, h', w', c]``."""
        if self.padding == "ceil":
            return self._pool_to_the_end(inputs)
        shrinks = self.padding == "valid" and self.data_format == "channels_last" and min(self.strides) > 1
        if not shrinks or not fast.on("pooling_first"):
            return super().call(inputs)
        from keras_deepnets.layers.fast.convolution import average_pool

        return average_pool(inputs, super().call)

    def _pool_to_the_end(self, inputs: Any) -> Any:
        geometry = list(zip(inputs.shape[1:3], self.pool_size, self.strides, strict=True))
        if all(_same_padding_is_at_the_end(*axis) for axis in geometry):
            return ops.average_pool(inputs, self.pool_size, self.strides, "same", "channels_last")
        pads = [(0, 0), *((0, _padding_at_the_end(*axis)) for axis in geometry), (0, 0)]
        inside = ops.pad(ops.ones_like(inputs[:1, :, :, :1]), pads)
        pooled, share = (
            ops.average_pool(value, self.pool_size, self.strides, "valid", "channels_last")
            for value in (ops.pad(inputs, pads), inside)
        )
        return pooled / share

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output."""
        if self.padding != "ceil":
            return super().compute_output_shape(input_shape)
        return _shape_with_own_padding(self, input_shape)


def average_pool_with_zeros(x: Any, size: int = 3, strides: int = 1, *, name: str | None = None) -> Any:
    """Average pooling with symmetric padding. It counts the zeros of its padding, as Caffe's and torch's do.

    A layer ``{name}_pad`` pads. `size` must be odd.
    """
    pad = keras.layers.ZeroPadding2D(symmetric_padding(size), data_format="channels_last", name=named(f"{name}_pad"))
    return keras.layers.AveragePooling2D(size, strides, data_format="channels_last", name=named(name))(pad(x))


def average_pool(
    x: Any, size: int = 2, strides: int | None = None, *, padding: str = "valid", name: str | None = None
) -> Any:
    """Average pooling, by default of squares without overlap: an odd last row or column is dropped, as in torch.

    ``padding="ceil"`` is Caffe's.
    """
    return AveragePooling2D(size, strides or size, padding, data_format="channels_last", name=named(name))(x)


@keras.saving.register_keras_serializable("keras_deepnets")
class AdaptiveAveragePooling2D(keras.layers.Layer):
    """Average pooling to a fixed size, as torch's layer of this name.

    Cell ``i`` of ``size`` averages the rows from ``floor(i·h / size)`` to ``ceil((i + 1)·h / size)``. The same holds for the columns. Cells
    may overlap. If the input is smaller than the output, cells repeat pixels. The sums are products with a matrix per axis, which
    every backend and TFLite support.

    Shapes: ``[n, h, w, c]`` to ``[n, size, size, c]``.
    """

    def __init__(self, size: int, **kwargs: Any):
        """`size` is the side of the output in pixels."""
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs: Any) -> Any:
        """``[n, h, w, c]`` to ``[n, size, size, c]``."""
        if tuple(inputs.shape[1:3]) == (self.size, self.size):
            return inputs
        shape = ops.shape(inputs)
        rows, columns = (_cells(shape[axis], self.size, inputs.dtype) for axis in (1, 2))
        return ops.einsum("pw,nowc->nopc", columns, ops.einsum("oh,nhwc->nowc", rows, inputs))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output."""
        return (input_shape[0], self.size, self.size, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"size": self.size}


def _cells(side: Any, size: int, dtype: Any) -> Any:
    """The weights ``[size, side]`` of the pixels in each cell. `side` is a number or a scalar tensor."""
    cell, pixel = ops.expand_dims(ops.arange(size), 1), ops.expand_dims(ops.arange(side), 0)
    first, end = cell * side // size, -(-(cell + 1) * side // size)
    inside = ops.cast(ops.logical_and(pixel >= first, pixel < end), at_least_float32(dtype))
    return ops.cast(inside / ops.sum(inside, axis=1, keepdims=True), dtype)


def adaptive_average_pool(x: Any, size: int, *, name: str | None = None) -> Any:
    """Average pooling to ``[n, size, size, c]``. If the input is known to have this size, no layer is added."""
    if tuple(x.shape[1:3]) == (size, size):
        return x
    return AdaptiveAveragePooling2D(size, name=named(name))(x)


def _largest_of_cells(x: Any, size: int) -> Any:
    """The maxima of the cells of `AdaptiveMaxPooling2D`: ``[n, h, w, c]`` to ``[n, size, size, c]``."""
    height, width = x.shape[1:3]
    if None not in (height, width) and height % size == width % size == 0:
        window = (height // size, width // size)
        return x if window == (1, 1) else ops.max_pool(x, window, window, "valid", "channels_last")
    return _largest_of_stripes(_largest_of_stripes(x, 1, size), 2, size)


def _largest_of_stripes(x: Any, axis: int, size: int) -> Any:
    """The maxima of the `size` stripes of rows (`axis` 1) or columns (2)."""
    side = x.shape[axis]
    if side is None:
        side = ops.shape(x)[axis]
        cell = ops.expand_dims(ops.arange(size), 1)
        first, end = cell * side // size, -(-(cell + 1) * side // size)
        # Stripes differ in length by one. The shorter ones repeat their last row.
        rows = ops.minimum(first + ops.expand_dims(ops.arange(-(-side // size) + 1), 0), end - 1)
        return ops.max(ops.take(x, rows, axis), axis + 1)
    stripes = [(cell * side // size, -(-(cell + 1) * side // size)) for cell in range(size)]
    parts = [x[:, first:end] if axis == 1 else x[:, :, first:end] for first, end in stripes]
    return ops.concatenate([ops.max(part, axis, keepdims=True) for part in parts], axis)


@keras.saving.register_keras_serializable("keras_deepnets")
class AdaptiveMaxPooling2D(keras.layers.Layer):
    """Max pooling to a fixed size, as torch's layer of this name. The cells are those of `AdaptiveAveragePooling2D`.

    For inputs of known size it is a max pooling if `size` divides height and width, and maxima of slices otherwise. Both convert to
    TFLite.

    Shapes: ``[n, h, w, c]`` to ``[n, size, size, c]``.
    """

    def __init__(self, size: int, **kwargs: Any):
        """`size` is the side of the output in pixels."""
        super().__init__(**kwargs)
        self.size = size

    def call(self, inputs: Any) -> Any:
        """``[n, h, w, c]`` to ``[n, size, size, c]``."""
        return _largest_of_cells(inputs, self.size)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output."""
        return (input_shape[0], self.size, self.size, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"size": self.size}


def adaptive_max_pool(x: Any, size: int, *, name: str | None = None) -> Any:
    """Max pooling to ``[n, size, size, c]``. If the input is known to have this size, no layer is added."""
    if tuple(x.shape[1:3]) == (size, size):
        return x
    return AdaptiveMaxPooling2D(size, name=named(name))(x)


@keras.saving.register_keras_serializable("keras_deepnets")
class SpatialPyramidPooling(keras.layers.Layer):
    """Max pooling to several fixed sizes, concatenated to a vector of fixed length [He et al. 2014, arXiv:1406.4729, Appendix A].

    A level of ``l`` has l×l bins. Bin ``i`` covers the rows from ``floor(i·h / l)`` to ``ceil((i + 1)·h / l)``, and the columns alike. The
    vector has the levels in the given order, and in a level rows, columns and channels.

    Shapes: ``[n, h, w, c]`` to ``[n, c·Σl²]``.
    """

    def __init__(self, levels: Any = (7, 3, 2, 1), **kwargs: Any):
        """`levels` are the sides of the levels in bins."""
        super().__init__(**kwargs)
        self.levels = tuple(levels)

    def call(self, inputs: Any) -> Any:
        """``[n, h, w, c]`` to ``[n, c·Σl²]``."""
        channels = inputs.shape[-1]
        maps = [_largest_of_cells(inputs, level) for level in self.levels]
        vectors = [ops.reshape(x, (-1, channels * level**2)) for x, level in zip(maps, self.levels, strict=True)]
        return ops.concatenate(vectors, axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output."""
        return (input_shape[0], (input_shape[-1] or 0) * sum(level**2 for level in self.levels))

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"levels": list(self.levels)}


def spatial_pyramid_pool(x: Any, levels: Any = (7, 3, 2, 1), *, name: str | None = None) -> Any:
    """Max pooling of ``[n, h, w, c]`` to a vector of the bins of all levels, ``[n, c·Σl²]``."""
    return SpatialPyramidPooling(levels, name=named(name))(x)


def max_pool(
    x: Any,
    size: int = 3,
    strides: int = 2,
    *,
    padding: str = "symmetric",
    zero_padding: bool = False,
    name: str | None = None,
) -> Any:
    """Max pooling with symmetric padding, as in the ImageNet stems, with Caffe's ``"ceil"``, or with TensorFlow's ``"same"``.

    The padding is never the maximum. With `zero_padding`, a layer ``{name}_pad`` pads with zeros instead. These are the maximum
    where all other values are negative.
    """
    if zero_padding:
        pad = keras.layers.ZeroPadding2D(
            symmetric_padding(size), data_format="channels_last", name=named(f"{name}_pad")
        )
        return keras.layers.MaxPooling2D(size, strides, data_format="channels_last", name=named(name))(pad(x))
    return MaxPooling2D(size, strides, padding, data_format="channels_last", name=named(name))(x)
