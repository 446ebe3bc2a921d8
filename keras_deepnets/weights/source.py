"""Resolve a constructor's ``weights`` argument before anything is built or downloaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from keras_deepnets.errors import InputError
from keras_deepnets.scaling import Scaling
from keras_deepnets.weights import cards, reading, recognition
from keras_deepnets.weights.cards import Card
from keras_deepnets.weights.loading import HEAD, as_given, load_into, matters, needs
from keras_deepnets.weights.reading import Tensors

if TYPE_CHECKING:
    import keras

    from keras_deepnets.families.base import VariantFacts


@dataclass(frozen=True)
class Source:
    """Weights to build a network for.

    Attributes:
        owner: Name of the constructor.
        text: The caller's argument.
        options: Options that the network needs and that its constructor has.
        classes: Number of outputs of the classifier. None if the weights have no classifier.
        scaling: Input scaling, if known.
        image_size: Image side that the crop of the card's scaling belongs to, or None.
        shape: ``(height, width, channels)`` of the network that the file was saved from, if recorded. The sides may be None.
        contents: A card that is not downloaded yet, or the tensors of a file.
    """

    owner: str
    text: str
    options: dict[str, Any]
    classes: int | None
    scaling: Scaling | None
    image_size: int | None
    contents: Card | Tensors
    shape: tuple[int | None, ...] | None = None

    @property
    def name(self) -> str:
        """Name of the weights for a record: the card's name or the file's name."""
        return self.contents.name if isinstance(self.contents, Card) else Path(self.text).name

    def input_shape(self, spec: Any) -> tuple[int, int, int]:
        """The default input shape: that of the saved network, else of the weights' evaluation, else of the network's data set."""
        height, width, channels = spec.domain.input_shape
        if self.shape is not None and len(self.shape) == 3:
            channels = cast(int, self.shape[2])  # only the sides may be None
            return (self.shape[0] or height, self.shape[1] or width, channels)
        return (self.image_size or height, self.image_size or width, channels)

    def check_classes(self, classes: int | None) -> int | None:
        """Return the number of classes to build. Raise InputError if the weights have a different number."""
        if None not in (classes, self.classes) and classes != self.classes:
            raise InputError(
                f"{self.owner}: the weights {self.text!r} have {self.classes} classes and classes={classes} was given; build it with "
                f"include_top=False, or without weights and use load_weights(…, skip_head=True), or use replace_classifier."
            )
        return self.classes if classes is None else classes

    def load_into(self, model: keras.Model) -> None:
        """Load the weights into the network that was built for them. Download them first if necessary."""
        contents = cards.tensors(self.contents) if isinstance(self.contents, Card) else self.contents
        load_into(model, contents)


def resolve(facts: VariantFacts, spec: Any, weights: Any, given: dict[str, Any]) -> Source:
    """Resolve `weights` for a constructor that the caller gave the options `given`.

    Raises:
        InputError: The card or file does not exist, or the options contradict those that the weights need.
    """
    text = str(weights)
    card: Card | None
    contents: Card | Tensors
    classes: int | None
    if isinstance(weights, str) and cards.is_name(weights):
        contents = card = cards.card(facts.name, weights)
        needed = {name: as_given(value) for name, value in card.options.items()}
        classes, scaling = card.classes, card.scaling
    else:
        if not isinstance(weights, (str, Path)):
            raise InputError(
                f"{facts.name}: weights={weights!r} is neither None, nor the name of a card, nor the path of a file; "
                "use load_weights for models and mappings."
            )
        path = reading.check_path(facts.name, weights)
        contents = reading.read(path)
        card = None if contents.record else cards.of_file(path)
        contents = contents if card is None else cards.described(contents, card)
        needed, classes, scaling = _of_file(facts, contents)
    if spec is not None:
        needed = {name: value for name, value in needed.items() if matters(name, spec)}
    check_given(facts.name, text, needed, given)
    own = {name: value for name, value in needed.items() if name in facts.options}
    record = (contents.record if isinstance(contents, Tensors) else None) or {}
    shape = tuple(record["input_shape"]) if record.get("input_shape") else None
    return Source(facts.name, text, own, classes, scaling, card.image_size if card else None, contents, shape)


def check_given(owner: str, text: str, needed: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise InputError if an option from the caller contradicts an option that the weights need."""
    for name, value in needed.items():
        if name in given and as_given(given[name]) != as_given(value):
            raise InputError(
                f"{owner}: the weights {text!r} need {name}={as_given(value)!r} and {name}={given[name]!r} was given; leave it out."
            )


def _of_file(facts: VariantFacts, tensors: Tensors) -> tuple[dict[str, Any], int | None, Scaling | None]:
    record = tensors.record or {}
    architecture = record.get("architecture")
    scaling = Scaling.from_dict(record["scaling"]) if record.get("scaling") else None
    found = recognition.recognised(tensors.arrays, ())
    if architecture and architecture["constructor"] == facts.name:
        options = {name: as_given(value) for name, value in architecture["options"].items()}
    else:
        options = needs(tensors, found) if found else {}
    classes = None
    if found:
        ours = {found.ours(name): array for name, array in tensors.arrays.items()}
        classes = ours[f"{HEAD}bias"].shape[0] if f"{HEAD}bias" in ours else None
    return options, classes, scaling


def file_of(weights: str | os.PathLike) -> str:
    """Return `weights`, or the model file if `weights` is a run folder.

    Raises:
        InputError: The folder holds no finished run.
    """
    path = Path(weights)
    if not path.is_dir():
        return os.fspath(weights)
    if not (path / "model.keras").is_file():
        raise InputError(
            f"weights={os.fspath(weights)!r} is a folder without model.keras; give the folder of a finished run, a file, or a card."
        )
    return str(path / "model.keras")
