"""Tell a network's own weights from the other weights of a model, and name them.

A network's own weights have the same names in all of its forms. The network may use blocks or recomputing layers, be nested in another
model, follow other layers, or have a ``layer_prefix``. Weights of layers around the network are kept separate. These are layers before
its ``input_tensor``, or other layers of the model that contains it. So a file of the network fits it in any model.
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
        network: The network of this library that the model is or contains. The model itself if it contains none or several.
        own: Weights of the network: ``"conv1_conv/kernel"`` to weight.
        around: Weights of the layers around the network: name of the layer to its weights.
        is_network: Whether the model is the network itself and does not contain it as a nested model.
    """

    network: keras.Model
    own: dict[str, Any]
    around: dict[str, list[Any]]
    is_network: bool


def named_weights(model: keras.Model) -> NamedWeights:
    """The weights of `model` by name.

    Raises:
        InputError: Two weights have the same name, or the model has no weights yet.
    """
    from keras_deepnets.models import layer_prefix, network_of

    if not model.weights:
        raise InputError(f"{model.name} has no weights yet; build it first.")
    network = network_of(model) or model
    before = set(before_of(getattr(network, "architecture", None)))
    prefix = layer_prefix(network)
    inside = {id(weight) for weight in network.weights}
    names: list[str] = []
    own: dict[str, Any] = {}
    around: dict[str, list[Any]] = {}
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
    """Return name to weight, for the network and the layers around it. Raise InputError as `named_weights` does."""
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
    """Layer and variable name of each weight: ``"conv2d/kernel"``."""
    return ["/".join(weight.path.split("/")[-2:]) for weight in weights]


def before_of(architecture: Any) -> list[str]:
    """The names of the layers with weights before a network, from its record."""
    return list((architecture or {}).get("before") or ())
