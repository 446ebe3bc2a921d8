"""Read a model's architecture record: the spec of its network, and how to build it with other options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_deepnets import registry
from keras_deepnets.errors import InputError
from keras_deepnets.families.base import LAYER_PREFIX, Family


def spec_of(architecture: Mapping[str, Any]) -> Any:
    """The spec of the network that a model's `architecture` describes."""
    facts = registry.constructor_of(architecture["constructor"]).facts
    options = {name: value for name, value in architecture["options"].items() if name != LAYER_PREFIX}
    return facts.family.spec(**(facts.row | options))


def way_to(architecture: Mapping[str, Any], needed: Mapping[str, Any]) -> str:
    """Return a sentence on how to build a network with the options `needed`, even if its constructor lacks them."""
    facts = registry.constructor_of(architecture["constructor"]).facts
    lacking = [name for name in needed if name not in facts.options]
    own = {name: value for name, value in architecture["options"].items() if name != LAYER_PREFIX}
    options = facts.row | own | dict(needed)
    if not lacking and _exists(facts.family, options):
        return f"Build it with {_as_arguments(needed)}."
    start = f"{facts.name} has no option {', '.join(lacking)}; " if lacking else ""
    for name in registry.builders():
        found = registry.constructor_of(name).facts
        builds = found.family.spec is facts.family.spec
        if lacking and builds and set(options) <= set(found.options) and _exists(found.family, options):
            return f"{start}build it as keras_deepnets.{found.name}({_as_arguments(options)})."
    return f"{start}these weights belong to another network."


def _exists(family: Family, options: Mapping[str, Any]) -> bool:
    """Whether a network with these options exists."""
    try:
        family.spec(**options)
    except InputError:
        return False
    return True


def _as_arguments(options: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}={tuple(value) if isinstance(value, list) else value!r}" for name, value in options.items()
    )
