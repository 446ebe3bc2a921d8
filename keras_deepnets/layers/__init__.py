"""The layer factories that all families use.

The factories are functions ``tensor -> tensor``. They set what the papers' networks have in common: padding, bias, initialiser, epsilon
and momentum. The namespace is lazy: Keras is imported when the first factory is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from keras_deepnets.lazy import lazy_names

if TYPE_CHECKING:
    from keras_deepnets.layers.antialiasing import BlurPooling2D, antialiased, antialiased_max_pool
    from keras_deepnets.layers.attention import efficient_channel_attention, squeeze_excitation
    from keras_deepnets.layers.block import Block, inlined_blocks, shared_blocks
    from keras_deepnets.layers.building import named, prefixed, quickly
    from keras_deepnets.layers.convolution import Conv2D, conv2d
    from keras_deepnets.layers.dense_connectivity import Concatenate, RecomputedConv2D, concatenate, recomputed_conv2d
    from keras_deepnets.layers.fractal import ColumnPlan, FractalJoin, column_plan, fractal_join
    from keras_deepnets.layers.gates import HighwayGate, highway_conv2d, highway_dense
    from keras_deepnets.layers.heads import SlowDense, classifier, map_classifier, pool_features
    from keras_deepnets.layers.local_response import LocalResponseNormalization, local_response_norm
    from keras_deepnets.layers.maxout import Maxout, maxout_conv2d, maxout_dense
    from keras_deepnets.layers.normalization import (
        Activation,
        BatchNormalization,
        activation,
        batch_norm,
        conv_bn,
        conv_bn_relu,
        group_norm,
        norm_activation,
    )
    from keras_deepnets.layers.pooling import (
        AdaptiveAveragePooling2D,
        AdaptiveMaxPooling2D,
        AveragePooling2D,
        MaxPooling2D,
        SpatialPyramidPooling,
        adaptive_average_pool,
        adaptive_max_pool,
        average_pool,
        average_pool_with_zeros,
        max_pool,
        spatial_pyramid_pool,
    )
    from keras_deepnets.layers.rectifiers import PReLU, prelu
    from keras_deepnets.layers.scaling import InputScaling, scale_input
    from keras_deepnets.layers.shortcuts import SHORTCUTS, ZeroPadShortcut, add, projected, shortcut, subsampled
    from keras_deepnets.layers.stems import stem_convolutions
    from keras_deepnets.layers.stochastic import Dropout, StochasticDepth, dropout, linear_survival, stochastic_depth
    from keras_deepnets.layers.unnormalized import biased_conv2d, biased_dense, flatten, norm_constraint
    from keras_deepnets.layers.whitening import GlobalContrastNormalization, ZCAWhitening, normalize_contrast

_MODULES = {
    "building": ("named", "prefixed", "quickly"),
    "antialiasing": ("BlurPooling2D", "antialiased", "antialiased_max_pool"),
    "attention": ("efficient_channel_attention", "squeeze_excitation"),
    "block": ("Block", "inlined_blocks", "shared_blocks"),
    "convolution": ("Conv2D", "conv2d"),
    "dense_connectivity": ("Concatenate", "RecomputedConv2D", "concatenate", "recomputed_conv2d"),
    "fractal": ("ColumnPlan", "FractalJoin", "column_plan", "fractal_join"),
    "gates": ("HighwayGate", "highway_conv2d", "highway_dense"),
    "heads": ("SlowDense", "classifier", "map_classifier", "pool_features"),
    "local_response": ("LocalResponseNormalization", "local_response_norm"),
    "maxout": ("Maxout", "maxout_conv2d", "maxout_dense"),
    "normalization": (
        "Activation",
        "BatchNormalization",
        "activation",
        "batch_norm",
        "conv_bn",
        "conv_bn_relu",
        "group_norm",
        "norm_activation",
    ),
    "pooling": (
        "AdaptiveAveragePooling2D",
        "AdaptiveMaxPooling2D",
        "AveragePooling2D",
        "MaxPooling2D",
        "SpatialPyramidPooling",
        "adaptive_average_pool",
        "adaptive_max_pool",
        "average_pool",
        "average_pool_with_zeros",
        "max_pool",
        "spatial_pyramid_pool",
    ),
    "rectifiers": ("PReLU", "prelu"),
    "scaling": ("InputScaling", "scale_input"),
    "shortcuts": ("SHORTCUTS", "ZeroPadShortcut", "add", "projected", "shortcut", "subsampled"),
    "stems": ("stem_convolutions",),
    "stochastic": ("Dropout", "StochasticDepth", "dropout", "linear_survival", "stochastic_depth"),
    "whitening": ("GlobalContrastNormalization", "ZCAWhitening", "normalize_contrast"),
    "unnormalized": ("biased_conv2d", "biased_dense", "flatten", "norm_constraint"),
}

__all__ = [
    "SHORTCUTS",
    "Activation",
    "AdaptiveAveragePooling2D",
    "AdaptiveMaxPooling2D",
    "AveragePooling2D",
    "BatchNormalization",
    "Block",
    "BlurPooling2D",
    "ColumnPlan",
    "Concatenate",
    "Conv2D",
    "Dropout",
    "FractalJoin",
    "GlobalContrastNormalization",
    "HighwayGate",
    "InputScaling",
    "LocalResponseNormalization",
    "MaxPooling2D",
    "Maxout",
    "PReLU",
    "RecomputedConv2D",
    "SlowDense",
    "SpatialPyramidPooling",
    "StochasticDepth",
    "ZCAWhitening",
    "ZeroPadShortcut",
    "activation",
    "adaptive_average_pool",
    "adaptive_max_pool",
    "add",
    "antialiased",
    "antialiased_max_pool",
    "average_pool",
    "average_pool_with_zeros",
    "batch_norm",
    "biased_conv2d",
    "biased_dense",
    "classifier",
    "column_plan",
    "concatenate",
    "conv2d",
    "conv_bn",
    "conv_bn_relu",
    "dropout",
    "efficient_channel_attention",
    "flatten",
    "fractal_join",
    "group_norm",
    "highway_conv2d",
    "highway_dense",
    "inlined_blocks",
    "linear_survival",
    "local_response_norm",
    "map_classifier",
    "max_pool",
    "maxout_conv2d",
    "maxout_dense",
    "named",
    "norm_activation",
    "norm_constraint",
    "normalize_contrast",
    "pool_features",
    "prefixed",
    "prelu",
    "projected",
    "quickly",
    "recomputed_conv2d",
    "scale_input",
    "shared_blocks",
    "shortcut",
    "spatial_pyramid_pool",
    "squeeze_excitation",
    "stem_convolutions",
    "stochastic_depth",
    "subsampled",
]


__getattr__, __dir__ = lazy_names(__name__, _MODULES, first="keras")


def register() -> None:
    """Imports all layers, which registers them with Keras serialisation."""
    for module in _MODULES:
        importlib.import_module(f"{__name__}.{module}")
