"""FractalNets: blocks of columns of different depth that are joined repeatedly, without residual connections.

G. Larsson, M. Maire, G. Shakhnarovich: "FractalNet: Ultra-Deep Neural Networks without Residuals", ICLR 2017, arXiv:1605.07648.
Column ``k`` of a block has ``2**(k - 1)`` convolutions, so the last column is the deepest. Where convolutions of several columns end at the
same depth, a join takes the mean of their maps. It is the input of the next convolution of each of these columns.

The authors' code is github.com/gustavla/fractalnet, in Caffe. Where the paper is silent, this library does what the code does:

* Dropout is between a convolution and its batch normalisation, and drops single units.
* At the end of a block, each column is pooled, and the last join follows. ``pool_before_join=False`` pools after the join, as pytorchcv
  does. The results differ: the maximum of a mean is not the mean of the maxima.
* Weights are drawn uniformly with variance 1 / fan-in, which is Caffe's "xavier".

Choices of this library:

* Batch normalisation has a scale and an offset, and convolutions have no bias, as in pytorchcv. The authors' code has biases instead.
* FractalNet21 has 33,724,618 parameters, as in pytorchcv. Comparisons in later papers print 38.6M. The authors' public code does not give
  this number. ``doubling=True`` has 38,648,074 parameters. Before each block with a new number of channels, a 1×1 convolution with a bias
  changes the channels. All other convolutions of the block keep them. This structure is inferred from the number.
* In a mini-batch, the first half of the samples uses global sampling of drop-path, with one column per sample. The other half uses local
  sampling, with own draws per sample and join.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import CIFAR10, Domain, Family, Paper, option
from keras_deepnets.families.checks import check_counts, check_probability, set_counts
from keras_deepnets.families.constructors import builder, variant

PAPER = Paper(
    "L16",
    "FractalNet: Ultra-Deep Neural Networks without Residuals",
    "Larsson et al.",
    2016,
    "https://arxiv.org/abs/1605.07648",
)

_OWNER = "FractalNet"


@dataclass(frozen=True)
class FractalNetSpec:
    """Blocks of columns with 2×2 max pooling at the end of each (sections 2 and 4.1)."""

    columns: int = option(3, "columns per block. Column k has 2**(k - 1) convolutions.")
    filters: tuple[int, ...] = option((64, 128, 256, 512, 512), "channels per block.")
    dropout: float | tuple[float, ...] = option(
        (0.0, 0.1, 0.2, 0.3, 0.4),
        "probability to drop a unit after a convolution: one per block, or one for all blocks.",
    )
    drop_path: float = option(0.15, "probability to drop an input of a join in local sampling.")
    global_share: float = option(
        0.5, "share of the samples of a mini-batch with global sampling: a single column of the whole network."
    )
    doubling: bool = option(
        False, "1×1 convolution before each block that has another number of channels than the one before."
    )
    pool_before_join: bool = option(
        True, "whether each column is pooled before the last join of a block. If False, the join is pooled."
    )
    column: int | None = option(None, "build only this column as a plain network, from 1. None builds all columns.")

    def __post_init__(self):
        """Checks all values."""
        check_counts(_OWNER, columns=self.columns)
        set_counts(_OWNER, self, "filters")
        if isinstance(self.dropout, (tuple, list)):
            object.__setattr__(self, "dropout", tuple(self.dropout))
            if len(self.dropout) != len(self.filters):
                raise InputError(
                    f"{_OWNER}: dropout={self.dropout} must have one probability for each of the {len(self.filters)} blocks; "
                    "a number applies to all."
                )
        for rate in self.dropouts:
            check_probability(_OWNER, "dropout", rate)
        check_probability(_OWNER, "drop_path", self.drop_path)
        share = self.global_share
        if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 <= share <= 1:
            raise InputError(f"{_OWNER}: global_share={share!r} must be a share of the samples in [0, 1], e.g. 0.5.")
        if self.column is not None:
            check_counts(_OWNER, column=self.column)
            if self.column > self.columns:
                raise InputError(
                    f"{_OWNER}: column={self.column} does not exist; the network has columns 1 to {self.columns}."
                )

    @property
    def dropouts(self) -> tuple[float, ...]:
        """The drop probability of each block."""
        return self.dropout if isinstance(self.dropout, tuple) else (self.dropout,) * len(self.filters)

    @property
    def built_columns(self) -> tuple[int, ...]:
        """The numbers of the columns that are built, the shallowest first."""
        return tuple(range(1, self.columns + 1)) if self.column is None else (self.column,)

    @property
    def domain(self) -> Domain:
        """CIFAR-10."""
        return CIFAR10

    @property
    def depth(self) -> int:
        """Convolutions of the deepest column that is built, without those of `doubling`, and the classifier."""
        return len(self.filters) * 2 ** (self.built_columns[-1] - 1) + 1

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return 2 ** len(self.filters)


_XAVIER = "lecun_uniform"
"""Keras' name of Caffe's initialiser "xavier"."""


def _unit(x: Any, filters: int, dropout: float, name: str) -> Any:
    x = layers.conv2d(x, filters, 3, kernel_initializer=_XAVIER, name=f"{name}_conv")
    x = layers.dropout(x, dropout, name=f"{name}_dropout")
    return layers.norm_activation(x, ("bn", "relu"), name=name)


def _pool(x: Any, name: str) -> Any:
    return layers.max_pool(x, 2, 2, padding="valid", name=name)


def fractal_block(x: Any, spec: FractalNetSpec, block: int, plan: Any) -> Any:
    """Block number `block`, from 1, with its pooling. `plan` is that of global sampling, or None."""
    filters, dropout = spec.filters[block - 1], spec.dropouts[block - 1]
    if spec.doubling and x.shape[-1] != filters:
        name = f"block{block}_doubling_conv"
        x = layers.conv2d(x, filters, 1, use_bias=True, kernel_initializer=_XAVIER, name=name)
    maps = dict.fromkeys(spec.built_columns, x)
    last = 2 ** (spec.columns - 1)
    for row in range(1, last + 1):
        # Column k has a convolution in every 2**(columns - k)-th row.
        steps = {column: 2 ** (spec.columns - column) for column in maps}
        ending = [column for column, step in steps.items() if row % step == 0]
        for column in ending:
            name = f"block{block}_column{column}"
            maps[column] = _unit(maps[column], filters, dropout, f"{name}_{row // steps[column]}")
            if row == last and spec.pool_before_join:
                maps[column] = _pool(maps[column], f"{name}_pool")
        if len(ending) > 1:
            name = f"block{block}_output" if row == last and spec.pool_before_join else f"block{block}_join{row}"
            joined = {column: maps[column] for column in ending}
            x = layers.fractal_join(joined, plan, drop_path=spec.drop_path, name=name)
            maps.update(dict.fromkeys(ending, x))
    x = maps[spec.built_columns[-1]]
    return x if spec.pool_before_join else _pool(x, f"block{block}_pool")


def features(x: Any, spec: FractalNetSpec) -> Any:
    """The blocks, from images to the last feature map."""
    plan = None
    if len(spec.built_columns) > 1:
        plan = layers.column_plan(x, spec.columns, spec.global_share, name="column_plan")
    for block in range(1, len(spec.filters) + 1):
        x = fractal_block(x, spec, block, plan)
    return x


_OPTIONS = ("dropout", "drop_path", "global_share", "doubling", "pool_before_join", "column")
FAMILY = Family("FractalNet", FractalNetSpec, features, PAPER, _OPTIONS)

FractalNet = builder("FractalNet", FAMILY)
FractalNet21 = variant(
    "FractalNet21",
    FAMILY,
    source="section 4.1 and Table 1",
    error="4.60 %, CIFAR-10 test, with augmentation, drop-path and dropout (5.22 % without these two)",
    columns=3,
    filters=(64, 128, 256, 512, 512),
)
