"""The commands that look things up. None of them loads TensorFlow or Keras, but for drawing."""

from __future__ import annotations

import dataclasses
import inspect
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_deepnets import registry
from keras_deepnets.cli import show
from keras_deepnets.cli.problems import PROGRAM
from keras_deepnets.cli.quiet import load_tensorflow
from keras_deepnets.errors import InputError
from keras_deepnets.facts import ModelInfo, model_info
from keras_deepnets.versions import version
from keras_deepnets.weights import cards
from keras_deepnets.weights.cards import networks

_MOST_WEIGHTS = 24
"""Names of weights that `info` prints."""


def print_version() -> None:
    """Prints the versions that a bug report needs."""
    below = [f"{package} {version(package) or 'missing'}" for package in ("tensorflow", "keras")]
    print(f"{PROGRAM} {version('keras-deepnets')} ({', '.join(below)}, python {platform.python_version()})")


def list_networks(pattern: str, family: str | None, dataset: str | None, as_json: bool) -> None:
    """Prints a row for each network that fits."""
    infos = [model_info(name) for name in registry.list_models(pattern, family, dataset)]
    if not infos:
        raise InputError(f"No network's name fits {pattern!r}; `{PROGRAM} list` prints them all.")
    if as_json:
        show.print_json([_facts(info) for info in infos])
        return
    columns = ("name", "family", "dataset", "depth", "parameters", "multiply-adds", "published error")
    rows = [
        (
            info.name,
            info.family,
            info.dataset,
            str(info.depth),
            f"{info.parameters:,}",
            giga(info.flops),
            info.error or "–",
        )
        for info in infos
    ]
    show.print_table(columns, rows, right=("depth", "parameters", "multiply-adds"))


def list_weights(pattern: str, family: str | None, dataset: str | None, as_json: bool) -> None:
    """Prints a row for each set of published weights that fits."""
    found = [card for card in cards.list_weights(pattern) if _is_of(card, family, dataset)]
    if not found:
        raise InputError(
            f"No published weights are called {pattern!r} or are of such a network; `{PROGRAM} list --weights` prints them all."
        )
    if as_json:
        show.print_json([card.to_dict() for card in found])
        return
    columns = ("network", "weights", "classes", "pixels", "top-1", "licence")
    rows = [
        (
            card.constructor if card.constructor in networks.BUILDERS else card.constructor.lower(),
            card.name,
            str(card.classes),
            str(card.image_size),
            f"{card.metrics['top1']:.2f} %" if "top1" in card.metrics else "–",
            card.licence or "–",
        )
        for card in found
    ]
    show.print_table(columns, rows, right=("classes", "pixels", "top-1"))


def _is_of(card: cards.Card, family: str | None, dataset: str | None) -> bool:
    """Whether the card's network is of that family, and designed for that data."""
    facts = registry.constructor_of(card.constructor).facts
    domain = facts.family.spec(**(facts.row | card.options)).domain
    return (family is None or facts.family.name.lower() == family.lower()) and (
        dataset is None or domain.dataset == dataset
    )


def show_network(name: str, given: dict[str, Any], as_json: bool) -> None:
    """Prints a network's facts and options; of a builder without options what they may be.

    Args:
        name: of a network or a builder.
        given: options of it. With them the network is built, to count.
        as_json: whether to print JSON.
    """
    check_options(name, given, complete=bool(given))
    facts, options = _facts_of(name, given), options_of(name)
    if as_json:
        show.print_json(facts | {"options": options})
        return
    size = facts["input_shape"]
    texts = {
        "constructor": f"keras_deepnets.{facts['constructor']}",
        "family": facts["family"],
        "paper": facts["paper"],
        "source": facts["source"],
        "designed for": facts["dataset"],
        "input": size and " × ".join(map(str, size)),
        "classes": facts["classes"],
        "depth": facts["depth"],
        "parameters": facts["parameters"] and f"{facts['parameters']:,}",
        "multiply-adds": facts["flops"] and f"{facts['flops']:,}",
        "published error": facts["error"],
        "weights": _few(facts["weights"], facts["constructor"]),
    }
    show.print_table((facts["name"], ""), [(text, str(value)) for text, value in texts.items() if value])
    if options:
        print()
        rows = [
            (option["name"], repr(given.get(option["name"], option["default"])), option["description"])
            for option in options
        ]
        show.print_table(("option", "value" if given else "default", "meaning"), rows)
    if facts["depth"] is None:
        print(f"A builder: `{PROGRAM} info {name} --option NAME=VALUE …` shows the network that some options make.")


def _facts_of(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The facts of a network; of a builder without options those that all its networks share, the others None."""
    facts = registry.constructor_of(name).facts
    if facts.row or given:
        if given:
            load_tensorflow()
        return _facts(model_info(name, **given))
    known = {
        "name": facts.name.lower(),
        "constructor": facts.name,
        "family": facts.family.name,
        "paper": str(facts.family.paper),
        "weights": [card.name for card in cards.cards_of(facts.name)],
    }
    return dict.fromkeys(field.name for field in dataclasses.fields(ModelInfo)) | known


def _few(names: Sequence[str], constructor: str) -> str:
    """The names of weights, of many the first."""
    if len(names) <= _MOST_WEIGHTS:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, … ({len(names)}: `{PROGRAM} list --weights {constructor}`)"


def draw_network(name: str, path: Path, given: dict[str, Any]) -> None:
    """Draws a network into a picture; a wrong name, option or suffix is said before TensorFlow is loaded."""
    check_options(name, given, complete=True)
    from keras_deepnets.insight import diagram

    diagram.check_path(path)
    load_tensorflow()
    diagram.draw_network(registry.create_model(name, **given), path)


def check_options(name: str, options: Mapping[str, Any], complete: bool = False) -> None:
    """Raises InputError for an unknown network, or an option that it does not have.

    With `complete` also where a value is wrong, or an option that a builder needs is missing.
    """
    valid = [option["name"] for option in options_of(name)]
    for option in options:
        if option not in valid:
            raise InputError(f"{name} has no option {option!r}; its options: {', '.join(valid) or 'none'}.")
    if complete:
        registry.constructor_of(name).facts.spec_with(dict(options))


def options_of(name: str) -> list[dict[str, Any]]:
    """The architecture options of a network: name, default, description."""
    constructor = registry.constructor_of(name)
    signature = inspect.signature(constructor)
    fields = {field.name: field for field in dataclasses.fields(constructor.facts.family.spec)}  # type: ignore[arg-type]
    return [
        {
            "name": option,
            "default": signature.parameters[option].default,
            "description": fields[option].metadata.get("doc", ""),
        }
        for option in constructor.facts.options
    ]


def giga(count: float) -> str:
    """A number of multiply-adds in thousand millions, three digits."""
    value = count / 1e9
    return f"{value:.3g} G" if value < 100 else f"{value:.0f} G"


def _facts(info: ModelInfo) -> dict[str, Any]:
    values = dataclasses.asdict(info)
    return values | {"input_shape": list(info.input_shape), "weights": list(info.weights)}
