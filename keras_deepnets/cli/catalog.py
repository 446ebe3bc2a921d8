"""The commands `list` and `info`. They load TensorFlow and Keras only to draw or to build a network with options."""

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
"""Maximum number of weight names that `info` prints."""


def print_version() -> None:
    """Print the versions for a bug report."""
    below = [f"{package} {version(package) or 'missing'}" for package in ("tensorflow", "keras")]
    print(f"{PROGRAM} {version('keras-deepnets')} ({', '.join(below)}, python {platform.python_version()})")


def list_networks(
    pattern: str, family: str | None, dataset: str | None, as_json: bool, task: str = "classification"
) -> None:
    """Print one row per matching network."""
    infos = [model_info(name) for name in registry.list_models(pattern, family, dataset, task)]
    if not infos:
        raise InputError(f"No network name matches {pattern!r}; `{PROGRAM} list` prints all of them.")
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
    """Print one row per matching set of published weights."""
    found = [card for card in cards.list_weights(pattern) if _is_of(card, family, dataset)]
    if not found:
        raise InputError(
            f"No published weights match {pattern!r} by their own name or their network's; `{PROGRAM} list --weights` prints all."
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
    """Whether the card's network belongs to the family and was designed for the data set."""
    facts = registry.constructor_of(card.constructor).facts
    domain = facts.family.spec(**(facts.row | card.options)).domain
    return (family is None or facts.family.name.lower() == family.lower()) and (
        dataset is None or domain.dataset == dataset
    )


def show_network(name: str, given: dict[str, Any], as_json: bool) -> None:
    """Print the facts and options of a network. For a builder without options, print what all its networks share.

    Args:
        name: Name of a network or a builder.
        given: Options for it. With options, the network is built to count its parameters.
        as_json: Whether to print JSON.
    """
    check_options(name, given, complete=bool(given))
    facts, options = _facts_of(name, given), options_of(name)
    if as_json:
        show.print_json(facts | {"options": options})
        return
    size = facts["input_shape"]
    texts = {
        "constructor": f"keras_deepnets.{_package(name)}{facts['constructor']}",
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
        print(f"A builder: `{PROGRAM} info {name} --option NAME=VALUE …` shows the network with these options.")


def _facts_of(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The facts of a network. For a builder without options, facts that its networks do not share are None."""
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
    """The names of weights, shortened if there are many."""
    if len(names) <= _MOST_WEIGHTS:
        return ", ".join(names)
    return f"{', '.join(names[:3])}, … ({len(names)}: `{PROGRAM} list --weights {constructor}`)"


def draw_network(name: str, path: Path, given: dict[str, Any]) -> None:
    """Draw a network to a picture file. A wrong name, option or suffix is reported before TensorFlow is loaded."""
    check_options(name, given, complete=True)
    from keras_deepnets.insight import diagram, figures

    figures.check_path(path)
    load_tensorflow()
    diagram.draw_network(registry.create_model(name, **given), path)


def check_options(name: str, options: Mapping[str, Any], complete: bool = False) -> None:
    """Raise InputError for an unknown network or an unknown option.

    With `complete`, also raise it for a wrong value or a missing option that a builder needs.
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
            "default": _default(signature.parameters[option]),
            "description": fields[option].metadata.get("doc", ""),
        }
        for option in constructor.facts.options
    ]


def _package(name: str) -> str:
    """The part of the constructor's path between the package and its name."""
    return "detection." if registry.constructor_of(name).facts.family.task == "detection" else ""


def _default(parameter: inspect.Parameter) -> Any:
    """The default of an option; None if the caller must give it."""
    return None if parameter.default is inspect.Parameter.empty else parameter.default


def giga(count: float) -> str:
    """Format a number of multiply-adds in billions (G), to three digits."""
    value = count / 1e9
    return f"{value:.3g} G" if value < 100 else f"{value:.0f} G"


def _facts(info: ModelInfo) -> dict[str, Any]:
    values = dataclasses.asdict(info)
    return values | {"input_shape": list(info.input_shape), "weights": list(info.weights)}
