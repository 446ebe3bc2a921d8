"""Deeply-supervised nets: Network in Network with companion classifiers on its three spatial convolutions.

C.-Y. Lee, S. Xie, P. Gallagher, Z. Zhang, Z. Tu: "Deeply-Supervised Nets", AISTATS 2015, arXiv:1409.5185. The layers are those of the
authors' network definitions for CIFAR-10.

* The network is NIN with max poolings and without the ReLU after the last convolution.
* With ``auxiliary=True``, a fully connected companion classifies the output of the first convolution of each stage, before its ReLU.
  This needs a fixed input size.
* The paper fades the companions' losses during training (section 2.2) and prints no initial weight. This library chooses 0.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.families import nin
from keras_deepnets.families.base import Auxiliary, Family, Paper, option
from keras_deepnets.families.constructors import variant

PAPER = Paper("L14", "Deeply-Supervised Nets", "Lee et al.", 2014, "https://arxiv.org/abs/1409.5185")

WEIGHT = 0.3
"""Initial weight of each companion's loss."""
GRADIENT_FACTOR = 1e-3
"""Factor of the companions' learning rate in the authors' definition. They read up to 196,608 values, so larger steps diverge."""


@dataclass(frozen=True)
class DSNSpec(nin.StagesSpec):
    """The stages of NIN, with max poolings."""

    auxiliary: bool = option(False, "adds the outputs of the companion classifiers, for training.")

    owner: ClassVar[str] = "DSN"
    pool2: ClassVar[str] = "max"
    pool_padding: ClassVar[str] = "ceil"


def classifier(x: Any, spec: DSNSpec, classes: int, activation: Any) -> Any:
    """The last 1×1 convolution and the averages of its maps."""
    return layers.map_classifier(x, classes, activation, stddev=nin.STDDEV)


def companions(spec: DSNSpec) -> tuple[Auxiliary, ...]:
    """A classifier per stage."""
    stages = range(1, len(spec.filters) + 1)
    return tuple(
        Auxiliary(f"companion{stage}", f"conv{stage}_1_conv", _flat, WEIGHT, GRADIENT_FACTOR) for stage in stages
    )


def _flat(x: Any, name: str) -> Any:
    if None in x.shape[1:]:
        raise InputError("DSN: auxiliary=True needs a fixed height and width; pass e.g. input_shape=(32, 32, 3).")
    return layers.flatten(x, name=f"{name}_flatten")


def features(x: Any, spec: DSNSpec) -> Any:
    """The network, from images to the input of the last 1×1 convolution."""
    return nin.features(x, spec, apart=True)


FAMILY = Family(
    "DSN",
    DSNSpec,
    features,
    PAPER,
    ("dropout", "auxiliary"),
    classifier=classifier,
    auxiliary=companions,
    auxiliary_layers=r"companion\d_",
)

DSN = variant(
    "DSN",
    FAMILY,
    source="section 3.2, with the layers of the authors' definition for CIFAR-10",
    error="9.69 %, CIFAR-10; 7.97 % with augmentation",
    filters=nin.FILTERS,
)
