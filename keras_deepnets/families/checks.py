"""Checks of the values given to specs and constructors."""

from __future__ import annotations

import re
from typing import Any

from keras_deepnets.errors import InputError


def check_choice(owner: str, name: str, value: Any, choices: Any) -> None:
    """Raises InputError unless `value` is one of `choices`."""
    if value not in choices:
        raise InputError(f"{owner}: {name}={value!r} is not one of {', '.join(map(repr, choices))}.")


def check_layer_prefix(owner: str, prefix: Any) -> None:
    """Raises InputError unless `prefix` is a valid beginning of layer names."""
    if not isinstance(prefix, str) or not re.fullmatch(r"([A-Za-z][A-Za-z0-9_.-]*)?", prefix):
        raise InputError(
            f"{owner}: layer_prefix={prefix!r} must consist of letters, digits, '_', '.' and '-' and begin with a letter, "
            "e.g. 'left_'."
        )


def check_probability(owner: str, name: str, value: Any) -> None:
    """Raises InputError unless `value` is a drop probability in [0, 1)."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < 1:
        raise InputError(f"{owner}: {name}={value!r} must be a drop probability in [0, 1).")


def check_counts(owner: str, **values: Any) -> None:
    """Raises InputError unless every value (a number or a tuple of numbers) is a whole number of at least 1."""
    for name, value in values.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if any(not isinstance(number, int) or isinstance(number, bool) or number < 1 for number in numbers):
            raise InputError(f"{owner}: {name}={value!r} must be a whole number of at least 1.")


def set_tuples(owner: str, spec: Any, *fields: str, empty: bool = False) -> None:
    """Makes fields of a frozen spec tuples. Raises InputError unless they are tuples or lists, and not empty unless `empty`."""
    for field in fields:
        value = getattr(spec, field)
        if not isinstance(value, (tuple, list)) or not (value or empty):
            numbers = "numbers" if empty else "at least one number"
            raise InputError(f"{owner}: {field}={value!r} must be a tuple of {numbers}, e.g. (3, 3, 3).")
        object.__setattr__(spec, field, tuple(value))


def set_counts(owner: str, spec: Any, *fields: str, empty: bool = False) -> None:
    """As `set_tuples`. Also raises InputError unless all values are whole numbers of at least 1."""
    set_tuples(owner, spec, *fields, empty=empty)
    check_counts(owner, **{field: getattr(spec, field) for field in fields})


def set_stages(owner: str, spec: Any, field: str, example: str) -> None:
    """Makes a field of a frozen spec a tuple of a tuple per stage. Raises InputError unless each stage has counts."""
    stages = getattr(spec, field)
    nested = isinstance(stages, (tuple, list)) and all(isinstance(stage, (tuple, list)) and stage for stage in stages)
    if not nested or not stages:
        raise InputError(f"{owner}: {field}={stages!r} must have one tuple of channels per stage, e.g. {example}.")
    object.__setattr__(spec, field, tuple(map(tuple, stages)))
    for stage in getattr(spec, field):
        check_counts(owner, **{field: stage})


def check_deep_stem(owner: str, deep_stem: Any, stem: str) -> tuple[int, ...]:
    """`deep_stem` as a tuple. Raises InputError unless it has at least one whole number and the stem is ImageNet's."""
    deep_stem = tuple(deep_stem)
    if stem != "imagenet" or not deep_stem:
        raise InputError(
            f"{owner}: deep_stem={deep_stem} replaces the 7×7 convolution of stem='imagenet'; stem is {stem!r}."
        )
    check_counts(owner, deep_stem=deep_stem)
    return deep_stem


def repeats_of_depth(owner: str, depth: Any, step: int, rest: int, what: str) -> int:
    """The n of a depth of ``step·n + rest`` layers. Raises InputError with the rule and the nearest valid depth."""
    check_counts(owner, depth=depth)
    repeats, remainder = divmod(depth - rest, step)
    if remainder or repeats < 1:
        nearest = step * max(repeats, 1) + rest
        raise InputError(f"{owner}: depth={depth} is not {step}n+{rest} ({what}); e.g. {nearest}.")
    return repeats
