"""BN-Inception: Inception modules with batch normalisation after each convolution.

S. Ioffe, C. Szegedy: "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift", ICML 2015,
arXiv:1502.03167. The appendix (Figure 5) lists the modules.

* The published weights (Caffe, ported to torch) have 128 channels after the pooling of modules 4c and 4d. The sizes that the paper prints
  imply 96. The network is that of the weights; ``BNInception(modules=…)`` builds others.
* Convolutions have biases, although batch normalisation follows, because the published weights have them.
* Average poolings count the zeros of their padding. The poolings and strided convolutions pad like Caffe's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import IMAGENET, Domain, Family, Paper, option
from keras_deepnets.families.checks import check_counts
from keras_deepnets.families.constructors import variant
from keras_deepnets.families.inception import Module, Stages, check_modules, module_names

PAPER = Paper(
    "I15",
    "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
    "Ioffe & Szegedy",
    2015,
    "https://arxiv.org/abs/1502.03167",
)

_OWNER = "BNInception"
MODULES: Stages = (
    ((64, 64, 64, 64, 96, 32), (64, 64, 96, 64, 96, 64), (0, 128, 160, 64, 96, 0)),
    (
        (224, 64, 96, 96, 128, 128),
        (192, 96, 128, 96, 128, 128),
        (160, 128, 160, 128, 160, 128),
        (96, 128, 192, 160, 192, 128),
        (0, 128, 192, 192, 256, 0),
    ),
    ((352, 192, 320, 160, 224, 128), (352, 192, 320, 192, 224, 128)),
)


@dataclass(frozen=True)
class BNInceptionSpec:
    """A stem of three convolutions, then stages of Inception modules (Figure 5)."""

    modules: tuple[tuple[tuple[int, ...], ...], ...] = option(
        MODULES,
        "per stage, six numbers per module: channels of the 1×1 branch; of the reduction and the convolution of the 3×3 branch; of the "
        "reduction and both convolutions of the double 3×3 branch; and after the pooling. A module whose first and last number are 0 "
        "halves the resolution.",
    )

    def __post_init__(self):
        """Checks all values."""
        modules = check_modules(_OWNER, self.modules, MODULES[0])
        object.__setattr__(self, "modules", modules)
        for stage in modules:
            for module in stage:
                if (module[0] == 0) != (module[5] == 0):
                    raise InputError(
                        f"{_OWNER}: in module {module}, the first and the last number must both be 0 or both be at least 1."
                    )
                check_counts(_OWNER, modules=module[1:5] if module[0] == 0 else module)

    @property
    def domain(self) -> Domain:
        """ImageNet."""
        return IMAGENET

    @property
    def depth(self) -> int:
        """Convolutions along the longest path, and the classifier."""
        return 3 + 3 * sum(map(len, self.modules)) + 1

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return 8 * 2 ** sum(module[0] == 0 for stage in self.modules for module in stage)


def _unit(x: Any, filters: int, kernel_size: int, name: str, strides: int = 1) -> Any:
    return layers.conv_bn_relu(x, filters, kernel_size, strides=strides, use_bias=True, name=name)


def inception(x: Any, module: Module, name: str, last: bool) -> Any:
    """One module of Figure 5. The pooling of the last module is a maximum."""
    one, reduce_3, three, reduce_double, double, projection = module
    strides = 1 if one else 2
    branches = [_unit(x, one, 1, f"{name}_1x1")] if one else []
    y = _unit(x, reduce_3, 1, f"{name}_3x3_reduce")
    branches.append(_unit(y, three, 3, f"{name}_3x3", strides))
    y = _unit(x, reduce_double, 1, f"{name}_double_3x3_reduce")
    y = _unit(y, double, 3, f"{name}_double_3x3_1")
    branches.append(_unit(y, double, 3, f"{name}_double_3x3_2", strides))
    if not one:
        # "same" and the symmetric padding of the strided convolutions agree on the size of every map.
        branches.append(layers.max_pool(x, 3, 2, padding="same", name=f"{name}_pool"))
    elif last:
        branches.append(_unit(layers.max_pool(x, 3, 1, name=f"{name}_pool"), projection, 1, f"{name}_pool_proj"))
    else:
        pooled = layers.average_pool_with_zeros(x, 3, name=f"{name}_pool")
        branches.append(_unit(pooled, projection, 1, f"{name}_pool_proj"))
    return layers.concatenate(branches, name=f"{name}_output")


def features(x: Any, spec: BNInceptionSpec) -> Any:
    """The network of Figure 5, from images to the last feature map."""
    x = _unit(x, 64, 7, "conv1_7x7_s2", 2)
    x = layers.max_pool(x, 3, 2, padding="ceil", name="pool1_3x3_s2")
    x = _unit(x, 64, 1, "conv2_3x3_reduce")
    x = _unit(x, 192, 3, "conv2_3x3")
    x = layers.max_pool(x, 3, 2, padding="ceil", name="pool2_3x3_s2")
    names = module_names(spec.modules)
    for name, module in names:
        x = inception(x, module, f"inception_{name}", last=name == names[-1][0])
    return x


FAMILY = Family("BNInception", BNInceptionSpec, features, PAPER, ("modules",))

BNInception = variant(
    "BNInception",
    FAMILY,
    source="Figure 5, with the channels of the published weights",
    error="27.8 % top-1, ImageNet validation, single crop (BN-Baseline)",
    modules=MODULES,
)
