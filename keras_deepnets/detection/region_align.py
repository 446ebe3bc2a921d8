"""RoIAlign: the features of a region on a fixed grid (He et al. 2017, Mask R-CNN, section 3), from several feature maps.

The results are those of torchvision's `MultiScaleRoIAlign` (``aligned=False``), at the borders of the map too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_deepnets.detection import boxes as box_ops
from keras_deepnets.layers import fast

CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4
"""A region of this side belongs to this level (Lin et al. 2017, Feature Pyramid Networks, equation 1)."""


@keras.saving.register_keras_serializable("keras_deepnets")
class RegionAlign(keras.layers.Layer):
    """RoIAlign on the level of a feature pyramid that suits the size of each region.

    Input: regions ``[n, k, 4]`` in pixels of the image, then one feature map ``[n, h, w, c]`` per level. Output: ``[n, k, size, size, c]``
    with the dtype of the maps. Each output pixel is the mean of `samples` × `samples` bilinear interpolations.
    """

    def __init__(self, levels: Sequence[int], size: int = 7, samples: int = 2, **kwargs: Any):
        """Create the layer.

        Args:
            levels: level of each feature map, ascending. Level l has stride 2ˡ.
            size: side of the grid.
            samples: sampling points per pixel of the grid along each axis.
            **kwargs: arguments of `keras.layers.Layer`.
        """
        super().__init__(**{"autocast": False} | kwargs)
        self.levels = tuple(levels)
        self.size = size
        self.samples = samples

    def call(self, inputs: Sequence[Any]) -> Any:
        """Regions and feature maps to the features of the regions."""
        regions, *maps = inputs
        regions = ops.stop_gradient(ops.cast(regions, "float32"))
        if fast.on("region_align"):
            from keras_deepnets.detection.fast_align import align

            return align(regions, self.chosen(regions), maps, self.levels, self.size, self.samples)
        return self.plain(regions, maps)

    def chosen(self, regions: Any) -> Any:
        """The index of the feature map of each region: ``[n, k, 4]`` to int32 ``[n, k]``."""
        first, last = self.levels[0], self.levels[-1]
        side = ops.sqrt(ops.maximum(box_ops.area(regions), 1e-12))
        level = ops.floor(CANONICAL_LEVEL + ops.log2(side / CANONICAL_SIZE) + 1e-6)
        return ops.cast(ops.clip(level, first, last), "int32") - first

    def plain(self, regions: Any, maps: Sequence[Any]) -> Any:
        """The computation in operations that every backend has: four gathers from the pixels of all maps."""
        count, channels = ops.shape(regions)[0], maps[0].shape[-1]
        shapes = [ops.shape(features)[1:3] for features in maps]
        pixels = ops.concatenate([ops.reshape(features, (count, -1, channels)) for features in maps], axis=1)
        starts = [ops.cast(0, "int32")]
        for height, width in shapes[:-1]:
            starts.append(starts[-1] + ops.cast(height * width, "int32"))
        of_level = [
            ops.convert_to_tensor(values)
            for values in (
                ops.stack([ops.cast(shape[0], "int32") for shape in shapes]),
                ops.stack([ops.cast(shape[1], "int32") for shape in shapes]),
                ops.stack(starts),
            )
        ]
        level = self.chosen(regions)
        heights, widths, starts = (ops.take(values, level) for values in of_level)
        scale = ops.take(ops.convert_to_tensor([2.0**-level for level in self.levels], "float32"), level)
        rows = self._samples(regions[..., 1] * scale, regions[..., 3] * scale, heights)
        columns = self._samples(regions[..., 0] * scale, regions[..., 2] * scale, widths)
        total = None
        for row, row_weight in rows:
            for column, column_weight in columns:
                places = starts[..., None, None] + row[..., :, None] * widths[..., None, None] + column[..., None, :]
                shape = ops.shape(places)
                values = ops.take_along_axis(pixels, ops.reshape(places, (count, -1, 1)), axis=1)
                values = ops.cast(ops.reshape(values, (*shape, channels)), "float32")
                values = values * (row_weight[..., :, None] * column_weight[..., None, :])[..., None]
                total = values if total is None else total + values
        return self._mean(total, maps[0].dtype)

    def _mean(self, values: Any, dtype: Any) -> Any:
        """The means over the sampling points of each output pixel."""
        count, regions = ops.shape(values)[:2]
        shape = (count, regions, self.size, self.samples, self.size, self.samples, values.shape[-1])
        return ops.cast(ops.mean(ops.reshape(values, shape), axis=(3, 5)), dtype)

    def _samples(self, start: Any, end: Any, length: Any) -> list[tuple[Any, Any]]:
        """Positions and weights of the lower and the upper neighbour of all sampling points along one axis.

        Points up to one pixel outside the map take the value of its border. The value of points further outside is 0.
        """
        points = self.size * self.samples
        steps = ops.maximum(end - start, 1.0) / points
        at = start[..., None] + (ops.arange(points, dtype="float32") + 0.5) * steps[..., None]
        length = ops.cast(length, "float32")[..., None]
        inside = ops.cast(ops.logical_and(at >= -1.0, at <= length), "float32")
        at = ops.minimum(ops.maximum(at, 0.0), length - 1)
        lower = ops.floor(at)
        upper = ops.minimum(lower + 1, length - 1)
        share = at - lower
        return [(ops.cast(lower, "int32"), inside * (1 - share)), (ops.cast(upper, "int32"), inside * share)]

    def compute_output_spec(self, inputs: Sequence[Any]) -> keras.KerasTensor:
        """The symbolic output."""
        regions, *maps = inputs
        shape = (*regions.shape[:2], self.size, self.size, maps[0].shape[-1])
        return keras.KerasTensor(shape, maps[0].dtype)

    def get_config(self) -> dict[str, Any]:
        """Levels, size and samples."""
        return super().get_config() | {"levels": self.levels, "size": self.size, "samples": self.samples}
