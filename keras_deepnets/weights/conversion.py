"""Build a network from a weight file, and convert weight files."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets import registry
from keras_deepnets.errors import InputError
from keras_deepnets.families.counts import recorded
from keras_deepnets.weights import cards, reading, recognition, saving
from keras_deepnets.weights.cards import networks
from keras_deepnets.weights.loading import HEAD, LoadReport, load_into, needs
from keras_deepnets.weights.naming import Naming
from keras_deepnets.weights.reading import Tensors
from keras_deepnets.weights.source import check_given

if TYPE_CHECKING:
    import keras

_TRAINED = ("kernel", "bias", "gamma", "beta", "alpha")


def open_model(source: Any, name: str | None = None, **kwargs: Any) -> keras.Model:
    """Build the network that a weight file belongs to, and load the weights.

    Args:
        source: As for `load_weights`. If several networks have a card of this name, also pass `name`.
        name: Name of the network, from `list_models` or from the publisher (``"timm/resnet50d"``). By default the network recorded in
            the file. Without a record, the network with the same weight names and the same number of parameters.
        **kwargs: Arguments for the constructor. The number of classes and the options that the weights need are filled in.

    Raises:
        ValueError: The file cannot be read, fits no network, or does not fit the named network.
    """
    return _open(source, name, kwargs)[0]


def convert(source: Any, path: str | Path, name: str | None = None, **kwargs: Any) -> LoadReport:
    """Convert the weights of a file, model or mapping to a file of this library.

    Arguments and errors are those of `open_model` and `save_weights`.

    Returns:
        A report of what was found in the source.
    """
    path = saving.check_target(path)
    model, report = _open(source, name, kwargs)
    saving.save(model, path)
    return report


def _open(source: Any, name: str | None, kwargs: dict[str, Any]) -> tuple[keras.Model, LoadReport]:
    given, published = networks.named(name) if name else (None, {})
    tensors, card = _tensors(source, given, published | kwargs)
    if tensors.around:
        raise InputError(
            f"{tensors.origin} has more layers than the network itself: {', '.join(tensors.around)}. "
            "Build the network and use load_weights, or load a .keras file with keras.saving.load_model."
        )
    naming = recognition.recognised(tensors.arrays, ())
    if naming is None:
        raise InputError(
            f"{tensors.origin} holds no tensors with known names; its first names are {', '.join(list(tensors.arrays)[:4])}."
        )
    constructor, options = _network(tensors, naming, given, published, card)
    classes = _classes(tensors, naming)
    found: dict[str, Any] = {"include_top": False} if classes is None else {"classes": classes}
    shape = (tensors.record or {}).get("input_shape")
    if shape and "input_shape" in inspect.signature(constructor).parameters:  # detectors take images of any size
        found["input_shape"] = tuple(shape)
    _check_keywords(constructor, kwargs)
    model = constructor(**(options | found | kwargs))
    return model, load_into(model, tensors)


def _tensors(source: Any, constructor: str | None, options: dict[str, Any]) -> tuple[Tensors, cards.Card | None]:
    """Return the tensors of a source, and its card if it is published.

    Raises before a download if `options` contradict the card.
    """
    if isinstance(source, str) and cards.is_name(source):
        named = cards.only(source, constructor)
        check_given(named.constructor, source, named.options, options)
        return cards.tensors(named), named
    tensors = reading.read(source)
    card: cards.Card | None = None
    if tensors.record is None and isinstance(source, (str, Path)):
        card = cards.of_file(Path(source))
    return (tensors if card is None else cards.described(tensors, card)), card


def _network(
    tensors: Tensors, naming: Naming, given: str | None, published: dict[str, Any], card: cards.Card | None
) -> tuple[Any, dict[str, Any]]:
    """Return the constructor and options for the tensors. `given` and `published` come from the caller's name of the network."""
    architecture = (tensors.record or {}).get("architecture")
    if architecture and not published and given in (None, architecture["constructor"]):
        return registry.constructor_of(architecture["constructor"]), architecture["options"]
    if given:
        constructor = registry.constructor_of(given)
    else:
        constructor = registry.constructor_of(card.constructor) if card else _guessed(tensors, naming)
    needed = {key: value for key, value in needs(tensors, naming).items() if key in constructor.facts.options}
    return constructor, needed | published


def _check_keywords(constructor: Any, kwargs: dict[str, Any]) -> None:
    """Raise InputError for unknown arguments of a constructor."""
    unknown = [key for key in kwargs if key not in inspect.signature(constructor).parameters]
    if unknown:
        raise InputError(
            f"{constructor.__name__} has no option {unknown[0]!r}; its options: {', '.join(constructor.facts.options) or 'none'}."
        )


def _guessed(tensors: Tensors, naming: Naming) -> Any:
    """Return the constructor of the only network that has as many parameters without the classifier."""
    sizes = {naming.ours(name): array for name, array in tensors.arrays.items()}
    kernel = sizes.get(f"{HEAD}kernel")
    classes = _classes(tensors, naming)
    if kernel is None or classes is None:
        raise InputError(f"{tensors.origin} has no classifier and no record of its network; name the network.")
    features = kernel.size // classes
    found = sum(
        math.prod(array.shape)
        for name, array in sizes.items()
        if name
        and name.rpartition("/")[2] in _TRAINED
        and not name.startswith(HEAD)
        and not name.endswith("_conv/bias")
    )
    matches = []
    for candidate in registry.list_models():
        facts = registry.constructor_of(candidate).facts
        if naming.families and facts.family.name not in naming.families:
            continue
        if recorded()[candidate]["parameters"] - (features + 1) * facts.spec.domain.classes == found:
            matches.append(candidate)
    if len(matches) != 1:
        which = (
            f"could be {' or '.join(matches)}"
            if matches
            else f"matches no named network ({found:,} parameters without classifier)"
        )
        raise InputError(f"{tensors.origin} {which}; name the network, or build it and use load_weights.")
    return registry.constructor_of(matches[0])


def _classes(tensors: Tensors, naming: Naming) -> int | None:
    """Number of outputs of the classifier in the file. None if it has no classifier."""
    for name, array in tensors.arrays.items():
        if naming.ours(name) == f"{HEAD}bias":
            return array.shape[0]
    return None
