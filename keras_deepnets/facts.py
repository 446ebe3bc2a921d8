"""Facts about networks: recorded for the named ones, counted from the model for all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keras_deepnets import registry
from keras_deepnets.families.base import VariantFacts
from keras_deepnets.families.counts import recorded
from keras_deepnets.weights.cards import Card, cards_of


@dataclass(frozen=True)
class ModelInfo:
    """Facts about a network that are known without building it.

    Attributes:
        name: lower-case registry name.
        constructor: public name of the constructor.
        family: name of the family.
        paper: authors, year and title.
        source: section or table of the paper.
        dataset: TFDS name of the data set that it was designed for.
        input_shape: default ``(height, width, channels)``.
        classes: default number of classes.
        depth: layers with weights along the longest path, counted as in the paper.
        parameters: number of trainable parameters.
        flops: multiply-adds for one image of the default size.
        error: published error as text, or "".
        weights: names of the published weights that it can load.
    """

    name: str
    constructor: str
    family: str
    paper: str
    source: str
    dataset: str
    input_shape: tuple[int, int, int]
    classes: int
    depth: int
    parameters: int
    flops: int
    error: str
    weights: tuple[str, ...]


def model_info(name: str, **options: Any) -> ModelInfo:
    """Return facts about the network called `name`.

    Args:
        name: name of a network, or of a builder together with the options that it needs.
        **options: architecture options. With options, and for a builder, the network is built to count parameters and
            multiply-adds. `weights` then lists the published weights of exactly this architecture.

    Raises:
        ValueError: the name is unknown, or a value is invalid.
        TypeError: an option is unknown.
    """
    facts = registry.constructor_of(name).facts
    spec = facts.spec_with(options)
    named = bool(facts.row) and not options
    counts = recorded()[facts.name.lower()] if named else count(facts.name, **options)
    return ModelInfo(
        name=facts.name.lower(),
        constructor=facts.name,
        family=facts.family.name,
        paper=str(facts.family.paper),
        source=facts.source if named else "",
        dataset=spec.domain.dataset,
        input_shape=spec.domain.input_shape,
        classes=spec.domain.classes,
        depth=spec.depth,
        parameters=counts["parameters"],
        flops=counts["flops"],
        error=facts.error if named else "",
        weights=tuple(card.name for card in cards_of(facts.name) if named or _is_of(card, facts, options)),
    )


def count(name: str, **options: Any) -> dict[str, int]:
    """Trainable parameters and multiply-adds of one image, counted from the built model."""
    from keras_deepnets import models

    model = registry.create_model(name, **options)
    return {"parameters": models.trainable_parameters(model), "flops": models.multiply_adds(model)}


def _is_of(card: Card, facts: VariantFacts, options: dict[str, Any]) -> bool:
    """Whether the published weights belong to the architecture with these options."""
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in card.options.items()}
    return facts.spec_with(given) == facts.spec_with(options)
