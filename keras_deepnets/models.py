"""The model that every constructor returns: an ordinary functional Keras model that knows what it is."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
from collections.abc import Iterator
from typing import Any

import keras

from keras_deepnets.errors import InputError
from keras_deepnets.scaling import Scaling
from keras_deepnets.weights.reading import FORMAT_VERSION, check_format

_DEEP_ENOUGH = 20_000


@contextlib.contextmanager
def deep_graphs() -> Iterator[None]:
    """For building and walking functional graphs of thousands of layers.

    Keras walks them by recursion (one Python frame a layer); and nothing of what is built is garbage, for which Python would search all
    of it time and again.
    """
    limit, collects = sys.getrecursionlimit(), gc.isenabled()
    sys.setrecursionlimit(max(limit, _DEEP_ENOUGH))
    gc.disable()
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
        if collects:
            gc.enable()


@keras.saving.register_keras_serializable("keras_deepnets")
class DeepNet(keras.Model):
    """A functional `keras.Model` whose config carries a record of what it is.

    Attributes:
        architecture: ``{"constructor": …, "family": …, "options": {…}}``: the call that makes this network again. Where it was
            called with weights, ``"weights"`` is the name of their card or file.
        labels: class names in the order of the outputs, or None.
        scaling: what the network expects of its input, or None where that is not known.
    """

    def __init__(
        self, inputs: Any, outputs: Any, name: str | None = None, *, record: dict[str, Any] | None = None, **kwargs: Any
    ):
        """As `keras.Model(inputs, outputs)`; `record` holds `architecture`, `labels` and `scaling` as JSON values."""
        with deep_graphs():
            super().__init__(inputs, outputs, name=name, **kwargs)
        record = record or {}
        scaling = record.get("scaling")
        self._record = {
            "architecture": record.get("architecture"),
            "labels": list(record["labels"]) if record.get("labels") else None,
            "scaling": scaling.to_dict() if isinstance(scaling, Scaling) else scaling,
        }

    @property
    def architecture(self) -> dict[str, Any] | None:
        """Constructor, family and options of this network."""
        return self._record["architecture"]

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names in the order of the outputs."""
        labels = self._record["labels"]
        return tuple(labels) if labels else None

    @labels.setter
    def labels(self, labels: Any) -> None:
        labels = None if labels is None else [str(label) for label in labels]
        outputs = self.output_shape[-1]
        if labels is not None and len(labels) != outputs:
            raise InputError(
                f"{len(labels)} labels were given for the {outputs} outputs of {self.name}; give one label an output."
            )
        self._record["labels"] = labels

    @property
    def scaling(self) -> Scaling | None:
        """What the network expects of images with values 0–255."""
        scaling = self._record["scaling"]
        return Scaling.from_dict(scaling) if scaling else None

    @scaling.setter
    def scaling(self, scaling: Scaling | None) -> None:
        self._record["scaling"] = scaling.to_dict() if scaling else None

    @property
    def includes_preprocessing(self) -> bool:
        """Whether the model scales its input itself."""
        return includes_preprocessing(self)

    def make_train_function(self, force: bool = False) -> Any:
        """As Keras has it, with the optimiser's variables made beforehand, and momentum in one op a variable.

        Where tracing finds none, TensorFlow traces the whole step twice, and makes them one by one under conditions.
        """
        if self.optimizer is not None and self.built and keras.backend.backend() == "tensorflow":
            from keras_deepnets.layers import _tensorflow, quickly

            if not self.optimizer.built:
                with self.distribute_strategy.scope(), quickly():
                    self.optimizer.build(self.trainable_variables)
            _tensorflow.momentum_in_one_pass(self.optimizer)
        return super().make_train_function(force)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """As Keras has it: compiles the model and makes the optimiser's variables."""
        from keras_deepnets.layers import quickly

        with quickly():
            super().compile_from_config(config)

    def get_config(self) -> dict[str, Any]:
        """The functional config and the record."""
        # That of a plain model on the same tensors: which subclasses Keras takes for functional differs between its versions.
        with deep_graphs():
            plain = keras.Model(self.input, self.output, name=self.name)
        record = {"format": FORMAT_VERSION, **self._record}
        return plain.get_config() | {"trainable": self.trainable, "record": record}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> DeepNet:
        """The model of a config; every layer stays as trainable as it was. Raises InputError for a record of a later version."""
        config = dict(config)
        record = config.pop("record", None)
        check_format(record or {}, f"the config of {config.get('name', 'a model')}")
        # Keras would set the model's flag on all of its layers, which thaws frozen ones.
        trainable = config.pop("trainable", True)
        with deep_graphs():
            plain = keras.Model.from_config(config, custom_objects=custom_objects)
        model = cls(plain.input, plain.output, name=plain.name, record=record)
        if not trainable:
            model.trainable = False
        return model


def includes_preprocessing(model: keras.Model) -> bool:
    """Whether an `InputScaling` layer is part of `model`."""
    from keras_deepnets.layers import InputScaling

    return any(isinstance(layer, InputScaling) for layer in flat_layers(model))


def scaling_of(model: keras.Model) -> Scaling | None:
    """The scaling that `model` (ours or another) is known to expect of its caller, or None."""
    from keras_deepnets.layers import InputScaling

    for layer in flat_layers(model):
        if isinstance(layer, InputScaling):
            return layer.scaling
    return getattr(model, "scaling", None)


def labels_of(model: keras.Model) -> tuple[str, ...] | None:
    """The class names that `model` carries, or None."""
    return getattr(model, "labels", None)


def flat_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of `model`, those of nested models in place of them; a `layers.Block` is one layer."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from flat_layers(layer)
        else:
            yield layer


def trainable_parameters(model: keras.Model) -> int:
    """Trainable parameters, which is what the papers count (no moving statistics)."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of one image in convolutions and fully connected layers, the papers' "FLOPs"; needs a fixed input size."""
    from keras_deepnets.layers import Block, RecomputedConv2D

    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += multiply_adds(layer)
        elif isinstance(layer, Block):
            total += multiply_adds(layer.network())
        elif isinstance(layer, (keras.layers.Conv2D, RecomputedConv2D)):
            positions = layer.output.shape[1:3]
            kernel = layer.convolution.kernel if isinstance(layer, RecomputedConv2D) else layer.kernel
            if None in positions:
                raise InputError(
                    f"{model.name}: multiply-adds need a fixed input size; build it with input_shape=(height, width, channels)."
                )
            total += math.prod(positions) * math.prod(kernel.shape)
        elif isinstance(layer, keras.layers.Dense):
            total += math.prod(layer.kernel.shape)
    return total
