"""What the readers of all formats share: their result, and the names of splits."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

from keras_deepnets.detection.data.annotations import RawAnnotation

_SAME = (("val", "validation", "valid"), ("train", "training"), ("test", "testing"))


@dataclass(frozen=True, eq=False)
class Parsed:
    """One split as its files give it.

    Attributes:
        raws: One annotation per image.
        texts: The class name of each key, in the order of the labels.
        names: The names of all labels from 1, if they are not those of `texts`.
        labels: The label of each key, if `names` is given.
    """

    raws: Sequence[RawAnnotation]
    texts: Mapping[Hashable, str]
    names: tuple[str, ...] | None = None
    labels: Mapping[Hashable, int] | None = None


def split_name(split: str, present: Collection[str]) -> str | None:
    """The split among ``present`` that ``split`` means. ``val``, ``valid`` and ``validation`` are the same. None: there is none."""
    if split in present:
        return split
    return next((each for each in synonyms(split) if each in present), None)


def synonyms(split: str) -> tuple[str, ...]:
    """The names of the same split, the given one first."""
    for group in _SAME:
        if split in group:
            return (split, *(each for each in group if each != split))
    return (split,)
