"""The network of a run: built by name for the data, or given by the caller."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_deepnets import layers, models, registry
from keras_deepnets.errors import InputError
from keras_deepnets.labels import first_difference
from keras_deepnets.scaling import Scaling
from keras_deepnets.training import feed
from keras_deepnets.training import precision as precisions
from keras_deepnets.training.recipe import Recipe

if TYPE_CHECKING:
    from keras_deepnets.data import ImageData


WHITENED = ("gcn", "zca")
"""Values of a recipe's `input_scaling` that put layers in front of the network."""


class NamedNetwork:
    """A network of the registry, built for some data.

    Its input size comes from the recipe. Its classes and input scaling come from the data.

    Args:
        name: Registry name.
        options: Additional arguments of its constructor.
        data: Training images.
        recipe: Recipe of the run.
        spec: Architecture. `None`: derived from the options.

    Raises:
        InputError: The network does not exist, or an option that a builder needs is missing.
    """

    def __init__(self, name: str, options: Mapping[str, Any], data: ImageData, recipe: Recipe, spec: Any = None):
        facts = registry.constructor_of(name).facts
        spec = spec or facts.spec_with({option: options[option] for option in facts.options if option in options})
        height, width, channels = spec.domain.input_shape
        self.name = facts.name.lower()
        self._shape = (recipe.image_size or height, recipe.image_size or width, channels)
        self._options, self._data, self._crop = dict(options), data, recipe.crop_fraction
        self._input = recipe.input_scaling
        self._whitening: list[np.ndarray] | None = None
        taken = {"classes", "include_top", "include_preprocessing", "input_shape", "input_tensor"} & set(self._options)
        try:
            json.dumps(self._options)
        except TypeError as error:
            raise InputError(f"model_options={self._options!r} must be plain JSON values ({error}).") from None
        if taken:
            raise InputError(f"model_options sets {', '.join(sorted(taken))}, which the run itself sets; leave it out.")

    def identity(self) -> dict[str, Any]:
        """Return the values that identify the network, as plain JSON values."""
        return {"name": self.name, "input_shape": list(self._shape), "options": self._options}

    def side(self) -> int:
        """Return the smaller side of the input in pixels."""
        return min(self._shape[:2])

    def scaling(self) -> Scaling | None:
        """Return the network's input scaling and its view at test time.

        The scaling uses the statistics of the data, or maps values to 0–1. It is None if layers before the network
        normalise the contrast.
        """
        if self._input in WHITENED:
            return None
        channels = self._shape[2]
        mean, std = ((0.0,) * channels, (255.0,) * channels) if self._input == "unit" else self._data.statistics()
        if len(mean) != channels:
            # The statistics are converted like the images: grey to RGB by repetition, RGB to grey by the mean.
            mean, std = ([sum(values) / len(values)] * channels for values in (mean, std))
        crop = self._crop or (0.875 if self.side() > feed.SMALL else 1.0)
        return Scaling(mean, tuple(max(value, 1.0) for value in std), crop_fraction=crop)

    def build(self, precision: str | None, scaling: Scaling | None) -> keras.Model:
        """Build the network with new weights."""
        arguments = {"classes": len(self._data.labels), **self._options}
        with precisions.policy(precision):
            if self._input in WHITENED:
                model = registry.create_model(self.name, input_tensor=self._whitened(), **arguments)
                model.architecture["input"] = self._input
            else:
                arguments |= {"input_shape": self._shape, "include_preprocessing": scaling}
                model = registry.create_model(self.name, **arguments)
        model.labels = self._data.labels
        return model

    def _whitened(self) -> Any:
        """Return the symbolic output of the layers that normalise the contrast of images, and whiten them."""
        values = math.prod(self._shape)
        if self._input == "zca" and values > layers.ZCAWhitening.LARGEST:
            height, width, channels = self._shape
            raise InputError(
                f"input_scaling='zca': {height}×{width} pixels with {channels} channels have {values:,} values, and at most "
                f"{layers.ZCAWhitening.LARGEST:,} can be whitened. Set input_scaling='gcn', or a smaller image_size."
            )
        inputs = keras.Input(self._shape, name="input_layer")
        x = layers.normalize_contrast(inputs)
        if self._input == "gcn":
            return x
        whitening = layers.ZCAWhitening(name="whitening")
        y = whitening(x)
        if self._whitening is None:
            contrast = keras.Model(inputs, x)
            batches = feed.evaluation(contrast, self._data, 256)
            whitening.fit(contrast.predict_on_batch(images) for images, _ in batches)
            self._whitening = whitening.get_weights()
        whitening.set_weights(self._whitening)
        return y


class GivenNetwork:
    """A model that the caller built.

    Raises:
        InputError: The model does not fit the data: number of outputs, labels or shape.
    """

    def __init__(self, model: keras.Model, data: ImageData, recipe: Recipe):
        check_fit(models.without_auxiliary(model), data)
        size = model.input_shape[1:3]
        if recipe.image_size is not None and any(side not in (None, recipe.image_size) for side in size):
            raise InputError(
                f"image_size={recipe.image_size}, but model {model.name!r} takes {size[0]}×{size[1]} pixels."
            )
        self.model, self._data, self._image_size = model, data, recipe.image_size
        # Keras numbers the models of a process: sequential, sequential_1, …
        self.name = constructor_name(model) or re.sub(r"_\d+$", "", model.name)

    def identity(self) -> dict[str, Any]:
        """Return the values that identify the network, as plain JSON values."""
        shape = list(self.model.input_shape[1:])
        return {"name": self.name, "input_shape": shape, "fingerprint": fingerprint(self.model)}

    def side(self) -> int:
        """Return the smaller side of the input in pixels."""
        return feed.input_side(self.model, self._data, self._image_size)

    def scaling(self) -> Scaling | None:
        """Return the input scaling that the model is known to expect from its caller."""
        return models.scaling_of(self.model)

    def build(self, precision: str | None, scaling: Scaling | None) -> keras.Model:
        """Return the model itself."""
        if getattr(self.model, "labels", self._data.labels) is None:
            self.model.labels = self._data.labels
        return self.model


def constructor_name(model: str | keras.Model) -> str | None:
    """Return the registry name of a network if it is a keras_deepnets network, otherwise None."""
    if isinstance(model, str):
        return model.lower()
    record = getattr(model, "architecture", None) or {}
    return str(record["constructor"]).lower() if "constructor" in record else None


def check_fit(model: keras.Model, data: ImageData) -> None:
    """Raise `InputError` unless `model` takes images and has one output per label of the data, in the same order.

    Names and WordNet ids of the ImageNet classes are the same labels.
    """
    if not model.built or not isinstance(getattr(model, "input_shape", None), tuple) or len(model.input_shape) != 4:
        raise InputError(f"Model {model.name!r} must be built, with one input of images [n, height, width, channels].")
    classes = model.output_shape[-1] if isinstance(model.output_shape, tuple) else None
    if classes != len(data.labels) or len(model.output_shape) != 2:
        raise InputError(
            f"Model {model.name!r} has outputs of shape {model.output_shape}, but data {data.name!r} has {len(data.labels)} "
            "classes. Build it with that number of classes, or use replace_classifier."
        )
    labels = models.labels_of(model)
    if labels is not None and (at := first_difference(labels, data.labels)) is not None:
        raise InputError(
            f"Output {at} of model {model.name!r} is {labels[at]!r}, but class {at} of data {data.name!r} is {data.labels[at]!r}."
        )


def of_any_size(model: keras.Model, scales: Sequence[int]) -> keras.Model:
    """Return a network for images of any height and width: the model itself, or a copy with its weights.

    Args:
        model: Built model with one image input.
        scales: Sides in pixels of future inputs. Each is tested with an empty image.

    Raises:
        InputError: The model works for one size only, or a scale is too small for it.
    """
    height, width, channels = model.input_shape[1:]
    copy = model
    if (height, width) != (None, None):
        from keras_deepnets import graphs

        try:
            copy = graphs.rebuild(graphs.as_functional(model), any_size=True)
        except Exception as error:  # Keras raises many types
            raise InputError(
                f"Model {model.name!r} takes {height}×{width} pixels and cannot be rebuilt for other sizes "
                f"({_first_line(error)}); leave out the scales."
            ) from error
        copy.jit_compile = False  # otherwise every shape would be compiled separately
    for side in scales:
        try:
            outputs = copy.predict_on_batch(np.zeros((1, side, side, channels or 3), "float32"))
        except Exception as error:
            raise InputError(
                f"Model {model.name!r} cannot be given images of {side}×{side} pixels ({_first_line(error)}); leave out that scale."
            ) from error
        if np.isnan(outputs).any():  # the mean of an empty feature map
            raise InputError(
                f"Model {model.name!r} gives NaN for images of {side}×{side} pixels; leave out that scale, or use larger ones."
            )
    return copy


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def fingerprint(model: keras.Model) -> str:
    """Return a short hash of a model's layers, their settings and shapes, independent of names and weights."""
    parts = []
    for layer in models.flat_layers(model):
        config = {name: value for name, value in _config(layer).items() if name not in ("name", "build_config", "seed")}
        parts.append([type(layer).__name__, config, [list(weight.shape) for weight in layer.weights]])
    text = json.dumps(parts, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _config(layer: keras.layers.Layer) -> dict[str, Any]:
    try:
        return layer.get_config()
    except NotImplementedError:  # a custom layer that cannot be serialised
        return {}
