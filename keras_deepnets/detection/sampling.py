"""Which anchors and regions a training step of a detector uses, as data."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

BETA = 1 / 9
"""Where the box losses change from quadratic to linear (torchvision, Detectron)."""


@dataclass(frozen=True)
class Sampling:
    """Which anchors and regions a training step uses. The defaults are torchvision's.

    Attributes:
        anchor_high: smallest overlap of a positive anchor.
        anchor_low: anchors with a smaller overlap are negative.
        anchors: sampled anchors per image.
        anchor_share: largest share of positive anchors.
        region_high: smallest overlap of a positive region.
        region_low: regions with a smaller overlap are background.
        region_lowest: regions with a smaller overlap are ignored.
        regions: sampled regions per image.
        region_share: largest share of positive regions.
        beta: deviation at which the box losses change from quadratic to linear.
        seed: seed of the sampling.
    """

    anchor_high: float = 0.7
    anchor_low: float = 0.3
    anchors: int = 256
    anchor_share: float = 0.5
    region_high: float = 0.5
    region_low: float = 0.5
    region_lowest: float = 0.0
    regions: int = 512
    region_share: float = 0.25
    beta: float = BETA
    seed: int | None = None


PAPER = Sampling(regions=128, region_lowest=0.1, beta=1.0)
"""The sampling of Ren et al. 2015 and Girshick 2015."""


def with_seed(sampling: Sampling, seed: int) -> Sampling:
    """The same sampling with another seed."""
    return dataclasses.replace(sampling, seed=seed)
