"""Highway networks, convolutional and fully connected, and the plain networks that the papers compare them with.

[S15] is R. K. Srivastava, K. Greff, J. Schmidhuber: "Highway Networks", ICML 2015 Deep Learning Workshop, arXiv:1505.00387.
[TVDN] is the longer paper of the same authors: "Training Very Deep Networks", NIPS 2015, arXiv:1507.06228. Its Highway A, B and C are
Highway 1, 2 and 4 here.

The papers report depth and parameters of the CIFAR networks and name the networks that they derive from. They do not list the layers.
They state:

* Highway 1 and 2 follow FitNet 1 and FitNet 4 ([S15] Table 1). Highway 4 alternates 3×3 and 1×1 fields ([TVDN] 3.3.1).
* Layers that change the number of channels are plain ([TVDN] 2.1). All others are highway layers, with ReLU and sigmoid gates.
* These networks end in a fully connected layer. Those of [TVDN] Table 3 end in a 1×1 convolution and global average pooling
  ([TVDN] 3.3.2).
* The gate bias starts at about -1, -2, -3 for depth 10, 20, 30 ([TVDN] 2.2). The other weights use "normalized initialization" (3.1).
  Here they use the initialisation of He et al. 2015.

The papers leave the following open. This library chooses:

* Equal channels within a stage: 16, 32, 64 for Highway 1; 32, 80, 128 for Highway 2; 32, 64, 96 for Highway 3 and 4. The channels of
  Highway 2 are those of the authors' published network for Table 3 of [TVDN]. ``Highway(head="conv", hidden=100)`` builds that network
  without its dropout. The papers only call Highway 3 and 4 thinner. The layers per stage are those of the FitNets, and ten in Highway 4.
* The fully connected layer has 250 ReLU units on FitNets' max pooling over all positions. This gives Highway 1 the printed 236K
  parameters. The four networks then have 236,328, 2,277,688, 1,375,208 and 1,280,552 (printed: ~236K, ~2.3M, ~1.4M, ~1.25M).
* Fully connected networks: [TVDN] 3.1 gives the layers. The authors searched over ReLU or tanh and over gate biases between -1 and -10.
  This library uses ReLU, and gate biases of -1, -2, -4, -4 for depth 10, 20, 50, 100. The papers report a bias only for 50 layers
  ([S15] Figure 2): -2 on MNIST and -4 on CIFAR-100. On the embedded digits, SGD with momentum 0.9 at learning rates 0.01 and 0.05
  trains 50 layers with a bias of -4 but not with -2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import CIFAR10, MNIST, Domain, Family, Paper, option
from keras_deepnets.families.checks import check_choice, check_counts, set_counts
from keras_deepnets.families.constructors import builder, variant

PAPER = Paper("S15", "Highway Networks", "Srivastava et al.", 2015, "https://arxiv.org/abs/1505.00387")

HEADS = ("dense", "conv")
ACTIVATIONS = ("relu", "tanh")
_GATE_BIAS = (
    "initial bias of the transform gates. The more negative it is, the more of its input a layer initially carries on."
)


def _check_gate_bias(owner: str, value: Any) -> None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or value > 0:
        raise InputError(
            f"{owner}: gate_bias={value!r} must be a number of at most 0, so that layers initially carry their input, e.g. -2."
        )


@dataclass(frozen=True)
class HighwaySpec:
    """Stages of convolutions with 2×2 max pooling between them.

    A convolution is a plain layer if it is the first of the network or changes the number of channels. All others are highway layers
    ([TVDN] 2.1).
    """

    filters: tuple[int, ...] = option((32, 80, 128), "channels per stage.")
    convolutions: tuple[int, ...] = option((5, 6, 6), "convolutions per stage.")
    kernels: tuple[int, ...] = option((3,), "odd kernel sizes, used cyclically within each stage.")
    gate_bias: float = option(-2.0, _GATE_BIAS)
    hidden: int = option(250, "ReLU units of the last layer before the softmax.")
    head: str = option(
        "dense",
        'the last hidden layer: "dense" (fully connected, after global max pooling) or "conv" (1×1, before global average pooling).',
    )

    owner: ClassVar[str] = "Highway"

    def __post_init__(self):
        """Checks all values."""
        name = self.owner
        set_counts(name, self, "filters", "convolutions", "kernels")
        if len(self.filters) != len(self.convolutions):
            raise InputError(
                f"{name}: filters={self.filters} and convolutions={self.convolutions} must each have one number per stage."
            )
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise InputError(
                f"{name}: kernels={self.kernels} must be odd, so that layers keep the size of their input, e.g. (3, 1)."
            )
        check_counts(name, hidden=self.hidden)
        check_choice(name, "head", self.head, HEADS)
        _check_gate_bias(name, self.gate_bias)

    @property
    def domain(self) -> Domain:
        """CIFAR-10."""
        return CIFAR10

    @property
    def depth(self) -> int:
        """Convolutions, the last hidden layer and the softmax layer, counted as in Table 1."""
        return sum(self.convolutions) + 2

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return 2 ** (len(self.filters) - 1)


def features(x: Any, spec: HighwaySpec) -> Any:
    """The convolutional network, from images to the output of the last hidden layer."""
    first = True
    for stage, (filters, count) in enumerate(zip(spec.filters, spec.convolutions, strict=True), start=1):
        if stage > 1:
            x = layers.MaxPooling2D(2, data_format="channels_last", name=layers.named(f"pool{stage - 1}"))(x)
        for number in range(count):
            kernel_size = spec.kernels[number % len(spec.kernels)]
            name = f"conv{stage}_{number + 1}"
            if first or x.shape[-1] != filters:
                x = layers.biased_conv2d(x, filters, kernel_size, activation="relu", name=f"{name}_conv")
            else:
                x = layers.highway_conv2d(x, kernel_size, gate_bias=spec.gate_bias, name=name)
            first = False
    if spec.head == "conv":
        return layers.biased_conv2d(x, spec.hidden, 1, activation="relu", name="last_conv")
    return layers.biased_dense(layers.pool_features(x, "max"), spec.hidden, activation="relu", name="fc")


@dataclass(frozen=True)
class PlainMLPSpec:
    """Fully connected layers of equal width on the pixels ([TVDN] 3.1)."""

    depth: int = option(10, "number of hidden layers, without the softmax layer.")
    width: int = option(71, "units per layer.")
    activation: str = option("relu", '"relu" or "tanh".')

    owner: ClassVar[str] = "PlainMLP"
    fixed_input_size: ClassVar[bool] = True

    def __post_init__(self):
        """Checks all values."""
        check_counts(self.owner, depth=self.depth, width=self.width)
        check_choice(self.owner, "activation", self.activation, ACTIVATIONS)

    @property
    def domain(self) -> Domain:
        """MNIST."""
        return MNIST

    @property
    def total_stride(self) -> int:
        """The smallest side of an input. Every size is allowed."""
        return 1


@dataclass(frozen=True)
class HighwayMLPSpec(PlainMLPSpec):
    """A plain layer that maps to the width of the network, then highway layers ([TVDN] 3.1)."""

    width: int = option(50, "units (blocks) per layer.")
    gate_bias: float = option(-2.0, _GATE_BIAS)

    owner: ClassVar[str] = "HighwayMLP"

    def __post_init__(self):
        """Checks all values."""
        super().__post_init__()
        _check_gate_bias(self.owner, self.gate_bias)


def mlp_features(x: Any, spec: PlainMLPSpec) -> Any:
    """The fully connected network, from images to the output of the last hidden layer."""
    if None in x.shape[1:]:
        raise InputError(
            f"{spec.owner}: a fully connected network needs a fixed height and width; pass e.g. input_shape={spec.domain.input_shape}."
        )
    x = layers.flatten(x, name="pixels")
    for number in range(1, spec.depth + 1):
        if number == 1 or not isinstance(spec, HighwayMLPSpec):
            x = layers.biased_dense(x, spec.width, activation=spec.activation, name=f"fc{number}")
        else:
            x = layers.highway_dense(x, gate_bias=spec.gate_bias, activation=spec.activation, name=f"fc{number}")
    return x


FAMILY = Family("Highway", HighwaySpec, features, PAPER, ("gate_bias",))
MLP = Family("HighwayMLP", HighwayMLPSpec, mlp_features, PAPER, ("gate_bias",))
PLAIN_MLP = Family("PlainMLP", PlainMLPSpec, mlp_features, PAPER, ())

Highway = builder("Highway", FAMILY)
HighwayMLP = builder("HighwayMLP", MLP)
PlainMLP = builder("PlainMLP", PLAIN_MLP)


def _row(number: int, error: str, *, filters: tuple[int, ...], **row: Any) -> Any:
    chosen = f"the {', '.join(map(str, filters))} channels per stage and the 250 fully connected units are a choice of this library"
    return variant(f"Highway{number}", FAMILY, source=f"Table 1; {chosen}", error=error, filters=filters, **row)


_FITNET4 = (5, 6, 6)
_THIN = (32, 64, 96)
_40K = "{} %, CIFAR-10 test, trained on 40,000 images"

Highway1 = _row(1, "10.82 %, CIFAR-10 test", filters=(16, 32, 64), convolutions=(3, 3, 3), gate_bias=-1.0)
Highway2 = _row(
    2,
    "7.76 %, CIFAR-10 test (7.72 ± 0.16, best 7.54, in arXiv:1507.06228)",
    filters=(32, 80, 128),
    convolutions=_FITNET4,
    gate_bias=-2.0,
)
Highway3 = _row(3, _40K.format(9.32), filters=_THIN, convolutions=_FITNET4, gate_bias=-2.0)
Highway4 = _row(
    4,
    f"{_40K.format(9.66)} (8.80 in arXiv:1507.06228)",
    filters=_THIN,
    convolutions=(10, 10, 10),
    kernels=(3, 1),
    gate_bias=-3.0,
)


def _highway_mlp(depth: int, gate_bias: float) -> Any:
    source = "Figure 1; ReLU and the gate bias are choices of this library"
    return variant(f"HighwayMLP{depth}", MLP, source=source, depth=depth, gate_bias=gate_bias)


def _plain_mlp(depth: int) -> Any:
    return variant(f"PlainMLP{depth}", PLAIN_MLP, source="Figure 1; ReLU is a choice of this library", depth=depth)


HighwayMLP10 = _highway_mlp(10, -1.0)
HighwayMLP20 = _highway_mlp(20, -2.0)
HighwayMLP50 = _highway_mlp(50, -4.0)
HighwayMLP100 = _highway_mlp(100, -4.0)

PlainMLP10 = _plain_mlp(10)
PlainMLP20 = _plain_mlp(20)
PlainMLP50 = _plain_mlp(50)
PlainMLP100 = _plain_mlp(100)
