"""The network of a run that starts from weights: built for the images, with a new classifier where the classes differ."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_deepnets import labels as class_names
from keras_deepnets import models, registry, surgery
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

    The weights decide the network's options, its input scaling and its view of an image. The images decide its classes. Where
    these are the classes of the weights, in their order, the classifier of the weights stays.

    Args:
        name: of the registry.
        weights: a card's name, a file, or the folder of a finished run.
        options: further arguments of its constructor.
        data: the training images.
        recipe: of the run.

    Raises:
        InputError: there is no such network, card, file or finished run, or an option contradicts the weights.
    """

    def __init__(
        self, name: str, weights: str | os.PathLike, options: Mapping[str, Any], data: ImageData, recipe: Recipe
    ):
        self._weights = sources.file_of(weights)
        facts = registry.constructor_of(name).facts
        given = {option: options[option] for option in facts.options if option in options}
        self._source = sources.resolve(facts, facts.spec_with(given) if facts.row else None, self._weights, given)
        spec = facts.spec_with(self._source.options | given)
        super().__init__(name, options, data, recipe, spec)
        height, width, channels = self._source.input_shape(spec)
        side = recipe.image_size
        self._shape = (side or height, side or width, channels)
        self._domain_scaling = spec.domain.scaling

    @property
    def options(self) -> dict[str, Any]:
        """The options of the network, those that the weights need too."""
        return self._source.options | self._options

    def identity(self) -> dict[str, Any]:
        """What makes two networks the same: plain JSON values."""
        path = Path(self._weights)
        file = {} if isinstance(self._source.contents, sources.Card) else {"file": digest(path)}
        return super().identity() | {"weights": {"name": self._source.name} | file}

    def scaling(self) -> Scaling:
        """The input scaling and the view of the weights; that of the network's data where the weights do not say."""
        scaling = self._source.scaling or self._domain_scaling
        return dataclasses.replace(scaling, crop_fraction=self._crop) if self._crop else scaling

    def build(self, precision: str | None, scaling: Scaling) -> keras.Model:
        """The network with its weights, and a fresh classifier where the classes are others."""
        arguments = {"input_shape": self._shape, "include_preprocessing": scaling, **self._options}
        with precisions.policy(precision):
            model = registry.create_model(self.name, weights=self._weights, **arguments)
            labels = models.labels_of(model) or self._labels()
            if labels is None or class_names.first_difference(labels, self._data.labels) is not None:
                model = surgery.replace_classifier(model, len(self._data.labels))
        model.labels = self._data.labels
        return model

    def _labels(self) -> tuple[str, ...] | None:
        """The class names of published ImageNet weights, which their files do not hold."""
        classes = class_names.imagenet_classes()
        return tuple(name for _, name in classes) if self._source.classes == len(classes) else None
