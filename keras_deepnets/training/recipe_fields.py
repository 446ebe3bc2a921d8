"""The fields of a recipe with their values, allowed values and meanings, all derived from `Recipe`."""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from keras_deepnets.data import augmentation
from keras_deepnets.training.recipe import AUTO, BELOW_ONE, CHOICES, OWN, POSITIVE, SIZED_FIELDS, Recipe

_KINDS = {float: "number", int: "whole number", str: "string", tuple: "list of fractions of the run or durations"}


@dataclass(frozen=True)
class RecipeField:
    """A field of a recipe.

    Attributes:
        name: Name of the field.
        value: Value in the recipe.
        default: Default value; also None for a required field.
        allowed: Allowed values, in words.
        choices: Allowed values, if there are only a few; otherwise empty.
        meaning: Meaning of the field.
    """

    name: str
    value: Any
    default: Any
    allowed: str
    choices: tuple[str, ...]
    meaning: str


def recipe_fields(recipe: Recipe) -> list[RecipeField]:
    """Return the fields of a recipe in order, without its name, source and use."""
    return [
        RecipeField(
            field.name,
            getattr(recipe, field.name),
            _default(field),
            _allowed(field.name),
            choices(field.name),
            meanings()[field.name],
        )
        for field in fields(Recipe)
        if field.name not in OWN
    ]


@functools.cache
def meanings() -> dict[str, str]:
    """Return the meaning of each field of `Recipe`, from the ``Attributes`` section of its docstring."""
    text = inspect.cleandoc(Recipe.__doc__ or "").partition("Attributes:\n")[2]
    entries = re.split(r"^ {4}(\w+): ", text, flags=re.MULTILINE)[1:]
    found = {name: " ".join(words.split()) for name, words in zip(entries[::2], entries[1::2], strict=True)}
    return {field.name: found.get(field.name, "") for field in fields(Recipe)}


def choices(name: str) -> tuple[str, ...]:
    """Return the allowed values of a field if there are only a few, otherwise an empty tuple."""
    if name == "augmentation":
        return (AUTO, *augmentation.policies())
    return CHOICES.get(name, ())


def _default(field: Any) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return None if field.default is MISSING else field.default


def _allowed(name: str) -> str:
    """Describe the allowed values of a field in words, from its type and its checks."""
    hint = typing.get_type_hints(Recipe)[name]
    kinds = [typing.get_origin(kind) or kind for kind in typing.get_args(hint) or (hint,)]
    if typing.get_origin(hint) in (tuple, Mapping):
        kinds = [typing.get_origin(hint)]
    if found := choices(name):
        text = ", ".join(found) + (", or several joined by +" if name == "augmentation" else "")
    elif bool in kinds:
        text = "true, false"
    elif kinds[0] in (float, int):
        text = f"{_KINDS[kinds[0]]} {_range(name)}"
    else:
        text = _KINDS.get(kinds[0], "mapping from names to values")
    if name in SIZED_FIELDS:
        text += f", or {AUTO}"
    elif str in kinds[1:]:
        text += ", or a duration"
    return f"{text}, or none" if type(None) in kinds else text


def _range(name: str) -> str:
    lowest = "above 0" if name in POSITIVE else "from 0"
    return f"{lowest} to below 1" if name in BELOW_ONE else lowest
