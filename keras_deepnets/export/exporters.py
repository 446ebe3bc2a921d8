"""Models that are not classifiers bring their own export functions."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from keras_deepnets.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


def exporter_of(model: Any) -> Any:
    """The module with the export functions of the class of a model, or None. The class names it in its attribute `exporter`."""
    name = getattr(type(model), "exporter", None)
    return importlib.import_module(name) if isinstance(name, str) else None


def for_any_model(function: Callable[P, R]) -> Callable[P, R]:
    """Let an export function of classifiers call the function of the same name in the module of `exporter_of`, if there is one.

    That function gets the arguments that differ from their defaults. If it lacks one of them, the wrapped function raises InputError.
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(function).parameters.items()}
    names = list(defaults)

    @functools.wraps(function)
    def export(*args: P.args, **kwargs: P.kwargs) -> R:
        given: dict[str, Any] = {**dict(zip(names, args, strict=False)), **kwargs}
        model: Any = given.get(names[0])
        exporter = exporter_of(model)
        if exporter is None:
            return function(*args, **kwargs)
        own = getattr(exporter, function.__name__, None)
        if own is None:
            raise InputError(
                f"{model.name} cannot be exported by {function.__name__}; {exporter.__name__} has {', '.join(exporter.__all__)}."
            )
        takes = list(inspect.signature(own).parameters)
        given = {name: value for name, value in given.items() if name not in defaults or value is not defaults[name]}
        unknown = [name for name in given if name not in (names[0], *takes)]
        if unknown:
            raise InputError(
                f"{model.name}: {exporter.__name__}.{own.__name__} has no option {unknown[0]}; leave it out."
            )
        given[takes[0]] = given.pop(names[0])
        return own(**given)

    return export


def check_no_image_size(image_size: Any) -> None:
    """Raise InputError if a classifier is given an image size."""
    if image_size is not None:
        raise InputError(
            f"image_size={image_size!r} is for detectors; a classifier takes the size of its input, so leave it out."
        )


def check_classifies(model: Any) -> None:
    """Raise InputError if a model brings its own export functions, because `predict` is for classifiers."""
    if exporter_of(model) is not None:
        raise finds_objects(model.name)


def finds_objects(name: Any) -> InputError:
    """The error for a detector in the place of a classifier."""
    return InputError(f"{name} is a detector, not a classifier; use keras_deepnets.detection.export.predict.")
