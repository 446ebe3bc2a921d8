"""The registry of networks: all constructors by name."""

from __future__ import annotations

import difflib
import fnmatch
import functools
import importlib
import re
from types import ModuleType
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.families import (
    all_cnn,
    bn_inception,
    densenet,
    dsn,
    fitnet,
    fractalnet,
    googlenet,
    highway,
    maxout_cnn,
    nin,
    preact,
    prelu_net,
    resnet,
    resnext,
    stochastic_depth,
    vgg,
    wide_resnet,
)
from keras_deepnets.families.base import Constructor, VariantFacts
from keras_deepnets.families.checks import check_choice

if TYPE_CHECKING:
    import keras

TASKS = ("classification", "detection")

FAMILY_MODULES: tuple[ModuleType, ...] = (
    resnet,
    preact,
    stochastic_depth,
    wide_resnet,
    resnext,
    densenet,
    highway,
    fitnet,
    vgg,
    googlenet,
    bn_inception,
    nin,
    all_cnn,
    dsn,
    fractalnet,
    maxout_cnn,
    prelu_net,
)


_ADDED: list[str] = []


def add_module(name: str) -> None:
    """Add the constructors of a module that is above this one. It is imported when the registry is first used."""
    if name not in _ADDED:
        _ADDED.append(name)
        _all.cache_clear()
        _constructors.cache_clear()


def _natural(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


@functools.cache
def _all() -> dict[str, Constructor]:
    """All constructors by lower-case name."""
    modules = (*FAMILY_MODULES, *map(importlib.import_module, _ADDED))
    values = [value for module in modules for value in vars(module).values()]
    found = {
        value.facts.name.lower(): value for value in values if isinstance(getattr(value, "facts", None), VariantFacts)
    }
    return {name: found[name] for name in sorted(found, key=_natural)}


@functools.cache
def _constructors() -> dict[str, Constructor]:
    """The constructors of the named networks."""
    return {name: constructor for name, constructor in _all().items() if constructor.facts.row}


def names() -> list[str]:
    """The names of all constructors, in lower case: networks and builders of every task."""
    return list(_all())


def builders() -> list[str]:
    """The public names of the builders of classifiers, e.g. ``"ResNet"``. A builder makes any network of its family from options."""
    found = [constructor for constructor in _all().values() if not constructor.facts.row]
    return [constructor.__name__ for constructor in found if constructor.facts.family.task == "classification"]


def list_models(
    pattern: str = "*", family: str | None = None, dataset: str | None = None, task: str = "classification"
) -> list[str]:
    """Return the names of the networks, in lower case and natural order.

    Args:
        pattern: shell pattern, e.g. ``"resnet*"``, case-insensitive.
        family: return only networks of this family, e.g. ``"ResNet"``, case-insensitive.
        dataset: return only networks designed for this data set, given by its TFDS name, e.g. ``"cifar10"``.
        task: ``"classification"`` or ``"detection"``.

    Raises:
        ValueError: the family, the data set or the task is unknown.
    """
    check_choice("list_models", "task", task, TASKS)
    constructors = {name: found for name, found in _constructors().items() if found.facts.family.task == task}
    infos = {name: constructor.facts for name, constructor in constructors.items()}
    families = {facts.family.name.lower(): facts.family.name for facts in infos.values()}
    datasets = {facts.spec.domain.dataset for facts in infos.values()}
    if family is not None and family.lower() not in families:
        raise InputError(f"Unknown family {family!r}. The families: {', '.join(families.values())}.")
    if dataset is not None and dataset not in datasets:
        raise InputError(
            f"No network was designed for dataset {dataset!r}. The datasets: {', '.join(sorted(datasets))}."
        )
    return [
        name
        for name, facts in infos.items()
        if fnmatch.fnmatchcase(name, pattern.lower())
        and (family is None or family.lower() == facts.family.name.lower())
        and (dataset is None or dataset == facts.spec.domain.dataset)
    ]


def constructor_of(name: str) -> Constructor:
    """The constructor of the network or builder called `name`, case-insensitive. Raises ValueError with the most similar names."""
    constructors = _all()
    key = str(name).lower()
    if key not in constructors:
        near = difflib.get_close_matches(key, constructors, n=4, cutoff=0.5)
        hint = f"Did you mean {', '.join(near)}?" if near else "`keras_deepnets.list_models()` lists all names."
        raise InputError(f"Unknown model {name!r}. {hint}")
    return constructors[key]


def create_model(name: str, **kwargs: Any) -> keras.Model:
    """Build the network called `name`.

    Args:
        name: name of a network, or of a builder together with the options that it needs:
            ``create_model("resnet", depth=26, stem="cifar")``.
        **kwargs: arguments of the constructor.

    Raises:
        ValueError: the name is unknown, or a value is invalid.
        TypeError: an option is unknown.
    """
    return constructor_of(name)(**kwargs)
