"""Which weights of a model are a network's own, and what they are called.

A network's own weights have the same names in all of its forms: in blocks and recomputing layers, nested in another model, behind other
layers and under a ``layer_prefix``. What stands around it (before its ``input_tensor``, beside it in the model that it is nested in) is
told apart, so that a file of the network fits it wherever it stands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True)
class NamedWeights:
    """The weights of a model.

    Attributes:
        network: the network of ours that the model is or has in it; the model itself where there is none, or more than one.
        own: the network's: ``"conv1_conv/kernel"`` to weight.
        around: those of the layers around it: name of the layer to its weights.
        is_network: whether the network is the model, and not nested in it.
    """

    network: keras.Model
    own: dict[str, Any]
    around: dict[str, list[Any]]
    is_network: bool


def named_weights(model: keras.Model) -> NamedWeights:
    """The weights of `model` by name.

    Raises:
        InputError: two weights have one name, or the model has none yet.
    """
    from keras_deepnets.models import layer_prefix, network_of

    if not model.weights:
        raise InputError(f"{model.name} has no weights yet; build it first.")
    network = network_of(model) or model
    before = set(before_of(getattr(network, "architecture", None)))
    prefix = layer_prefix(network)
    inside = {id(weight) for weight in network.weights}
    names, own, around = [], {}, {}
    for weight in model.weights:
        layer, _, part = weight.path.rpartition("/")
        layer = layer.rpartition("/")[2]
        names.append(f"{layer}/{part}")
        if id(weight) in inside and layer not in before:
            own[f"{layer.removeprefix(prefix)}/{part}"] = weight
        else:
            around.setdefault(layer, []).append(weight)
    _check_distinct(model, names)
    return NamedWeights(network, own, around, network is model)


def weights_by_name(model: keras.Model) -> dict[str, Any]:
    """Name to weight, of the network and of what stands around it. Raises InputError as `named_weights` does."""
    named = named_weights(model)
    around = [weight for weights in named.around.values() for weight in weights]
    _check_distinct(model, [*named.own, *names_of(around)])
    return named.own | dict(zip(names_of(around), around, strict=True))


def _check_distinct(model: keras.Model, names: list[str]) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice:
        raise InputError(
            f"{model.name}: two of its weights are called {twice!r}; give its layers different names "
            "(networks of this library: build them with layer_prefix='left_' and 'right_')."
        )


def names_of(weights: Iterable[Any]) -> list[str]:
    """Layer and variable of each weight: ``"conv2d/kernel"``."""
    return ["/".join(weight.path.split("/")[-2:]) for weight in weights]


def before_of(architecture: Any) -> list[str]:
    """The names of the layers with weights that stand before a network, as its record has them."""
    return list((architecture or {}).get("before") or ())
