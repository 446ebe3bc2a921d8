"""The commands that look things up. None of them loads TensorFlow or Keras, but for drawing."""

from __future__ import annotations

import dataclasses
import inspect
import platform
from pathlib import Path
from typing import Any

import keras_deepnets
from keras_deepnets import registry
from keras_deepnets.cli import PROGRAM, show
from keras_deepnets.cli.quiet import load_tensorflow
from keras_deepnets.errors import InputError
from keras_deepnets.versions import version
from keras_deepnets.weights import cards
from keras_deepnets.weights.cards import networks


def print_version() -> None:
    """Prints the versions that a bug report needs."""
    below = [f"{package} {version(package) or 'missing'}" for package in ("tensorflow", "keras")]
    print(f"{PROGRAM} {version('keras-deepnets')} ({', '.join(below)}, python {platform.python_version()})")


def list_networks(pattern: str, family: str | None, dataset: str | None, as_json: bool) -> None:
    """Prints a row for each network that fits."""
    infos = [registry.model_info(name) for name in registry.list_models(pattern, family, dataset)]
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
    facts = getattr(keras_deepnets, card.constructor).facts
    domain = facts.family.spec(**(facts.row | card.options)).domain
    return (family is None or facts.family.name.lower() == family.lower()) and (
        dataset is None or domain.dataset == dataset
    )


def show_network(name: str, as_json: bool) -> None:
    """Prints a network's facts and options."""
    info, options = registry.model_info(name), options_of(name)
    if as_json:
        show.print_json(_facts(info) | {"options": options})
        return
    facts = {
        "constructor": f"keras_deepnets.{info.constructor}",
        "family": info.family,
        "paper": info.paper,
        "source": info.source,
        "designed for": info.dataset,
        "input": " × ".join(map(str, info.input_shape)),
        "classes": str(info.classes),
        "depth": str(info.depth),
        "parameters": f"{info.parameters:,}",
        "multiply-adds": f"{info.flops:,}",
        "published error": info.error or "–",
        "weights": ", ".join(info.weights) or "–",
    }
    show.print_table((info.name, ""), list(facts.items()))
    if options:
        print()
        rows = [(option["name"], repr(option["default"]), option["description"]) for option in options]
        show.print_table(("option", "default", "meaning"), rows)


def draw_network(name: str, path: Path) -> None:
    """Draws a network into a picture; a wrong name or suffix is said before TensorFlow is loaded."""
    registry.constructor_of(name)
    from keras_deepnets.insight import diagram

    diagram.check_path(path)
    load_tensorflow()
    diagram.draw_network(registry.create_model(name), path)


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


def _facts(info: registry.ModelInfo) -> dict[str, Any]:
    values = dataclasses.asdict(info)
    return values | {"input_shape": list(info.input_shape), "weights": list(info.weights)}
