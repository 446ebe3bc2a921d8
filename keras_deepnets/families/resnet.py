"""Deep residual networks and their plain counterparts.

K. He, X. Zhang, S. Ren, J. Sun: "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv:1512.03385.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

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
    "H15", "Deep Residual Learning for Image Recognition", "He et al.", 2015, "https://arxiv.org/abs/1512.03385"
)

STAGE_FILTERS = {"imagenet": (64, 128, 256, 512), "cifar": (16, 32, 64)}
EXPANSION = {"basic": 1, "bottleneck": 4}
CONVOLUTIONS = {"basic": 2, "bottleneck": 3}
MANY_BLOCKS = 150
"""Networks with more blocks build each block as one layer instead of a graph of layers."""
RESCALE = {"sample": "training", "batch": "inference"}


@dataclass(frozen=True)
class ResidualSpec:
    """A residual network: one formula for ResNet, Wide ResNet [Z16] and ResNeXt [X16] on ImageNet and CIFAR.

    The 3×3 convolution of a bottleneck has ``filters × base_width / 64 × groups`` channels.
    """

    blocks: tuple[int, ...] = option(None, "blocks per stage, e.g. (3, 4, 6, 3); alternative to depth.")
    depth: int = option(
        None,
        "number of layers, for CIFAR networks instead of blocks: 6n+2 with basic blocks, 9n+2 with bottlenecks.",
    )
    block: str = option("basic", '"basic" (two 3×3 convolutions) or "bottleneck" (1×1, 3×3, 1×1).')
    stem: str = option(
        "imagenet", '"imagenet" (7×7 convolution with stride 2, then max pooling) or "cifar" (3×3 convolution).'
    )
    filters: tuple[int, ...] = option(
        None,
        "base filters per stage. Default: 64, 128, 256, 512 with the ImageNet stem; 16, 32, 64 with the CIFAR stem.",
    )
    groups: int = option(1, "cardinality of the bottleneck's 3×3 convolution.")
    base_width: int = option(64, "channels per group in a stage of 64 filters.")
    shortcut: str | None = option(
        "B",
        '"A" (zero-padded identity), "B" (projection where shapes differ), "C" (projections everywhere) or '
        '"D" (as "B", with average pooling before a strided projection; ResNet-D, T. He et al. 2019).',
    )
    project_first: bool = option(
        False,
        "use a projection in the first block although the shapes agree (PaddleClas' ResNet18-vd and ResNet34-vd).",
    )
    downsample: str = option(
        "1x1", 'the strided convolution of a bottleneck: "1x1" (the paper) or "3x3" (torchvision\'s v1.5).'
    )
    deep_stem: tuple[int, ...] | None = option(
        None,
        "filters of the 3×3 convolutions that replace the 7×7 convolution of the ImageNet stem, e.g. (32, 32, 64) (ResNet-C, T. He et al. "
        "2019).",
    )
    stem_pool: str = option(
        "max",
        'downsampling in the ImageNet stem: "max" (3×3 max pooling with stride 2) or "convolution" (3×3 convolution with stride 2, then '
        "normalisation and activation; ResNet-RS, Bello et al. 2021).",
    )
    antialias: str | None = option(
        None,
        'anti-aliased downsampling: "average" (2×2 average pooling) or "blur" (Zhang 2019). Strided convolutions of the branches run at '
        'stride 1, and the pooling follows. In the stem, "average" replaces the max pooling and "blur" follows it. Shortcuts do not '
        "change.",
    )
    norm: str = option("batch", 'normalisation: "batch" or "group" (32 groups, Wu & He 2018).')
    attention: str | None = option(
        None,
        'channel attention at the end of each branch: "se" (squeeze-and-excitation, Hu et al. 2018) or "eca" (efficient channel attention, '
        "Wang et al. 2020).",
    )
    se_ratio: float = option(
        1 / 16, "share of the channels that squeeze-and-excitation keeps in its bottleneck; 0.25 in ResNet-RS."
    )
    zero_init_residual: bool = option(
        False, "initialise gamma of the last BN of each block to zero (Goyal et al. 2017)."
    )
    stochastic_depth: float = option(
        0.0,
        "drop probability of the last block's residual branch. It increases linearly with depth, from 0 (Huang et al. 2016).",
    )

    drop_unit: str = option(
        "sample",
        'unit of stochastic depth: "sample" (one draw per image, rescaled in training) or "batch" (one draw per batch, rescaled at '
        "inference).",
    )
    dropout: float = option(0.0, "dropout rate after each block's first activation (Zagoruyko & Komodakis 2016, 2.4).")
    block_layers: bool = option(
        None,
        "build each block as one layer (`layers.Block`). This speeds up building, tracing and saving of networks with hundreds of blocks. "
        "It also skips blocks that stochastic depth drops for a whole batch. None: use it where one of these applies.",
    )

    owner: ClassVar[str] = "ResNet"

    def __post_init__(self):
        """Checks all values and fills in the derived ones."""
        name = self.owner
        check_choice(name, "block", self.block, EXPANSION)
        check_choice(name, "stem", self.stem, STAGE_FILTERS)
        check_choice(name, "shortcut", self.shortcut, ("A", "B", "C", "D", None))
        check_choice(name, "project_first", self.project_first, (True, False))
        if self.project_first and (self.shortcut not in ("B", "C", "D") or self.block != "basic"):
            raise InputError(
                f"{name}: project_first=True applies to basic blocks (bottlenecks always project) with shortcut 'B', 'C' or 'D'; "
                f"block is {self.block!r}, shortcut {self.shortcut!r}. Leave it out."
            )
        check_choice(name, "downsample", self.downsample, ("1x1", "3x3"))
        check_choice(name, "antialias", self.antialias, (None, "average", "blur"))
        check_choice(name, "norm", self.norm, ("batch", "group"))
        check_choice(name, "attention", self.attention, (None, "se", "eca"))
        if isinstance(self.se_ratio, bool) or not isinstance(self.se_ratio, (int, float)) or not 0 < self.se_ratio <= 1:
            raise InputError(f"{name}: se_ratio={self.se_ratio!r} must be a share in (0, 1].")
        if self.deep_stem is not None:
            object.__setattr__(self, "deep_stem", check_deep_stem(name, self.deep_stem, self.stem))
        check_choice(name, "stem_pool", self.stem_pool, ("max", "convolution"))
        if self.stem != "imagenet" and self.stem_pool != "max":
            raise InputError(
                f"{name}: stem_pool={self.stem_pool!r} replaces the pooling of stem='imagenet'; stem is {self.stem!r}."
            )
        check_choice(name, "drop_unit", self.drop_unit, ("sample", "batch"))
        object.__setattr__(self, "filters", tuple(self.filters or STAGE_FILTERS[self.stem]))
        check_counts(name, filters=self.filters, groups=self.groups, base_width=self.base_width)
        object.__setattr__(self, "blocks", self._stages())
        object.__setattr__(self, "depth", CONVOLUTIONS[self.block] * sum(self.blocks) + 2)
        if len(self.blocks) != len(self.filters):
            raise InputError(
                f"{name}: blocks={self.blocks} and filters={self.filters} must each have one number per stage."
            )
        if self.block == "basic" and (self.groups != 1 or self.base_width != 64):
            raise InputError(
                f"{name}: groups={self.groups} and base_width={self.base_width} apply to bottlenecks only; set block='bottleneck'."
            )
        if any(filters * self.base_width % 64 for filters in self.filters):
            raise InputError(
                f"{name}: filters × base_width / 64 must be a whole number in every stage; filters={self.filters}, "
                f"base_width={self.base_width}."
            )
        for field in ("stochastic_depth", "dropout"):
            check_probability(name, field, getattr(self, field))
        check_choice(name, "block_layers", self.block_layers, (True, False, None))
        if self.block_layers is None:
            skips = self.stochastic_depth > 0 and self.drop_unit == "batch"
            object.__setattr__(self, "block_layers", skips or sum(self.blocks) > MANY_BLOCKS)

    def _stages(self) -> tuple[int, ...]:
        convolutions, stages = CONVOLUTIONS[self.block], len(self.filters)
        if self.blocks is not None:
            blocks = tuple(self.blocks)
            check_counts(self.owner, blocks=blocks)
            if self.depth not in (None, convolutions * sum(blocks) + 2):
                raise InputError(f"{self.owner}: depth={self.depth} contradicts blocks={blocks}; give one of them.")
            return blocks
        if self.depth is None or self.stem != "cifar":
            raise InputError(f"{self.owner}: give blocks, e.g. blocks=(3, 4, 6, 3), or a depth with stem='cifar'.")
        what = f"{stages} stages of {self.block} blocks"
        return (repeats_of_depth(self.owner, self.depth, convolutions * stages, 2, what),) * stages

    def norms(self, sequence: tuple[str, ...]) -> tuple[str, ...]:
        """A sequence for `layers.norm_activation` in which ``"bn"`` is replaced by this network's kind of normalisation."""
        return sequence if self.norm == "batch" else tuple("gn" if step == "bn" else step for step in sequence)

    @property
    def biased(self) -> bool:
        """Whether the stem, the projections and the last convolution of each branch have biases."""
        return False

    @property
    def domain(self) -> Domain:
        """ImageNet or CIFAR-10, depending on the stem."""
        return IMAGENET if self.stem == "imagenet" else CIFAR10

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return (4 if self.stem == "imagenet" else 1) * 2 ** (len(self.filters) - 1)


def stem(x: Any, spec: ResidualSpec) -> Any:
    """The first layers (conv1 in Table 1; section 4.2 for CIFAR)."""
    x = layers.norm_activation(first_convolutions(x, spec.filters[0], spec), spec.norms(("bn", "relu")), name="conv1")
    return x if spec.stem == "cifar" else first_pooling(x, spec)


def first_pooling(x: Any, spec: ResidualSpec) -> Any:
    """The downsampling after the first convolution of ImageNet networks.

    It is ``pool1_pool``, or a convolution ``pool1_conv`` with normalisation and activation.
    """
    if spec.stem_pool == "convolution":
        x = layers.conv2d(x, x.shape[-1], 3, strides=1 if spec.antialias else 2, name="pool1_conv")
        x = layers.antialiased(x, spec.antialias, name="pool1_pool") if spec.antialias else x
        return layers.norm_activation(x, spec.norms(("bn", "relu")), name="pool1")
    if spec.antialias:
        return layers.antialiased_max_pool(x, spec.antialias, name="pool1_pool")
    return layers.max_pool(x, name="pool1_pool")


def first_convolutions(x: Any, filters: int, spec: ResidualSpec) -> Any:
    """The first convolutions: 3×3 for CIFAR, 7×7 or the deep stem for ImageNet.

    The last one is ``conv1_conv``. It has no normalisation or activation.
    """
    if spec.stem == "cifar":
        return layers.conv2d(x, filters, 3, use_bias=spec.biased, name="conv1_conv")
    sequence, bias = spec.norms(("bn", "relu")), spec.biased and not spec.deep_stem
    return layers.stem_convolutions(x, filters, spec.deep_stem, sequence=sequence, use_bias=bias)


def convolutions(filters: int, strides: int, spec: ResidualSpec) -> list[tuple[int, int, int, int]]:
    """Kernel size, channels, strides and groups of a block's convolutions (Figure 5), given cardinality and width."""
    if spec.block == "basic":
        return [(3, filters, strides, 1), (3, filters, 1, 1)]
    width = filters * spec.base_width // 64 * spec.groups
    first, second = (strides, 1) if spec.downsample == "1x1" else (1, strides)
    return [(1, width, first, 1), (3, width, second, spec.groups), (1, filters * EXPANSION["bottleneck"], 1, 1)]


def branch(x: Any, filters: int, strides: int, spec: ResidualSpec, name: str, last: tuple[str, ...] = ("bn",)) -> Any:
    """The residual branch: convolutions with BN and ReLU between them, and the sequence `last` at the end."""
    rows = convolutions(filters, strides, spec)
    for number, (kernel_size, channels, step, groups) in enumerate(rows, start=1):
        final = number == len(rows)
        part = f"{name}_{number}"
        bias, pool = final and spec.biased, spec.antialias if step > 1 else None
        step = 1 if pool else step
        x = layers.conv2d(x, channels, kernel_size, strides=step, groups=groups, use_bias=bias, name=f"{part}_conv")
        sequence = spec.norms(last if final else ("bn", "relu"))
        x = layers.norm_activation(x, sequence, name=part, zero_gamma=final and spec.zero_init_residual)
        if pool:
            x = layers.antialiased(x, pool, name=f"{part}_pool")
        if number == 1:
            x = layers.dropout(x, spec.dropout, name=f"{part}_dropout")
    if spec.attention == "eca":
        return layers.efficient_channel_attention(x, name=f"{name}_se")
    return layers.squeeze_excitation(x, ratio=spec.se_ratio, name=f"{name}_se") if spec.attention else x


def drop(y: Any, survival: float, spec: ResidualSpec, name: str) -> Any:
    """Stochastic depth of a residual branch, as configured by the spec."""
    return layers.stochastic_depth(
        y, survival, unit=spec.drop_unit, rescale=RESCALE[spec.drop_unit], name=f"{name}_drop"
    )


def stages(spec: ResidualSpec) -> Iterator[tuple[str, int, int, float]]:
    """Name, filters, strides and survival probability of each block in order."""
    index, total = 0, sum(spec.blocks)
    for stage, (count, filters) in enumerate(zip(spec.blocks, spec.filters, strict=True), start=2):
        for number in range(1, count + 1):
            index += 1
            strides = 2 if number == 1 and stage > 2 else 1
            survival = layers.linear_survival(index, total, 1 - spec.stochastic_depth)
            yield f"conv{stage}_block{number}", filters, strides, survival


def block(
    x: Any, filters: int, strides: int, kind: str | None, spec: ResidualSpec, *, survival: float, name: str
) -> Any:
    """Branch, shortcut of the given kind, sum and ReLU (equation 2). A plain network has no shortcut."""
    y = branch(x, filters, strides, spec, name)
    if kind:
        y = drop(y, survival, spec, name)
        sequence = spec.norms(("bn",))
        identity = layers.shortcut(x, y.shape[-1], strides, kind=kind, name=name, sequence=sequence)
        y = layers.add(identity, y, name=f"{name}_add")
    return layers.activation(y, name=f"{name}_out")


def features(x: Any, spec: ResidualSpec) -> Any:
    """The network of Table 1 (ImageNet) or section 4.2 (CIFAR), from images to the last feature map."""
    x = stem(x, spec)
    add_block = layers.shared_blocks(block) if spec.block_layers else block
    kind = "C" if spec.project_first else spec.shortcut
    for name, filters, strides, survival in stages(spec):
        x = add_block(x, filters, strides, kind, spec, survival=survival, name=name)
        kind = spec.shortcut
    return x


FAMILY = Family(
    "ResNet",
    ResidualSpec,
    features,
    PAPER,
    ("shortcut", "downsample", "zero_init_residual", "stochastic_depth"),
)


@dataclass(frozen=True)
class PlainSpec(ResidualSpec):
    """A residual network without shortcuts."""

    shortcut: str | None = None

    owner: ClassVar[str] = "PlainNet"


PLAIN = Family("PlainNet", PlainSpec, features, PAPER, ())

ResNet = builder("ResNet", FAMILY)
PlainNet = builder(
    "PlainNet", PLAIN, without=("shortcut", "project_first", "zero_init_residual", "stochastic_depth", "drop_unit")
)

IMAGENET_OPTIONS = (*FAMILY.options, "deep_stem", "antialias")
"""Options of the named constructors of ImageNet networks."""

_18: dict[str, Any] = {"blocks": (2, 2, 2, 2)}
_34: dict[str, Any] = {"blocks": (3, 4, 6, 3)}
_IMAGENET = "Table 1"
_TEN_CROP = "{} % top-1, ImageNet validation, 10-crop"


def _bottlenecks(*blocks: int) -> dict[str, Any]:
    return {"blocks": blocks, "block": "bottleneck"}


def _imagenet_resnet(depth: int, error: float, **row: Any) -> Any:
    text = _TEN_CROP.format(error)
    return variant(f"ResNet{depth}", FAMILY, source=_IMAGENET, error=text, options=IMAGENET_OPTIONS, **row)


ResNet18 = _imagenet_resnet(18, 27.88, **_18)
ResNet34 = _imagenet_resnet(34, 25.03, **_34)
ResNet50 = _imagenet_resnet(50, 22.85, **_bottlenecks(3, 4, 6, 3))
ResNet101 = _imagenet_resnet(101, 21.75, **_bottlenecks(3, 4, 23, 3))
ResNet152 = _imagenet_resnet(152, 21.43, **_bottlenecks(3, 8, 36, 3))

PlainNet18 = variant("PlainNet18", PLAIN, source=_IMAGENET, error=_TEN_CROP.format(27.94), **_18)
PlainNet34 = variant("PlainNet34", PLAIN, source=_IMAGENET, error=_TEN_CROP.format(28.54), **_34)

_CIFAR = "section 4.2, Table 6"


def _cifar_resnet(depth: int, error: float) -> Any:
    return variant(
        f"ResNet{depth}",
        FAMILY,
        source=_CIFAR,
        error=f"{error} %, CIFAR-10 test",
        depth=depth,
        stem="cifar",
        shortcut="A",
    )


def _cifar_plain(depth: int) -> Any:
    return variant(f"PlainNet{depth}", PLAIN, source="section 4.2, Figure 6", depth=depth, stem="cifar")


ResNet20 = _cifar_resnet(20, 8.75)
ResNet32 = _cifar_resnet(32, 7.51)
ResNet44 = _cifar_resnet(44, 7.17)
ResNet56 = _cifar_resnet(56, 6.97)
ResNet110 = _cifar_resnet(110, 6.43)
ResNet1202 = _cifar_resnet(1202, 7.93)

PlainNet20 = _cifar_plain(20)
PlainNet32 = _cifar_plain(32)
PlainNet44 = _cifar_plain(44)
PlainNet56 = _cifar_plain(56)
PlainNet110 = _cifar_plain(110)
