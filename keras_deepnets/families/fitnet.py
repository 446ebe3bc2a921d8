"""FitNets: thin, deep maxout networks.

A. Romero, N. Ballas, S. E. Kahou, A. Chassang, C. Gatta, Y. Bengio: "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv:1412.6550.
Appendix A.1.2 and Table 7 describe the networks. Where the paper is ambiguous or contradicts itself, this library builds the following:

* The fully connected layer has 500 maxout units with **two** pieces. The appendix says "as the ones on the teachers", which have five.
  Two pieces give the parameters and multiplications of Table 5 (250K and 30M, 862K and 108M, 2.5M and 382M). Five pieces do not.
  ``FitNet(hidden_pieces=5)`` builds the other variant.
* The first stage of FitNet 3 has 64, 64, 64, 64 channels. Table 7 prints 32, 48, 64, 64. These give 1.51M parameters and 324M
  multiplications, but Table 5 reports 1.6M and 392M. With 64 channels throughout, the counts are 1.57M and 392M. That Table 5
  describes this network is inferred from these two numbers.
  ``FitNet(filters=((32, 48, 64, 64), (80,) * 4, (128,) * 3))`` builds the printed variant.
* The initial variance of the weights preserves a signal's second moment through a two-piece maxout. The paper draws the weights from
  U(-0.005, 0.005). From those, a network this deep learns only with the paper's hints.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_deepnets import layers
from keras_deepnets.families.base import CIFAR10, Domain, Family, Paper, option
from keras_deepnets.families.checks import check_counts, set_stages
from keras_deepnets.families.constructors import builder, variant

PAPER = Paper("R14", "FitNets: Hints for Thin Deep Nets", "Romero et al.", 2014, "https://arxiv.org/abs/1412.6550")

_OWNER = "FitNet"


@dataclass(frozen=True)
class FitNetSpec:
    """Stages of 3×3 maxout convolutions with 2×2 max pooling between them, then a fully connected maxout layer (Appendix A.1.2)."""

    filters: tuple[tuple[int, ...], ...] = option(
        ((32, 32, 32, 48, 48), (80,) * 6, (128,) * 6), "channels of each convolution, one tuple per stage."
    )
    pieces: int = option(2, "linear pieces per maxout unit in the convolutions.")
    hidden: int = option(500, "units of the fully connected maxout layer.")
    hidden_pieces: int = option(2, "linear pieces per maxout unit in the fully connected layer.")

    def __post_init__(self):
        """Checks all values."""
        set_stages(_OWNER, self, "filters", "((16, 16, 16), (32, 32, 32), (48, 48, 64))")
        check_counts(_OWNER, pieces=self.pieces, hidden=self.hidden, hidden_pieces=self.hidden_pieces)

    @property
    def domain(self) -> Domain:
        """CIFAR-10."""
        return CIFAR10

    @property
    def depth(self) -> int:
        """Convolutions, the fully connected layer and the softmax layer, counted as in Table 5."""
        return sum(map(len, self.filters)) + 2

    @property
    def total_stride(self) -> int:
        """Stride of the last feature map in input pixels."""
        return 2 ** (len(self.filters) - 1)


def features(x: Any, spec: FitNetSpec) -> Any:
    """The network of Table 7, from images to the output of the fully connected layer."""
    for stage, channels in enumerate(spec.filters, start=1):
        if stage > 1:
            x = layers.MaxPooling2D(2, data_format="channels_last", name=layers.named(f"pool{stage - 1}"))(x)
        for number, filters in enumerate(channels, start=1):
            x = layers.maxout_conv2d(x, filters, 3, pieces=spec.pieces, name=f"conv{stage}_{number}")
    # "The last max-pooling takes the maximum over all remaining spatial dimensions": 8×8 on CIFAR.
    x = layers.pool_features(x, "max")
    return layers.maxout_dense(x, spec.hidden, pieces=spec.hidden_pieces, name="fc")


FAMILY = Family("FitNet", FitNetSpec, features, PAPER, ())

FitNet = builder("FitNet", FAMILY)


_PIECES = "two pieces in the fully connected layer, as implied by the counts of Table 5"


def _row(number: int, filters: tuple[tuple[int, ...], ...], error: float, source: str = f"Table 7; {_PIECES}") -> Any:
    return variant(f"FitNet{number}", FAMILY, source=source, error=f"{error:.2f} %, CIFAR-10 test", filters=filters)


FitNet1 = _row(1, ((16, 16, 16), (32, 32, 32), (48, 48, 64)), 10.99)
FitNet2 = _row(2, ((16, 32, 32), (48, 64, 80), (96, 96, 128)), 8.94)
FitNet3 = _row(
    3,
    ((64, 64, 64, 64), (80, 80, 80, 80), (128, 128, 128)),
    8.90,
    f"Table 7, but 64 channels throughout the first stage (it prints 32, 48, 64, 64) and {_PIECES}",
)
FitNet4 = _row(4, ((32, 32, 32, 48, 48), (80,) * 6, (128,) * 6), 8.39)
