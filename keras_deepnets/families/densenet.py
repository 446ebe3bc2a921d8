"""Densely connected networks.

G. Huang, Z. Liu, L. van der Maaten, K. Q. Weinberger: "Densely Connected Convolutional Networks", CVPR 2017, arXiv:1608.06993.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import CIFAR10, IMAGENET, Domain, Family, Paper, option
from keras_deepnets.families.checks import (
    check_choice,
    check_counts,
    check_deep_stem,
    check_probability,
    repeats_of_depth,
)
from keras_deepnets.families.constructors import builder, variant

PAPER = Paper(
    "G16", "Densely Connected Convolutional Networks", "Huang et al.", 2016, "https://arxiv.org/abs/1608.06993"
)

BOTTLENECK_WIDTH = 4
"""Channels of a bottleneck's 1×1 convolution, as a multiple of the growth rate (section 3, "Bottleneck layers")."""

STEMS = ("imagenet", "cifar")
CIFAR_BLOCKS = 3
PLAIN_CIFAR_FILTERS = 16


@dataclass(frozen=True)
class DenseSpec:
    """A DenseNet: every layer of a block reads the feature maps of all preceding layers (section 3)."""

    blocks: tuple[int, ...] = option(None, "layers per dense block, e.g. (6, 12, 24, 16); alternative to depth.")
    depth: int = option(None, "number of layers, for CIFAR networks instead of blocks: 3n+4, or 6n+4 with bottlenecks.")
    growth_rate: int = option(32, "growth rate k: feature maps that each layer adds.")
    bottleneck: bool = option(True, "DenseNet-B: a 1×1 convolution to 4k channels before each 3×3.")
    compression: float = option(
        0.5, "DenseNet-C: θ, the share of channels that a transition keeps; 1 keeps all channels."
    )
    stem: str = option(
        "imagenet", '"imagenet" (7×7 convolution with stride 2, then max pooling) or "cifar" (3×3 convolution).'
    )
    initial_filters: int = option(
        None,
        "filters of the first convolution. Default: 2k, but 16 with the CIFAR stem unless both bottlenecks and compression are on.",
    )
    deep_stem: tuple[int, ...] | None = option(
        None,
        "filters of the 3×3 convolutions that replace the 7×7 convolution of the ImageNet stem, e.g. (32, 32, 64) (as in ResNet-C, "
        "T. He et al. 2019). The last number equals initial_filters.",
    )
    stem_padding: str = option(
        "symmetric",
        'padding of the ImageNet stem: "symmetric" (the paper and torch) or "same" (TensorFlow; KerasHub\'s weights need it).',
    )
    antialias: str | None = option(
        None,
        '"blur" blurs the output of the stem\'s max pooling before subsampling it (Zhang 2019). Transitions use average pooling anyway.',
    )
    dropout: float = option(
        0.0, "dropout rate after each convolution except the first (section 4.2: 0.2 without augmentation)."
    )

    memory_efficient: bool = option(
        False,
        "recompute the inputs of the convolutions in the backward pass. Memory then grows linearly with depth. Weights and results do not "
        "change.",
    )

    def __post_init__(self):
        """Checks all values and fills in the derived ones."""
        check_choice("DenseNet", "stem", self.stem, STEMS)
        for name in ("bottleneck", "memory_efficient"):
            check_choice("DenseNet", name, getattr(self, name), (True, False))
        check_counts("DenseNet", growth_rate=self.growth_rate)
        if not 0 < self.compression <= 1:
            raise InputError(f"DenseNet: compression={self.compression} must be a share in (0, 1].")
        check_probability("DenseNet", "dropout", self.dropout)
        check_choice("DenseNet", "antialias", self.antialias, (None, "blur"))
        if self.antialias and self.stem != "imagenet":
            raise InputError(
                f"DenseNet: antialias={self.antialias!r} applies to the max pooling of stem='imagenet'; stem is {self.stem!r}."
            )
        check_choice("DenseNet", "stem_padding", self.stem_padding, ("symmetric", "same"))
        if self.stem_padding == "same" and (self.stem != "imagenet" or self.antialias):
            raise InputError(
                f"DenseNet: stem_padding='same' applies to stem='imagenet' without antialias; stem is {self.stem!r}, "
                f"antialias {self.antialias!r}. Leave it out."
            )
        self._check_deep_stem()
        object.__setattr__(self, "blocks", self._blocks())
        object.__setattr__(self, "depth", self._convolutions * sum(self.blocks) + len(self.blocks) + 1)
        if self.initial_filters is None:
            object.__setattr__(self, "initial_filters", self._initial_filters())
        check_counts("DenseNet", initial_filters=self.initial_filters)

    def _check_deep_stem(self) -> None:
        if self.deep_stem is None:
            return
        object.__setattr__(self, "deep_stem", check_deep_stem("DenseNet", self.deep_stem, self.stem))
        if self.initial_filters not in (None, self.deep_stem[-1]):
            raise InputError(
                f"DenseNet: initial_filters={self.initial_filters} contradicts deep_stem={self.deep_stem}, whose last number is "
                f"{self.deep_stem[-1]}; give one of them."
            )

    @property
    def _convolutions(self) -> int:
        return 2 if self.bottleneck else 1

    def _initial_filters(self) -> int:
        if self.stem == "cifar" and not (self.bottleneck and self.compression < 1):
            return PLAIN_CIFAR_FILTERS
        return 2 * self.growth_rate if self.deep_stem is None else self.deep_stem[-1]

    def _blocks(self) -> tuple[int, ...]:
        if self.blocks is not None:
            blocks = tuple(self.blocks)
            if not blocks:
                raise InputError("DenseNet: blocks=() is empty; give the layers of at least one block.")
            check_counts("DenseNet", blocks=blocks)
            if self.depth not in (None, self._convolutions * sum(blocks) + len(blocks) + 1):
                raise InputError(f"DenseNet: depth={self.depth} contradicts blocks={blocks}; give one of them.")
            return blocks
        if self.depth is None:
            raise InputError("DenseNet: give blocks, e.g. blocks=(6, 12, 24, 16), or a depth with stem='cifar'.")
        if self.stem != "cifar":
            raise InputError(
                f"DenseNet: depth={self.depth} determines the blocks of CIFAR networks only; give blocks=(…) with stem='imagenet'."
            )
        kind = "with" if self.bottleneck else "without"
        step, rest = CIFAR_BLOCKS * self._convolutions, CIFAR_BLOCKS + 1
        count = repeats_of_depth("DenseNet", self.depth, step, rest, f"three blocks {kind} bottlenecks")
        return (count,) * CIFAR_BLOCKS

    @property
    def domain(self) -> Domain:
        """ImageNet or CIFAR-10, depending on the stem."""
        return IMAGENET if self.stem == "imagenet" else CIFAR10

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return (4 if self.stem == "imagenet" else 1) * 2 ** (len(self.blocks) - 1)


def stem(x: Any, spec: DenseSpec) -> Any:
    """The first convolution (Table 1; for CIFAR section 3, "Implementation Details").

    On CIFAR, the BN of the first dense layer follows it directly.
    """
    if spec.stem == "cifar":
        return layers.conv2d(x, spec.initial_filters, 3, name="conv1_conv")
    x = layers.stem_convolutions(x, spec.initial_filters, spec.deep_stem, padding=spec.stem_padding)
    x = layers.norm_activation(x, ("bn", "relu"), name="conv1")
    if spec.antialias:
        return layers.antialiased_max_pool(x, spec.antialias, name="pool1")
    return layers.max_pool(x, padding=spec.stem_padding, name="pool1")


def composite(x: Any, filters: int, kernel_size: int, spec: DenseSpec, before: str, name: str) -> Any:
    """BN, ReLU, convolution and dropout ("Composite function", section 3).

    The layers are ``{before}_bn``, ``{before}_relu``, ``{name}_conv`` and ``{name}_dropout``.
    """
    x = layers.batch_norm(x, name=f"{before}_bn")
    x = layers.activation(x, name=f"{before}_relu")
    x = layers.conv2d(x, filters, kernel_size, name=f"{name}_conv")
    return layers.dropout(x, spec.dropout, name=f"{name}_dropout")


def dense_composite(
    x: Any, maps: list[Any], filters: int, kernel_size: int, spec: DenseSpec, before: str, name: str
) -> Any:
    """The composite function of `x`, the concatenation of `maps`.

    A memory-efficient network does not store the inputs of the convolution. BN and convolution are then sublayers of
    ``{before}_recomputed``.
    """
    if not spec.memory_efficient:
        return composite(x, filters, kernel_size, spec, before, name)
    names = {"norm_name": f"{before}_bn", "convolution_name": f"{name}_conv", "name": f"{before}_recomputed"}
    x = layers.recomputed_conv2d(x, maps, filters, kernel_size, **names)
    return layers.dropout(x, spec.dropout, name=f"{name}_dropout")


def dense_block(x: Any, count: int, spec: DenseSpec, name: str) -> tuple[Any, list[Any]]:
    """Layers that each add `growth_rate` feature maps to all preceding maps (equation 2).

    Returns:
        The concatenation of all maps, and the list of maps.
    """
    maps = [x]
    for number in range(1, count + 1):
        layer = f"{name}_block{number}"
        if spec.bottleneck:
            y = dense_composite(x, maps, BOTTLENECK_WIDTH * spec.growth_rate, 1, spec, f"{layer}_0", f"{layer}_1")
            y = composite(y, spec.growth_rate, 3, spec, f"{layer}_1", f"{layer}_2")
        else:
            y = dense_composite(x, maps, spec.growth_rate, 3, spec, f"{layer}_0", f"{layer}_1")
        x = layers.concatenate([x, y], name=f"{layer}_concat")
        maps = [*maps, y]
    return x, maps


def transition(x: Any, maps: list[Any], spec: DenseSpec, name: str) -> Any:
    """A 1×1 convolution to ⌊θm⌋ channels, then 2×2 average pooling. An odd last row or column is dropped, as in torch."""
    filters = int(x.shape[-1] * spec.compression)
    if filters < 1:
        raise InputError(
            f"DenseNet: compression={spec.compression} leaves none of the {x.shape[-1]} channels before a transition."
        )
    x = dense_composite(x, maps, filters, 1, spec, name, name)
    return layers.average_pool(x, name=f"{name}_pool")


def features(x: Any, spec: DenseSpec) -> Any:
    """The network of Table 1 (ImageNet) or section 3 (CIFAR), from images to the last feature map."""
    x = stem(x, spec)
    for stage, count in enumerate(spec.blocks, start=2):
        x, maps = dense_block(x, count, spec, f"conv{stage}")
        if stage <= len(spec.blocks):
            x = transition(x, maps, spec, f"pool{stage}")
    return layers.activation(layers.batch_norm(x, name="bn"), name="relu")


FAMILY = Family("DenseNet", DenseSpec, features, PAPER, ("dropout", "memory_efficient", "stem_padding"))

DenseNet = builder("DenseNet", FAMILY)


def _imagenet(depth: int, *blocks: int, growth_rate: int = 32, top1: float | None = None) -> Any:
    error = f"{top1} % top-1, ImageNet validation, single crop" if top1 else ""
    source = "Tables 1 and 3" if top1 else "Table 1's layout"
    return variant(f"DenseNet{depth}", FAMILY, source=source, error=error, blocks=blocks, growth_rate=growth_rate)


DenseNet121 = _imagenet(121, 6, 12, 24, 16, top1=25.02)
DenseNet161 = _imagenet(161, 6, 12, 36, 24, growth_rate=48)
DenseNet169 = _imagenet(169, 6, 12, 32, 32, top1=23.80)
DenseNet201 = _imagenet(201, 6, 12, 48, 32, top1=22.58)
# By the count that names the other networks, the blocks of Table 1 have 265 layers.
DenseNet264 = _imagenet(264, 6, 12, 64, 48, top1=22.15)


def _cifar(name: str, depth: int, growth_rate: int, error: float, *, bc: bool = False) -> Any:
    return variant(
        name,
        FAMILY,
        source="section 3 and Table 2",
        error=f"{error} %, CIFAR-10 test",
        options=("dropout", "memory_efficient"),
        depth=depth,
        growth_rate=growth_rate,
        bottleneck=bc,
        compression=0.5 if bc else 1.0,
        stem="cifar",
    )


DenseNet40_12 = _cifar("DenseNet40_12", 40, 12, 5.24)
DenseNet100_12 = _cifar("DenseNet100_12", 100, 12, 4.10)
DenseNet100_24 = _cifar("DenseNet100_24", 100, 24, 3.74)
DenseNetBC100_12 = _cifar("DenseNetBC100_12", 100, 12, 4.51, bc=True)
DenseNetBC250_24 = _cifar("DenseNetBC250_24", 250, 24, 3.62, bc=True)
DenseNetBC190_40 = _cifar("DenseNetBC190_40", 190, 40, 3.46, bc=True)
