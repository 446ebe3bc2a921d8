"""The model class that all constructors return: a functional Keras model with a record of its architecture."""

from __future__ import annotations

import contextlib
import gc
import math
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import keras

from keras_deepnets.errors import InputError
from keras_deepnets.lazy import WAITING
from keras_deepnets.records import FORMAT_VERSION, check_format
from keras_deepnets.scaling import Scaling

_DEEP_ENOUGH = 20_000

MAIN = "predictions"
"""Name of the network's own output if it has auxiliary classifiers too."""

_COPIED, _READERS = "_kd_record", "_kd_records"
"""Attributes of symbolic tensors: the record of the network that outputs the tensor, and the records of the networks that begin with it."""


@contextlib.contextmanager
def deep_graphs() -> Iterator[None]:
    """A scope for building and walking functional graphs with thousands of layers.

    It raises the recursion limit, because Keras walks graphs recursively, with one Python frame per layer. It pauses garbage collection:
    nothing that is built is garbage, and Python would search all of it repeatedly.
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


_TORCHS_OPTIMIZERS = "keras.src.backend.torch.optimizers."


def _portable(config: Any) -> Any:
    """A config in which Keras' optimizers have their public names. Under PyTorch, Keras names a module that imports torch."""
    if isinstance(config, dict):
        config = {key: _portable(value) for key, value in config.items()}
        if str(config.get("module", "")).startswith(_TORCHS_OPTIMIZERS):
            config |= {"module": "keras.optimizers", "registered_name": None}
    elif isinstance(config, (list, tuple)):
        config = type(config)(map(_portable, config))
    return config


@keras.saving.register_keras_serializable("keras_deepnets")
class DeepNet(keras.Model):
    """A functional `keras.Model` whose config includes a record of its architecture.

    Attributes:
        architecture: ``{"constructor": …, "family": …, "options": {…}}``: the call that recreates this network. If the network was
            built with weights, ``"weights"`` is the name of the published weights or of the file.
        labels: class names in the order of the outputs, or None.
        scaling: input scaling that the network expects, or None if unknown.
        auxiliary: weight of the loss of each auxiliary classifier by its output's name. Empty for all other networks.

    A network with auxiliary classifiers has the outputs ``{"predictions": …, "aux1": …}``. If the labels are not a dictionary,
    `fit` applies the compiled loss to each output and adds the losses with these weights. Metrics, and the loss of `evaluate`, are
    those of ``"predictions"``.
    """

    train_function: Any
    test_function: Any

    auxiliary_factor: Callable[[], Any] | None = None
    """Called at each training step for a factor of all auxiliary weights. None: a factor of 1."""

    _more: tuple[str, ...] = ()
    """Further keys of the record, for subclasses."""

    def __init__(
        self, inputs: Any, outputs: Any, name: str | None = None, *, record: dict[str, Any] | None = None, **kwargs: Any
    ):
        """As `keras.Model(inputs, outputs)`. `record` holds `architecture`, `labels`, `scaling` and `auxiliary` as JSON values."""
        copied = record is None
        if copied:
            notes = (getattr(tensor, _COPIED, None) for tensor in keras.tree.flatten(outputs))
            record = next((note for note in notes if note), {})
        with deep_graphs():
            super().__init__(inputs, outputs, name=name, **kwargs)
        record = record or {}
        scaling, labels = record.get("scaling"), record.get("labels")
        auxiliary = record.get("auxiliary") or {}
        outputs = set(self.output) if isinstance(self.output, dict) else set()
        auxiliary = {name: weight for name, weight in auxiliary.items() if name in outputs and MAIN in outputs}
        self._record: dict[str, Any] = {
            "architecture": record.get("architecture"),
            "labels": list(labels) if labels else None,
            "scaling": scaling.to_dict() if isinstance(scaling, Scaling) else scaling,
        }
        self._record |= {key: record.get(key) for key in self._more}
        if auxiliary:
            self._record["auxiliary"] = auxiliary
        if copied and labels and len(labels) != self.classes:
            self._record["labels"] = None  # the copy has a different classifier
        for tensor in self.inputs:  # models made from a part of this network look up the record here
            setattr(tensor, _READERS, [*getattr(tensor, _READERS, ()), self._record])

    @property
    def architecture(self) -> dict[str, Any] | None:
        """Constructor, family and options of this network."""
        return self._record["architecture"]

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Class names in the order of the outputs, or None."""
        labels = self._record["labels"]
        return tuple(labels) if labels else None

    @labels.setter
    def labels(self, labels: Any) -> None:
        labels = None if labels is None else [str(label) for label in labels]
        outputs = self.classes
        if labels is not None and len(labels) != outputs:
            raise InputError(
                f"{len(labels)} labels were given for the {outputs} outputs of {self.name}; give one label per output."
            )
        self._record["labels"] = labels

    @property
    def scaling(self) -> Scaling | None:
        """The scaling that the network expects for images with values 0–255."""
        scaling = self._record["scaling"]
        return Scaling.from_dict(scaling) if scaling else None

    @scaling.setter
    def scaling(self, scaling: Scaling | None) -> None:
        self._record["scaling"] = scaling.to_dict() if scaling else None

    @property
    def auxiliary(self) -> dict[str, float]:
        """The weight of the loss of each auxiliary classifier by name."""
        return dict(self._record.get("auxiliary") or {})

    @property
    def classes(self) -> int | None:
        """The size of the last axis of the output; of ``"predictions"`` if there are auxiliary classifiers. None with other outputs."""
        output = self.output[MAIN] if self.auxiliary else self.output
        return None if isinstance(output, (dict, list, tuple)) else output.shape[-1]

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """As in Keras, and with auxiliary classifiers the weighted sum over their losses, if `y` is not a dictionary."""
        if not self.auxiliary or isinstance(y, dict):
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        loss = super().compute_loss(x, y, y_pred[MAIN], sample_weight, training)
        if not training or self._compile_loss is None:
            return loss
        parts = [weight * self._compile_loss(y, y_pred[name], sample_weight) for name, weight in self.auxiliary.items()]
        factor = 1.0 if self.auxiliary_factor is None else self.auxiliary_factor()
        return loss + factor * sum(parts)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """As in Keras. With auxiliary classifiers, and if `y` is not a dictionary, the metrics of ``"predictions"``."""
        if self.auxiliary and not isinstance(y, dict):
            y_pred = y_pred[MAIN]
        metrics = self._compile_metrics
        if metrics is not None and not metrics.built and keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # Metrics that are given by name create variables here, and TensorFlow then traces the step twice. Another thread does not
            # see the function that is being traced. Under a strategy, Keras has built the metrics.
            if not tf.distribute.has_strategy() and not tf.executing_eagerly():
                with ThreadPoolExecutor(1) as other:
                    other.submit(metrics.build, y, y_pred).result()
        return super().compute_metrics(x, y, y_pred, sample_weight)

    @property
    def includes_preprocessing(self) -> bool:
        """Whether the model scales its input itself."""
        return includes_preprocessing(self)

    def _run_through_graph(self, *args: Any, **kwargs: Any) -> Any:
        """As in Keras, and symbolic outputs carry the record. `keras.models.clone_model` builds its copy from these outputs."""
        outputs = super()._run_through_graph(*args, **kwargs)
        for tensor in keras.tree.flatten(outputs):
            if isinstance(tensor, keras.KerasTensor):
                setattr(tensor, _COPIED, self._record)
        return outputs

    def make_train_function(self, force: bool = False) -> Any:
        """As in Keras, but a step is one function, and SGD with momentum updates each variable in one op.

        The optimiser's variables are created first. If they do not exist when the training step is traced, TensorFlow traces the step
        twice. It then also creates the variables one by one under conditions.
        """
        if self.optimizer is not None and self.built and keras.backend.backend() == "tensorflow":
            from keras_deepnets.layers import quickly
            from keras_deepnets.layers.fast.momentum import momentum_in_one_pass

            if not self.optimizer.built:
                with self.distribute_strategy.scope(), quickly():
                    self.optimizer.build(self.trainable_variables)
            momentum_in_one_pass(self.optimizer)
        if force or self.train_function is None:
            self.train_function = single_function(self, self.train_step)
        return self.train_function or super().make_train_function()

    def make_test_function(self, force: bool = False) -> Any:
        """As in Keras, but a step is one function."""
        if force or self.test_function is None:
            self.test_function = single_function(self, self.test_step)
        return self.test_function or super().make_test_function()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """As in Keras, but the optimiser's variables are created faster."""
        from keras_deepnets.layers import quickly

        with quickly():
            super().compile_from_config(config)

    def get_compile_config(self) -> Any:
        """As in Keras, but other backends find the optimizer too."""
        return _portable(super().get_compile_config())

    def get_config(self) -> dict[str, Any]:
        """The functional config and the record."""
        # Keras versions differ in which subclasses count as functional, so the config is that of a plain model on the same tensors.
        with deep_graphs():
            plain = keras.Model(self.input, self.output, name=self.name)
        record = {"format": FORMAT_VERSION, **self._record}
        return plain.get_config() | {"trainable": self.trainable, "record": record}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> DeepNet:
        """The model of a config, with the trainable state of every layer. Raises InputError if a later version wrote the record."""
        config = dict(config)
        record = config.pop("record", None)
        check_format(record or {}, f"the config of {config.get('name', 'a model')}")
        # Keras would set the model's flag on all of its layers, which would unfreeze frozen layers.
        trainable = config.pop("trainable", True)
        with deep_graphs():
            plain = keras.Model.from_config(config, custom_objects=custom_objects)
        model = cls(plain.input, plain.output, name=plain.name, record=record)
        if not trainable:
            model.trainable = False
        return model


def single_function(model: keras.Model, step: Callable[[Any], Any]) -> Any:
    """One compiled function for a step of a model (`layers.fast.steps`), or None if the model needs that of Keras."""
    if keras.backend.backend() != "tensorflow":
        return None
    from keras_deepnets.layers.fast import steps

    return steps.single_function(model, step)


def without_auxiliary(model: keras.Model) -> keras.Model:
    """The plain classifier of a network with auxiliary classifiers, on the same layers. Any other model is returned unchanged."""
    if not isinstance(model, DeepNet) or not model.auxiliary:
        return model
    architecture = model.architecture and model.architecture | {
        "options": {name: value for name, value in model.architecture["options"].items() if name != "auxiliary"}
    }
    record = {"architecture": architecture, "scaling": model.scaling, "labels": model.labels}
    return DeepNet(model.input, model.output[MAIN], name=model.name, record=record)


def network_of(model: keras.Model) -> DeepNet | None:
    """The only `DeepNet` that `model` is or contains. None if there are none or several."""
    found = networks_in(model)
    return found[0] if len(found) == 1 else None


def networks_in(model: keras.Model) -> list[DeepNet]:
    """The model itself if it is a `DeepNet`, otherwise the `DeepNet` models nested in it."""
    if isinstance(model, DeepNet):
        return [model]
    found = [net for layer in model.layers if isinstance(layer, keras.Model) for net in networks_in(layer)]
    return list({id(net): net for net in found}.values())


def layer_prefix(model: keras.Model) -> str:
    """The prefix of a network's layer names: the ``layer_prefix`` of its constructor."""
    return ((getattr(model, "architecture", None) or {}).get("options") or {}).get("layer_prefix", "")


def weight_owners(layer: keras.layers.Layer) -> list[str]:
    """The name of the innermost layer of each weight of `layer`."""
    return [weight.path.split("/")[-2] if "/" in weight.path else layer.name for weight in layer.weights]


def layers_before(tensor: Any) -> list[keras.layers.Layer]:
    """The layers that compute a symbolic tensor, in the order of computation."""
    inputs = keras.utils.get_source_inputs(tensor)
    with deep_graphs():
        return keras.Model(inputs, tensor).layers


def scales(layer: keras.layers.Layer) -> bool:
    """Whether a layer in front of a network changes the scale of its input."""
    from keras_deepnets.layers import GlobalContrastNormalization, InputScaling, ZCAWhitening

    if isinstance(layer, keras.Model):
        return any(map(scales, layer.layers)) and not networks_in(layer)
    own = (InputScaling, GlobalContrastNormalization, ZCAWhitening)
    return isinstance(layer, (*own, keras.layers.Rescaling, keras.layers.Normalization))


def includes_preprocessing(model: keras.Model) -> bool:
    """Whether `model` scales its own input, with an `InputScaling` or a Keras scaling layer at its beginning.

    Layers that keep the values, such as resizing, may precede the Keras layer.
    """
    from keras_deepnets.layers import InputScaling

    return any(isinstance(layer, InputScaling) for layer in flat_layers(model)) or _asked(model) == {_SCALED}


def scaling_of(model: keras.Model) -> Scaling | None:
    """The scaling that `model`, of any origin, expects from its caller, or None if unknown.

    It is known for a `DeepNet`. It is also known for a model that begins with a nested `DeepNet`, or that is the first part of one.
    No preceding layer may change the scale.
    """
    from keras_deepnets.layers import InputScaling

    for layer in flat_layers(model):
        if isinstance(layer, InputScaling):
            return layer.scaling
    own = getattr(model, "scaling", None)
    if own is not None or isinstance(model, DeepNet):
        return own
    asked = _asked(model)
    (only,) = asked if len(asked) == 1 else (None,)
    return only if isinstance(only, Scaling) else None


def is_made_of_ours(model: keras.Model) -> bool:
    """Whether any layer of `model` belongs to this package."""
    return any(type(layer).__module__.partition(".")[0] == "keras_deepnets" for layer in flat_layers(model))


def begins_like_ours(model: keras.Model) -> bool:
    """Whether `model` has layers of this package and, by name, the first layers of its networks.

    Such a model is a network of this package, a part of one, or a copy without its record.
    """
    return is_made_of_ours(model) and any(layer.name.endswith(_FIRST) for layer in flat_layers(model))


_FIRST = (
    *("conv1_conv", "conv1_1_conv", "conv1", "conv1_7x7_s2_conv"),
    *("block1_conv1", "block1_column1_1_conv", "fc1"),
)
"""Suffixes of the name of the first layer with weights, in all families."""

_SCALED = "scaled"
_KEEPING = ("InputLayer", "Resizing", "CenterCrop", "ZeroPadding2D", "Cropping2D", "Identity", "Dropout", "Concatenate")
"""Keras layers that keep the scale of the values. The names of augmentation layers begin with ``Random``."""


def _asked(model: keras.Model) -> set[Scaling | str | None]:
    """What the first layers that may change values ask of the model's input.

    It is a set of scalings, `_SCALED` (the layers scale the input themselves) and None (unknown).
    """
    if not getattr(model, "inputs", None):
        return {None}
    if isinstance(model, keras.Sequential):
        first = next((layer for layer in model.layers if not _keeps_values(layer)), None)
        return {_asked_by(first)}
    readers: dict[int, list[Any]] = {}
    for operation in model.operations:
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                readers.setdefault(id(tensor), []).append(node)
    found, waiting = set(), list(model.inputs)
    while waiting:
        for node in readers.get(id(waiting.pop()), []):
            if _keeps_values(node.operation):
                waiting += node.outputs
            else:
                found.add(_asked_by(node.operation))
    if found == {None} and is_made_of_ours(model):
        scalings = [record["scaling"] for tensor in model.inputs for record in getattr(tensor, _READERS, ())]
        found = {scaling and Scaling.from_dict(scaling) for scaling in scalings} or found
    return found


def _asked_by(layer: Any) -> Scaling | str | None:
    if layer is not None and scales(layer):
        return _SCALED
    if not isinstance(layer, keras.Model):
        return None
    return _SCALED if includes_preprocessing(layer) else scaling_of(layer)


def _keeps_values(layer: Any) -> bool:
    name = type(layer).__name__
    return type(layer).__module__.partition(".")[0] == "keras" and (name in _KEEPING or name.startswith("Random"))


def labels_of(model: keras.Model) -> tuple[str, ...] | None:
    """The class names of `model`, or None."""
    return getattr(model, "labels", None)


def flat_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of `model`, with nested models replaced by their layers. A `layers.Block` counts as one layer."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from flat_layers(layer)
        else:
            yield layer


def trainable_parameters(model: keras.Model) -> int:
    """The number of trainable parameters, as the papers count (without moving statistics)."""
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


class Product(NamedTuple):
    """The work of a convolution or a fully connected layer for one image.

    Attributes:
        layer: the layer.
        channels: number of input channels of all groups.
        filters: number of output channels or units.
        multiply_adds: number of multiply-adds.
    """

    layer: keras.layers.Layer
    channels: int
    filters: int
    multiply_adds: int


def products(model: keras.Model) -> Iterator[Product]:
    """The convolutions and fully connected layers of a model, including nested models and blocks. Needs a fixed input size."""
    from keras_deepnets.layers import Block, RecomputedConv2D

    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from products(layer)
        elif isinstance(layer, Block):
            yield from products(layer.network())
        elif isinstance(layer, (keras.layers.Conv2D, RecomputedConv2D)):
            positions = layer.output.shape[1:3]
            convolution = layer.convolution if isinstance(layer, RecomputedConv2D) else layer
            kernel = convolution.kernel.shape
            if None in positions:
                raise InputError(
                    f"{model.name}: multiply-adds need a fixed input size; build it with input_shape=(height, width, channels)."
                )
            yield Product(layer, kernel[-2] * convolution.groups, kernel[-1], math.prod(positions) * math.prod(kernel))
        elif isinstance(layer, keras.layers.Dense):
            yield Product(layer, layer.kernel.shape[0], layer.kernel.shape[1], math.prod(layer.kernel.shape))


def multiply_adds(model: keras.Model) -> int:
    """Multiply-adds of one image in convolutions and fully connected layers (the papers' "FLOPs").

    Needs a fixed input size, or a model with a method `multiply_adds`.
    """
    if own := getattr(model, "multiply_adds", None):
        return own()
    return sum(product.multiply_adds for product in products(model))


while WAITING:
    WAITING.pop()()
