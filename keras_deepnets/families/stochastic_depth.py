"""Residual networks with stochastic depth.

G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger: "Deep Networks with Stochastic Depth", ECCV 2016, arXiv:1603.09382.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from keras_deepnets.errors import InputError
from keras_deepnets.families import resnet
from keras_deepnets.families.base import CIFAR10, Domain, Family, Paper, option
from keras_deepnets.families.constructors import variant
from keras_deepnets.families.resnet import ResidualSpec

PAPER = Paper("SD16", "Deep Networks with Stochastic Depth", "Huang et al.", 2016, "https://arxiv.org/abs/1603.09382")


@dataclass(frozen=True)
class StochasticDepthSpec:
    """The CIFAR residual network of [H15] with stochastic depth. Survival falls linearly to `final_survival` at the last block.

    There is one draw per block and mini-batch. At inference, each branch is multiplied by its survival probability (section 3,
    equations 2 to 5).
    """

    depth: int = option(110, "number of layers: 6n+2.")
    final_survival: float = option(0.5, "probability that the last block survives a training step; 1 drops nothing.")

    owner: ClassVar[str] = "StochasticDepthResNet"

    def __post_init__(self):
        """Checks all values."""
        if not isinstance(self.final_survival, (int, float)) or not 0 < self.final_survival <= 1:
            raise InputError(f"{self.owner}: final_survival={self.final_survival!r} must be a probability in (0, 1].")
        _ = self.residual

    @property
    def residual(self) -> ResidualSpec:
        """The same network as a `ResidualSpec`."""
        drop = 1 - self.final_survival
        return ResidualSpec(depth=self.depth, stem="cifar", shortcut="A", stochastic_depth=drop, drop_unit="batch")

    @property
    def domain(self) -> Domain:
        """CIFAR-10."""
        return CIFAR10

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return self.residual.total_stride


def features(x: Any, spec: StochasticDepthSpec) -> Any:
    """The residual network with stochastic depth."""
    return resnet.features(x, spec.residual)


FAMILY = Family("StochasticDepth", StochasticDepthSpec, features, PAPER, ("final_survival",))

StochasticDepthResNet110 = variant(
    "StochasticDepthResNet110", FAMILY, source="Table 1", error="5.25 %, CIFAR-10 test", depth=110
)
StochasticDepthResNet1202 = variant(
    "StochasticDepthResNet1202", FAMILY, source="section 4, Figure 4", error="4.91 %, CIFAR-10 test", depth=1202
)
