"""Anchors: the reference boxes of the region proposal network (Ren et al. 2015, section 3.1.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

RATIOS = (0.5, 1.0, 2.0)
"""Height over width of the anchors."""


def cell_anchors(sizes: Sequence[float], ratios: Sequence[float] = RATIOS) -> np.ndarray:
    """The anchors around the origin: float32 ``[ratios × sizes, 4]``, all sizes of the first ratio first.

    An anchor of size s has the area s². Its coordinates are rounded to whole pixels, half to even, as in torchvision.
    """
    heights = np.sqrt(np.asarray(ratios, "float32"))[:, None] * np.asarray(sizes, "float32")
    widths = (np.float32(1) / np.sqrt(np.asarray(ratios, "float32")))[:, None] * np.asarray(sizes, "float32")
    corners = np.stack([-widths.ravel(), -heights.ravel(), widths.ravel(), heights.ravel()], axis=1)
    return np.round(corners / 2)


@keras.saving.register_keras_serializable("keras_deepnets")
class Anchors(keras.layers.Layer):
    """The anchors of each feature map.

    Input: images ``[n, h, w, c]``, then feature maps ``[n, h', w', c']``. Output: for each map, float32 ``[h'·w'·a, 4]`` in pixels of
    the image. Anchors of a position follow each other. The position (i, j) has its anchors' centre at i and j times the map's stride.
    """

    def __init__(self, sizes: Sequence[Sequence[float]], ratios: Sequence[float] = RATIOS, **kwargs: Any):
        """Create the layer.

        Args:
            sizes: sizes of the anchors for each feature map, in pixels.
            ratios: height over width of the anchors.
            **kwargs: arguments of `keras.layers.Layer`.
        """
        super().__init__(**{"dtype": "float32", "autocast": False} | kwargs)
        self.sizes = tuple(tuple(of_map) for of_map in sizes)
        self.ratios = tuple(ratios)

    def call(self, inputs: Sequence[Any]) -> list[Any]:
        """Images and feature maps to anchors."""
        height, width = ops.shape(inputs[0])[1:3]
        return [
            self._grid(ops.shape(features)[1:3], (height, width), sizes)
            for features, sizes in zip(inputs[1:], self.sizes, strict=True)
        ]

    def _grid(self, shape: Any, image: Any, sizes: Sequence[float]) -> Any:
        shifts = [
            ops.cast(ops.arange(cells) * (side // cells), "float32") for cells, side in zip(shape, image, strict=True)
        ]
        y, x = ops.meshgrid(*shifts, indexing="ij")
        shifts = ops.reshape(ops.stack([x, y, x, y], axis=-1), (-1, 1, 4))
        return ops.reshape(shifts + cell_anchors(sizes, self.ratios), (-1, 4))

    def compute_output_spec(self, inputs: Sequence[Any]) -> list[keras.KerasTensor]:
        """Symbolic outputs. The number of anchors is None if a side of the map is unknown."""
        specs = []
        for features, sizes in zip(inputs[1:], self.sizes, strict=True):
            height, width = features.shape[1:3]
            known = None not in (height, width)
            specs.append(
                keras.KerasTensor((height * width * len(sizes) * len(self.ratios) if known else None, 4), "float32")
            )
        return specs

    def get_config(self) -> dict[str, Any]:
        """Sizes and ratios."""
        return super().get_config() | {"sizes": self.sizes, "ratios": self.ratios}
