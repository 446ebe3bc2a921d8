"""From a weight file to a network of ours, and to a file of ours."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets import registry
from keras_deepnets.errors import InputError
from keras_deepnets.families.counts import recorded
from keras_deepnets.weights import cards, reading, saving
from keras_deepnets.weights import naming as namings
from keras_deepnets.weights.cards import networks
from keras_deepnets.weights.loading import HEAD, LoadReport, load_into, needs
from keras_deepnets.weights.reading import Tensors
from keras_deepnets.weights.source import check_given

if TYPE_CHECKING:
    import keras

_TRAINED = ("kernel", "bias", "gamma", "beta")


def open_model(source: Any, name: str | None = None, **kwargs: Any) -> keras.Model:
    """The network whose weights a file holds, with them.

    Args:
        source: as for `load_weights`; the name of a card may need that of its network beside it.
        name: of the network, as `list_models` has it, or as its publisher does (``"timm/resnet50d"``). By default what the file says
            that it was saved from, or else the network of ours that has as many parameters under the same names.
        **kwargs: for the constructor; number of classes and options that the weights need are filled in.

    Raises:
        ValueError: the file cannot be read, fits no network, or not the one that was named.
    """
    return _open(source, name, kwargs)[0]


def convert(source: Any, path: str | Path, name: str | None = None, **kwargs: Any) -> LoadReport:
    """Saves the weights of a file, model or mapping in a file of ours; arguments and errors are those of `open_model` and `save_weights`.

    Returns:
        What was found in the source.
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
            f"{tensors.origin} has more than a network of ours: the layers {', '.join(tensors.around)} stand around it. "
            "Build the network and use load_weights, or load a .keras file with keras.saving.load_model."
        )
    naming = namings.recognised(tensors.arrays, ())
    if naming is None:
        raise InputError(
            f"{tensors.origin} holds no tensors whose names are known, such as {', '.join(list(tensors.arrays)[:4])}."
        )
    constructor, options = _network(tensors, naming, given, published, card)
    classes = _classes(tensors, naming)
    found: dict[str, Any] = {"include_top": False} if classes is None else {"classes": classes}
    if (tensors.record or {}).get("input_shape"):
        found["input_shape"] = tuple(tensors.record["input_shape"])
    _check_keywords(constructor, kwargs)
    model = constructor(**(options | found | kwargs))
    return model, load_into(model, tensors)


def _tensors(source: Any, constructor: str | None, options: dict[str, Any]) -> tuple[Tensors, cards.Card | None]:
    """What a source holds and, where it is published, its card. Raises before a download where `options` contradict the card's."""
    if isinstance(source, str) and cards.is_name(source):
        card = cards.only(source, constructor)
        check_given(card.constructor, source, card.options, options)
        return cards.tensors(card), card
    tensors, card = reading.read(source), None
    if tensors.record is None and isinstance(source, (str, Path)):
        card = cards.of_file(Path(source))
    return (tensors if card is None else cards.described(tensors, card)), card


def _network(
    tensors: Tensors, naming: namings.Naming, given: str | None, published: dict[str, Any], card: cards.Card | None
) -> tuple[Any, dict[str, Any]]:
    """The constructor and options of the network that tensors are of; `given` and `published` are what the caller's name says."""
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
    """Raises InputError for what a constructor does not take."""
    unknown = [key for key in kwargs if key not in inspect.signature(constructor).parameters]
    if unknown:
        raise InputError(
            f"{constructor.__name__} has no option {unknown[0]!r}; its options: {', '.join(constructor.facts.options) or 'none'}."
        )


def _guessed(tensors: Tensors, naming: namings.Naming) -> Any:
    """The one constructor whose network has these tensors, by their number of parameters without classifier."""
    sizes = {naming.ours(name): array for name, array in tensors.arrays.items()}
    kernel = sizes.get(f"{HEAD}kernel")
    if kernel is None:
        raise InputError(
            f"{tensors.origin} has no classifier and does not say which network it is of; name the network."
        )
    features = kernel.size // _classes(tensors, naming)
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
            else f"is no network that has a name here ({found:,} parameters without classifier)"
        )
        raise InputError(f"{tensors.origin} {which}; name the network, or build it and use load_weights.")
    return registry.constructor_of(matches[0])


def _classes(tensors: Tensors, naming: namings.Naming) -> int | None:
    """Outputs of the classifier of the file, or None where it has none."""
    for name, array in tensors.arrays.items():
        if naming.ours(name) == f"{HEAD}bias":
            return array.shape[0]
    return None
