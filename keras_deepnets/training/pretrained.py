"""The network of a run that starts from weights. It gets a new classifier if the classes differ."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_deepnets import labels as class_names
from keras_deepnets import models, registry, surgery
from keras_deepnets.errors import InputError
from keras_deepnets.files import digest
from keras_deepnets.scaling import Scaling
from keras_deepnets.training import precision as precisions
from keras_deepnets.training.networks import NamedNetwork
from keras_deepnets.training.recipe import Recipe
from keras_deepnets.weights import source as sources

if TYPE_CHECKING:
    from keras_deepnets.data import ImageData


class PretrainedNetwork(NamedNetwork):
    """A network of the registry that starts from weights.

    The weights set the network's options, its input scaling and its view of an image. The images set its classes. If
    these are the classes of the weights, in the same order, the classifier is kept.

    Args:
        name: Registry name.
        weights: Name of a card, a file, or the folder of a finished run.
        options: Additional arguments of the constructor.
        data: Training images.
        recipe: Recipe of the run.

    Raises:
        InputError: The network, card, file or finished run does not exist, or an option contradicts the weights.
    """

    def __init__(
        self, name: str, weights: str | os.PathLike, options: Mapping[str, Any], data: ImageData, recipe: Recipe
    ):
        self._weights = sources.file_of(weights)
        facts = registry.constructor_of(name).facts
        given = {option: options[option] for option in facts.options if option in options}
        self._source = sources.resolve(facts, facts.spec_with(given) if facts.row else None, self._weights, given)
        record = getattr(self._source.contents, "record", None) or {}
        if before := (record.get("architecture") or {}).get("input"):
            raise InputError(
                f"{os.fspath(weights)} was trained with input_scaling={before!r}, whose layers a new network lacks. Load its model, "
                "give it the classes of the data with keras_deepnets.replace_classifier, and train that model."
            )
        spec = facts.spec_with(self._source.options | given)
        super().__init__(name, options, data, recipe, spec)
        height, width, channels = self._source.input_shape(spec)
        side = recipe.image_size
        self._shape = (side or height, side or width, channels)
        self._domain_scaling = spec.domain.scaling

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of the network, including those that the weights require."""
        return self._source.options | self._options

    def identity(self) -> dict[str, Any]:
        """Return the values that identify the network, as plain JSON values."""
        path = Path(self._weights)
        file = {} if isinstance(self._source.contents, sources.Card) else {"file": digest(path)}
        return super().identity() | {"weights": {"name": self._source.name} | file}

    def scaling(self) -> Scaling:
        """Return the input scaling and the view that the weights specify.

        If the weights do not specify a scaling, that of the network's published data applies.
        """
        scaling = self._source.scaling or self._domain_scaling
        return dataclasses.replace(scaling, crop_fraction=self._crop) if self._crop else scaling

    def build(self, precision: str | None, scaling: Scaling | None) -> keras.Model:
        """Build the network with its weights, and a new classifier if the classes differ."""
        arguments = {"input_shape": self._shape, "include_preprocessing": scaling, **self._options}
        with precisions.policy(precision):
            model = registry.create_model(self.name, weights=self._weights, **arguments)
            labels = models.labels_of(model) or self._labels()
            if labels is None or class_names.first_difference(labels, self._data.labels) is not None:
                model = surgery.replace_classifier(model, len(self._data.labels))
        model.labels = self._data.labels
        return model

    def _labels(self) -> tuple[str, ...] | None:
        """Return the class names of published ImageNet weights, which the weight files do not contain."""
        classes = class_names.imagenet_classes()
        return tuple(name for _, name in classes) if self._source.classes == len(classes) else None
