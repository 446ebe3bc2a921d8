"""Auxiliary classifiers: additional outputs that read intermediate layers and are only used in training."""

from __future__ import annotations

from typing import Any

from keras_deepnets import layers
from keras_deepnets.families.base import Auxiliary, Family


def attached(x: Any, spec: Any, family: Family, classes: int, activation: Any) -> dict[str, Any]:
    """The outputs of a network with its auxiliary classifiers, by name.

    Args:
        x: symbolic output of the network without them.
        spec: its architecture.
        family: its family.
        classes: number of classes.
        activation: activation of all classifiers; None returns logits.
    """
    from keras_deepnets.models import MAIN, layers_before

    outputs = {MAIN: x}
    known = {layer.name: layer for layer in layers_before(x)}
    for head in heads(spec, family):
        hidden = head.head(known[str(layers.named(head.reads))].output, head.name)
        outputs[head.name] = layers.classifier(
            hidden, classes, activation, gradient_factor=head.gradient_factor, name=f"{head.name}_predictions"
        )
    return outputs


def heads(spec: Any, family: Family) -> tuple[Auxiliary, ...]:
    """The auxiliary classifiers of a network. Empty if its family has none."""
    return () if family.auxiliary is None else family.auxiliary(spec)


def loss_weights(spec: Any, family: Family) -> dict[str, float]:
    """The weight of the loss of each auxiliary classifier."""
    return {head.name: head.weight for head in heads(spec, family)}
