"""Writes ``keras_deepnets/__init__.pyi``: the constructors' signatures for editors and type checkers.

    python -m tools.write_stub

Constructors are made from the rows of tables, which a type checker cannot follow.
"""

import ast
import dataclasses
import inspect
from pathlib import Path

import keras_deepnets
from keras_deepnets.families.base import VariantFacts

PATH = Path(keras_deepnets.__file__).with_name("__init__.pyi")

_HEAD = '''"""Signatures for editors and type checkers. Written by ``python -m tools.write_stub``; a test compares it."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal

{imports}
from keras_deepnets import models as models
from keras_deepnets.models import DeepNet
from keras_deepnets.versions import __version__ as __version__
'''
_TYPES = {
    "include_top": "bool",
    "weights": "str | PathLike[str] | None",
    "input_tensor": "Any",
    "input_shape": "Sequence[int | None] | None",
    "pooling": 'Literal["avg", "max"] | None',
    "classes": "int | None",
    "classifier_activation": "str | Callable[[Any], Any] | None",
    "name": "str | None",
    "include_preprocessing": "bool | Scaling",
    "layer_prefix": "str",
}


def signature(facts: VariantFacts, function: object) -> str:
    """The stub of a constructor, on one line."""
    types = {
        field.name: str(field.type).replace("tuple[", "Sequence[").replace(", ...]", "]")
        for field in dataclasses.fields(facts.family.spec)
    }
    words = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        kind = _TYPES.get(parameter.name) or types[parameter.name]
        if parameter.default is None and "None" not in kind and kind != "Any":
            kind += " | None"  # filled in from other options
        words.append(f"{parameter.name}: {kind} = {parameter.default!r}")
    return f"def {facts.name}({', '.join(words)}) -> DeepNet: ..."


def imports() -> list[str]:
    """The other public names, from where the package takes them."""
    tree = ast.parse(Path(keras_deepnets.__file__).read_text(encoding="utf-8"))
    lines = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names if alias.name in keras_deepnets.__all__]
            names = [
                name
                for name in names
                if not hasattr(getattr(keras_deepnets, name), "facts")
                or inspect.ismodule(getattr(keras_deepnets, name))
            ]
            lines += [f"from {node.module} import {', '.join(f'{name} as {name}' for name in names)}"] if names else []
    return lines


def stub() -> str:
    """The whole file."""
    constructors = [
        value
        for name in keras_deepnets.__all__
        if isinstance(getattr(value := getattr(keras_deepnets, name), "facts", None), VariantFacts)
    ]
    lines = [signature(value.facts, value) for value in constructors]
    return _HEAD.format(imports="\n".join(imports())) + "\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(stub(), encoding="utf-8")
