"""What the families of Inception modules share: the names and the checks of their modules."""

from __future__ import annotations

from typing import Any

from keras_deepnets.errors import InputError

Module = tuple[int, ...]
Stages = tuple[tuple[Module, ...], ...]
"""The modules of each stage, six numbers per module."""


def check_modules(owner: str, modules: Any, example: tuple[Module, ...]) -> Stages:
    """`modules` as tuples. Raises InputError unless every stage has modules of six numbers."""
    try:
        found = tuple(tuple(tuple(module) for module in stage) for stage in modules)
    except TypeError:
        found = ()
    if not found or not all(found) or any(len(module) != 6 for stage in found for module in stage):
        raise InputError(
            f"{owner}: modules={modules!r} must have a tuple per stage with six numbers per module, e.g. {example}."
        )
    return found


def module_names(modules: Stages) -> list[tuple[str, Module]]:
    """The modules with their names: ``"3a"``, ``"3b"``, …, counted as in the papers."""
    return [
        (f"{number}{chr(ord('a') + place)}", module)
        for number, stage in enumerate(modules, start=3)
        for place, module in enumerate(stage)
    ]
