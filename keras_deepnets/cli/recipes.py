"""The `recipes` command, which lists training recipes and their fields. It loads neither TensorFlow nor Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from keras_deepnets import training
from keras_deepnets.cli import show
from keras_deepnets.cli.problems import PROGRAM
from keras_deepnets.training.recipe import AUTO, Recipe
from keras_deepnets.training.recipe_fields import recipe_fields


def list_recipes(as_json: bool) -> None:
    """Print one row per recipe: its length and when to use it."""
    found = [training.get_recipe(name) for name in training.recipes()]
    if as_json:
        show.print_json([_summary(recipe) for recipe in found])
        return
    rows = [(recipe.name, _length(recipe), recipe.use) for recipe in found]
    show.print_table(("recipe", "length", "when to use it"), rows)
    print(f"`{PROGRAM} recipes NAME` shows a recipe's fields; `train --recipe NAME --set FIELD=VALUE` changes them.")


def show_recipe(name: str, as_json: bool) -> None:
    """Print the fields of a recipe with their values, allowed values and meanings."""
    recipe = training.get_recipe(name)
    found = recipe_fields(recipe)
    if as_json:
        values = recipe.to_dict()
        entries = [dataclasses.asdict(field) | {"value": values[field.name]} for field in found]
        show.print_json(_summary(recipe) | {"fields": entries})
        return
    print(f"{recipe.name}: {recipe.use}" if recipe.use else recipe.name)
    print(f"Numbers: {recipe.source}.")
    print()
    rows = [(field.name, _text(field.value), field.allowed, field.meaning) for field in found]
    show.print_table(("field", "value", "allowed", "meaning"), rows)


def _summary(recipe: Recipe) -> dict[str, Any]:
    return {"name": recipe.name, "use": recipe.use, "source": recipe.source, "length": _length(recipe)}


def _length(recipe: Recipe) -> str:
    for name in ("epochs", "steps", "examples"):
        value = getattr(recipe, name)
        if value is not None:
            return f"{name} by the number of images" if value == AUTO else f"{value:,g} {name}"
    raise AssertionError("a recipe has a length")


def _text(value: Any) -> str:
    """Format a field's value in the syntax of ``--set``."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, Mapping):
        return str(dict(value)) if value else "none"
    return str(value)
