"""Pre-activation residual networks and the five residual units.

K. He, X. Zhang, S. Ren, J. Sun: "Identity Mappings in Deep Residual Networks", ECCV 2016, arXiv:1603.05027.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import Family, Paper, option
from keras_deepnets.families.checks import check_choice
from keras_deepnets.families.constructors import builder, variant
from keras_deepnets.families.resnet import ResidualSpec, branch, drop, first_convolutions, first_pooling, stages

PAPER = Paper(
    "H16", "Identity Mappings in Deep Residual Networks", "He et al.", 2016, "https://arxiv.org/abs/1603.05027"
)


@dataclass(frozen=True)
class Unit:
    """The positions of BN and ReLU in a residual unit (Figure 4), besides those between its convolutions.

    Attributes:
        before: before the first convolution. The network then ends with the same sequence (appendix).
        last: after the last convolution, inside the branch.
        after: after the sum.
    """

    before: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


UNITS = {
    "original": Unit(last=("bn",), after=("relu",)),  # Figure 4(a)
    "bn_after_addition": Unit(after=("bn", "relu")),  # 4(b)
    "relu_before_addition": Unit(last=("bn", "relu")),  # 4(c)
    "relu_only_preactivation": Unit(before=("relu",), last=("bn",)),  # 4(d)
    "full_preactivation": Unit(before=("bn", "relu")),  # 4(e)
}


@dataclass(frozen=True)
class PreActSpec(ResidualSpec):
    """A residual network of one of the five units. Projections have BN only if the branch ends in BN."""

    downsample: str = option("3x3", 'the strided convolution of a bottleneck: "1x1" or "3x3".')
    unit: str = option(
        "full_preactivation", "residual unit of Figure 4: " + ", ".join(f'"{unit}"' for unit in UNITS) + "."
    )
    stem_filters: int = option(None, "filters of the first convolution. Default: those of the first stage.")
    activate_first: bool = option(
        None,
        "apply the activation directly after the first convolution, so that the first unit's shortcut is activated too (the paper's "
        "appendix, its CIFAR networks). If False, the first unit has its own pre-activation (ImageNet networks, as in timm and Keras).",
    )

    form: str = option(
        "paper",
        '"paper", or "keras" to match the weights of keras.applications. With "keras", each stage but the last strides in its last unit, '
        "whose identity shortcut is subsampled. Stem, projections and last convolutions have biases. The stem's pooling pads with zeros.",
    )

    owner: ClassVar[str] = "PreActResNet"

    def __post_init__(self):
        """Checks all values and fills in the derived ones."""
        check_choice(self.owner, "unit", self.unit, UNITS)
        check_choice(self.owner, "form", self.form, ("paper", "keras"))
        super().__post_init__()
        check_choice(self.owner, "shortcut", self.shortcut, ("A", "B", "C", "D"))
        if self.form == "keras" and self.antialias:
            raise InputError(
                f"{self.owner}: antialias={self.antialias!r} cannot be combined with form='keras', the architecture of "
                "keras.applications; leave one out."
            )
        object.__setattr__(self, "stem_filters", self.stem_filters or self.filters[0])
        if self.activate_first is None or not UNITS[self.unit].before:
            object.__setattr__(self, "activate_first", self.stem == "cifar" or not UNITS[self.unit].before)

    @property
    def biased(self) -> bool:
        """Whether the stem, the projections and the last convolution of each branch have biases."""
        return self.form == "keras"


def stem(x: Any, spec: PreActSpec) -> Any:
    """The first convolution, activated unless the first unit does that itself."""
    first = first_convolutions(x, spec.stem_filters, spec)
    x = layers.norm_activation(first, spec.norms(("bn", "relu")), name="conv1") if spec.activate_first else first
    if spec.form == "keras" and spec.stem == "imagenet":
        return layers.max_pool(x, zero_padding=True, name="pool1_pool")
    return x if spec.stem == "cifar" else first_pooling(x, spec)


def units(spec: PreActSpec) -> Iterator[tuple[str, int, int, float]]:
    """Name, filters, strides and survival probability of each unit in order."""
    last = {f"conv{stage}_block{count}" for stage, count in enumerate(spec.blocks[:-1], start=2)}
    for name, filters, strides, survival in stages(spec):
        yield name, filters, (1 + (name in last)) if spec.form == "keras" else strides, survival


def unit(x: Any, filters: int, strides: int, spec: PreActSpec, activated: bool, *, survival: float, name: str) -> Any:
    """A residual unit. A projection shortcut starts from the activated input, as the branch does."""
    kind = UNITS[spec.unit]
    source = x if activated else layers.norm_activation(x, spec.norms(kind.before), name=f"{name}_preact")
    y = drop(branch(source, filters, strides, spec, name, kind.last), survival, spec, name)
    identity = shortcut(x, source, y.shape[-1], strides, spec, name)
    if not kind.after:
        return layers.add(identity, y, name=f"{name}_out")
    y = layers.add(identity, y, name=f"{name}_add")
    y = layers.norm_activation(y, spec.norms(kind.after[:-1]), name=name)
    return layers.activation(y, name=f"{name}_out")


def shortcut(x: Any, activated: Any, filters: int, strides: int, spec: PreActSpec, name: str) -> Any:
    """The shortcut of a unit: from the activated input if it is a projection, otherwise from `x`."""
    if spec.form == "keras":
        if x.shape[-1] == filters:
            return layers.subsampled(x, strides, name=name)
        return layers.projected(activated, filters, strides, name, (), use_bias=True)
    projects = spec.shortcut == "C" or strides > 1 or x.shape[-1] != filters
    sequence = spec.norms(("bn",)) if "bn" in UNITS[spec.unit].last else ()
    identity = activated if projects else x
    return layers.shortcut(identity, filters, strides, kind=str(spec.shortcut), name=name, sequence=sequence)


def features(x: Any, spec: PreActSpec) -> Any:
    """The network, from images to the last, activated feature map."""
    x = stem(x, spec)
    activated = spec.activate_first
    add_unit = layers.shared_blocks(unit) if spec.block_layers else unit
    for name, filters, strides, survival in units(spec):
        x = add_unit(x, filters, strides, spec, activated, survival=survival, name=name)
        activated = False
    return layers.norm_activation(x, spec.norms(UNITS[spec.unit].before), name="post")


IMAGENET_FAMILY = Family("ResNetV2", PreActSpec, features, PAPER, ("downsample", "form"))
FAMILY = Family("PreActResNet", PreActSpec, features, PAPER, ("unit",))

PreActResNet = builder("PreActResNet", FAMILY, without=("stem_pool", "project_first"))


def _imagenet(depth: int, blocks: tuple[int, ...], block: str = "bottleneck", error: str = "") -> Any:
    return variant(f"ResNet{depth}V2", IMAGENET_FAMILY, source="section 4.1", error=error, blocks=blocks, block=block)


def _cifar(depth: int, error: float, block: str = "bottleneck") -> Any:
    # In the authors' code, the first convolution of a bottleneck has the stride.
    row: dict[str, Any] = {"depth": depth, "stem": "cifar", "block": block, "downsample": "1x1"}
    return variant(f"PreActResNet{depth}", FAMILY, source="Table 2", error=f"{error} %, CIFAR-10 test", **row)


ResNet18V2 = _imagenet(18, (2, 2, 2, 2), "basic")
ResNet34V2 = _imagenet(34, (3, 4, 6, 3), "basic")
ResNet50V2 = _imagenet(50, (3, 4, 6, 3))
ResNet101V2 = _imagenet(101, (3, 4, 23, 3))
ResNet152V2 = _imagenet(152, (3, 8, 36, 3), error="21.1 % top-1, ImageNet validation, 320 crop (Table 5)")
ResNet200V2 = _imagenet(200, (3, 24, 36, 3), error="20.7 % top-1, ImageNet validation, 320 crop (Table 5)")

PreActResNet110 = _cifar(110, 6.37, "basic")
PreActResNet164 = _cifar(164, 5.46)
PreActResNet1001 = _cifar(1001, 4.62)
