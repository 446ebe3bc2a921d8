"""Joins of parallel columns, and drop-path [Larsson et al. 2017, arXiv:1605.07648, section 3]."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_deepnets.layers.building import named
from keras_deepnets.layers.precision import at_least_float32


@keras.saving.register_keras_serializable("keras_deepnets")
class ColumnPlan(keras.layers.Layer):
    """Chooses in training which samples use a single column of the whole network, and which column: global sampling.

    In each mini-batch of `n` samples, the first ``share·n`` use one column each, drawn uniformly. If ``share·n`` is not a whole number, it
    is rounded up or down at random with the right expectation. The other samples have no column. At inference none has one.

    Args:
        columns: number of columns.
        share: share of the samples with global sampling, in [0, 1].
        seed: random seed.

    Shapes: ``[n, …]`` to ``[n, columns]`` in the compute dtype: 1 at a sample's column, 0 elsewhere. Only the size of the batch is read.
    """

    def __init__(self, columns: int, share: float = 0.5, seed: int | None = None, **kwargs: Any):
        """Raises ValueError if `columns` is less than 1, or if `share` is outside [0, 1]."""
        super().__init__(**kwargs)
        if columns < 1:
            raise ValueError(f"ColumnPlan: columns={columns} must be at least 1.")
        if not 0 <= share <= 1:
            raise ValueError(f"ColumnPlan: share={share} is not a share in [0, 1].")
        self.columns = columns
        self.share = float(share)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """The plan of the batch."""
        count = ops.shape(inputs)[0]
        if not training:
            return ops.zeros((count, self.columns), self.compute_dtype)
        rounding, draws = (
            keras.random.uniform(shape, dtype="float32", seed=self.seed_generator) for shape in ((), (count,))
        )
        chosen = ops.cast(ops.floor(self.share * ops.cast(count, "float32") + rounding), "int32")
        column = ops.minimum(ops.cast(draws * self.columns, "int32"), self.columns - 1)
        plan = ops.expand_dims(column, 1) == ops.arange(self.columns, dtype="int32")
        return ops.cast(plan & ops.expand_dims(ops.arange(count, dtype="int32") < chosen, 1), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the plan."""
        return (input_shape[0], self.columns)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"columns": self.columns, "share": self.share, "seed": self.seed}


@keras.saving.register_keras_serializable("keras_deepnets")
class FractalJoin(keras.layers.Layer):
    """The element-wise mean of parallel maps, of which some are dropped at random in training.

    * A sample whose plan has one of the joined columns keeps only the map of that column (global sampling).
    * All other samples drop each map with probability `drop_path`. If all are dropped, a random one is kept (local sampling).

    The mean is over the maps that are kept. At inference, and if the layer is frozen (``trainable=False``), it is over all maps.

    The paper does not say what a join computes whose columns do not include the sample's. A later join drops the result, so it affects
    only the statistics of batch normalisation. Here such a join uses local sampling, so that it computes no maps of zeros.

    Args:
        columns: numbers of the joined columns, from 1, consecutive: one for each map.
        drop_path: probability in [0, 1) to drop a map in local sampling.
        seed: random seed.

    Shapes: a list of ``[n, …]`` and, optionally, the plan of a `ColumnPlan`, ``[n, all columns]``, to ``[n, …]``. Without a plan, all
    samples use local sampling.
    """

    def __init__(self, columns: Sequence[int], drop_path: float = 0.0, seed: int | None = None, **kwargs: Any):
        """Raises ValueError for a probability outside [0, 1), or if `columns` are not consecutive numbers."""
        super().__init__(**kwargs)
        if not 0 <= drop_path < 1:
            raise ValueError(f"FractalJoin: drop_path={drop_path} is not a probability in [0, 1).")
        self.columns = tuple(columns)
        first = self.columns[0] if self.columns else 1
        if first < 1 or self.columns != tuple(range(first, first + len(self.columns))) or not self.columns:
            raise ValueError(f"FractalJoin: columns={self.columns} must be consecutive numbers from 1, e.g. (2, 3).")
        self.drop_path = float(drop_path)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def shares(self, count: Any, plan: Any = None) -> Any:
        """The weight of each map in the mean: float32 or float64 ``[count, joined columns]``, drawn anew. Each row has the sum 1."""
        joined, dtype = len(self.columns), at_least_float32(self.compute_dtype)
        if self.drop_path:
            draws = keras.random.uniform((count, joined), dtype="float32", seed=self.seed_generator)
            # The largest draw belongs to a map that is kept. If none is kept, it is that of any map with the same probability.
            kept = (draws >= self.drop_path) | (draws == ops.max(draws, axis=1, keepdims=True))
            kept = ops.cast(kept, dtype)
            shares = kept / ops.sum(kept, axis=1, keepdims=True)
        else:
            shares = ops.full((count, joined), 1 / joined, dtype)
        if plan is None:
            return shares
        column = ops.cast(plan[:, self.columns[0] - 1 : self.columns[-1]], dtype)
        return column + (1 - ops.sum(column, axis=1, keepdims=True)) * shares

    def call(self, maps: Sequence[Any], plan: Any = None, training: bool | None = None) -> Any:
        """The mean of the maps."""
        if not training or not self.trainable or (plan is None and not self.drop_path):
            return functools.reduce(ops.add, maps) * (1 / len(maps))
        count = ops.shape(maps[0])[0]
        shares = ops.cast(self.shares(count, plan), maps[0].dtype)
        columns = ops.split(shares, len(maps), axis=1)
        per_image = (count,) + (1,) * (len(maps[0].shape) - 1)
        weighted = [ops.reshape(column, per_image) * image for column, image in zip(columns, maps, strict=True)]
        return functools.reduce(ops.add, weighted)

    def compute_output_shape(self, maps_shape: Any, plan_shape: Any = None) -> tuple[int | None, ...]:
        """The shape of the output: that of each map."""
        return tuple(maps_shape[0])

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"columns": self.columns, "drop_path": self.drop_path, "seed": self.seed}


def column_plan(x: Any, columns: int, share: float, *, name: str | None = None) -> Any:
    """The plan ``[n, columns]`` of global sampling for the batch `x`, or None if no sample uses it."""
    return ColumnPlan(columns, share, name=named(name))(x) if share else None


def fractal_join(maps: Mapping[int, Any], plan: Any = None, *, drop_path: float = 0.0, name: str | None = None) -> Any:
    """The mean of `maps`, column number to map, with drop-path. The other arguments are those of `FractalJoin`."""
    return FractalJoin(tuple(maps), drop_path, name=named(name))(list(maps.values()), plan)
