"""Packages that import their public names on first use."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

WAITING: list[Callable[[], None]] = []
"""Functions that the module `models` calls once it is complete."""


def lazy_names(
    package: str, modules: Mapping[str, Sequence[str]], first: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of a package.

    Args:
        package: ``__name__`` of the package.
        modules: maps each module of the package to the public names that it provides.
        first: module that is imported before any of them. Keras registers the package's classes when it is first imported. That
            must not happen in the middle of one of these modules.
    """
    module_of = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if first is not None:
            importlib.import_module(first)
        value = getattr(importlib.import_module(f"{package}.{module_of[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *module_of})

    return get, names
