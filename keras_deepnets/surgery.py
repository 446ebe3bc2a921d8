"""Modify a built model: feature pyramid, new classifier, frozen layers."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import keras

_BLOCK_ENDS = re.compile(
    r"(conv\d+)_block\d+_(out|concat)|block\d+_(column\d+_)?pool|block\d+_output|inception_\d[a-z]_output|post_relu|relu"
)


def feature_pyramid(model: keras.Model) -> keras.Model:
    """Feature maps at the end of each stage, for detection and segmentation.

    Args:
        model: image network, with or without its top.

    Returns:
        A model on the same layers with outputs ``{"P2": …, "P5": …}``, where level l has stride 2ˡ. A CIFAR network has the levels
        P0, P1 and P2. The last feature map of a pre-activation network or a DenseNet is normalised and activated.

    Raises:
        ValueError: the model does not have a single image input, or has no feature maps.
    """
    from keras_deepnets.models import DeepNet

    levels = {name: _output(model.get_layer(end)) for name, end in stage_ends(model).items()}
    record = {"scaling": getattr(model, "scaling", None), "architecture": getattr(model, "architecture", None)}
    return DeepNet(_input_of(model), levels, name=f"{model.name}_pyramid", record=record)


def stage_ends(model: keras.Model) -> dict[str, str]:
    """Names of the layers at the end of each stage by level, ascending: ``{"P2": "conv2_block3_out", …}``.

    Raises:
        ValueError: the model does not have a single image input, or has no feature maps.
    """
    import keras

    from keras_deepnets.models import layer_prefix

    maps = [
        layer
        for layer in model.layers
        if len(getattr(_output(layer), "shape", ())) == 4 and not isinstance(layer, keras.layers.InputLayer)
    ]
    if len(model.inputs) != 1 or len(model.inputs[0].shape) != 4 or not maps:
        raise InputError(
            f"{model.name}: a feature pyramid needs a network with one image input; its input shape is {model.input_shape}."
        )
    strides = _strides(model, maps)
    levels: dict[int, str] = {}
    prefix = layer_prefix(model)
    ends = [layer for layer in maps if _BLOCK_ENDS.fullmatch(layer.name.removeprefix(prefix))] or maps
    for layer in ends:
        levels[strides[layer.name]] = layer.name
    return {f"P{level}": levels[level] for level in sorted(levels)}


def _input_of(model: keras.Model) -> Any:
    """The input tensors of a model in their structure. A sequential model has one."""
    import keras

    return model.inputs[0] if isinstance(model, keras.Sequential) else model.input


def _output(layer: keras.layers.Layer) -> Any:
    """The only output tensor of a layer, or None."""
    try:
        output = layer.output
    except (AttributeError, ValueError):  # never called, or called more than once
        return None
    return None if isinstance(output, (list, tuple, dict)) else output


def _strides(model: keras.Model, maps: list[keras.layers.Layer]) -> dict[str, int]:
    """Maps layer names to log2 of the stride of their outputs."""
    import keras

    from keras_deepnets.models import deep_graphs

    height, width = model.inputs[0].shape[1:3]
    if None in (height, width):
        # Compute the shapes at a size that all strides divide, without building anything.
        size = (1, 256, 256, model.inputs[0].shape[3])
        with deep_graphs():
            probe = keras.Model(_input_of(model), [_output(layer) for layer in maps])
            shapes = probe.compute_output_shape(size)
        shapes = shapes if isinstance(shapes, list) else [shapes]
        height = 256
    else:
        shapes = [_output(layer).shape for layer in maps]
    return {layer.name: round(math.log2(height / shape[1])) for layer, shape in zip(maps, shapes, strict=True)}


def replace_classifier(model: keras.Model, classes: int, classifier_activation: Any = "softmax") -> keras.Model:
    """Return the same network with a new, randomly initialised classifier. All other layers and their weights are shared.

    Args:
        model: network that ends in a classifier: a fully connected layer, or a 1×1 convolution and global average pooling.
        classes: number of outputs of the new classifier.
        classifier_activation: activation of the new classifier; None returns logits.

    Raises:
        ValueError: `classes` is not a whole number of at least 1, or the model does not end in a classifier.
    """
    import keras

    from keras_deepnets.families.checks import check_counts
    from keras_deepnets.models import MAIN, DeepNet

    check_counts(model.name, classes=classes)
    found = classifier_of(model)
    if found is None:
        last = model.layers[-1]
        way = (
            f"it is a model: call replace_classifier on it, model.get_layer({last.name!r})"
            if isinstance(last, keras.Model)
            else "build it with include_top=True"
            if isinstance(model, DeepNet)
            else "add one: keras.layers.Dense(classes)"
        )
        raise InputError(f"{model.name}: its last layer {last.name!r} is not a fully connected classifier; {way}.")
    record = {"scaling": getattr(model, "scaling", None), "architecture": getattr(model, "architecture", None)}
    outputs = _new_classifier(found, classes, classifier_activation)
    if auxiliary := _auxiliary_classifiers(model):
        record["auxiliary"] = model.auxiliary
        new = {name: _new_classifier(old, classes, classifier_activation) for name, old in auxiliary.items()}
        outputs = {MAIN: outputs} | new
    return DeepNet(_input_of(model), outputs, name=model.name, record=record)


class Classifier(NamedTuple):
    """The end of a network.

    Attributes:
        layers: the layer whose outputs are the classes (fully connected, or a 1×1 convolution before global average pooling), then
            the layers without weights that follow it.
        input: the symbolic input of the first of these layers.
    """

    layers: list[keras.layers.Layer]
    input: Any


def classifier_of(model: keras.Model) -> Classifier | None:
    """The classifier at the end of a functional or sequential model, or None if there is none.

    Of a network with auxiliary classifiers, it is that of the network's own output.
    """
    from keras_deepnets.models import MAIN, DeepNet

    ours = isinstance(model, DeepNet)
    tensors = [model.output[MAIN]] if ours and model.auxiliary else getattr(model, "outputs", None) or []
    return _classifier_before(tensors[0], ours) if len(tensors) == 1 else None


def _auxiliary_classifiers(model: keras.Model) -> dict[str, Classifier]:
    """The auxiliary classifiers of a network by name."""
    from keras_deepnets.models import DeepNet

    if not isinstance(model, DeepNet):
        return {}
    found = {name: _classifier_before(model.output[name], True) for name in model.auxiliary}
    return {name: classifier for name, classifier in found.items() if classifier is not None}


def _classifier_before(tensor: Any, ours: bool) -> Classifier | None:
    """The classifier that computes a symbolic output. `ours`: in networks of this library, its name ends with ``predictions``."""
    import keras

    tail = (keras.layers.Activation, keras.layers.Softmax, keras.layers.ReLU, keras.layers.GlobalAveragePooling2D)
    found: list[Any] = []
    tensors = [tensor]
    while len(tensors) == 1:
        layer, index, _ = tensors[0]._keras_history
        found.insert(0, layer)
        tensors = layer._inbound_nodes[index].input_tensors
        if not isinstance(layer, tail):
            break
    if len(tensors) != 1:
        return None
    first = found[0]
    pooled = any(isinstance(layer, keras.layers.GlobalAveragePooling2D) for layer in found)
    per_pixel = isinstance(first, keras.layers.Conv2D) and set(first.kernel_size) == {1} and pooled
    if ours and not first.name.endswith("predictions"):
        per_pixel = False  # a hidden layer of a network without its top
    return Classifier(found, tensors[0]) if per_pixel or isinstance(first, keras.layers.Dense) else None


def _new_classifier(old: Classifier, classes: int, activation: Any) -> Any:
    """The output of a new classifier of the same kind, with the initial weights of its kind."""
    import keras

    from keras_deepnets import layers

    first, *tail = old.layers
    if isinstance(first, keras.layers.Dense):
        factor = getattr(first, "gradient_factor", 1.0)
        kept = {"gradient_factor": factor, "kernel_constraint": first.kernel_constraint}
        return layers.classifier(old.input, classes, activation, **kept, name=first.name)
    x = type(first).from_config(first.get_config() | {"filters": classes})(old.input)
    for layer in tail:
        x = type(layer).from_config(layer.get_config())(x)
        if isinstance(layer, keras.layers.GlobalAveragePooling2D):
            break  # the activation of the averages follows
    if activation is None:
        return x
    return keras.layers.Activation(activation, dtype="float32", name=f"{first.name}_activation")(x)


def freeze(model: keras.Model, up_to: str | None = None) -> keras.Model:
    """Freeze the lower part of a network, in place.

    Frozen weights are not updated. Frozen batch normalisation uses its moving statistics and does not update them. Frozen dropout and
    stochastic depth drop nothing. In training, the frozen part therefore computes the same as at inference. Compile the model afterwards.

    Args:
        model: network to freeze.
        up_to: name of the last frozen layer, e.g. ``"conv4_block6_out"``, with or without the network's ``layer_prefix``. None
            freezes all layers except the classifiers (without a top, all layers).

    Returns:
        The same model.

    Raises:
        ValueError: no layer is called `up_to`.
    """
    from keras_deepnets.models import layer_prefix

    names = [layer.name for layer in model.layers]
    if up_to is not None and up_to not in names and f"{layer_prefix(model)}{up_to}" in names:
        up_to = f"{layer_prefix(model)}{up_to}"
    if up_to is None:
        ends = [classifier_of(model), *_auxiliary_classifiers(model).values()]
        frozen = set(names) - {layer.name for end in ends if end for layer in end.layers}
    elif up_to in names:
        frozen = ancestors(model.get_layer(up_to)) & set(names)
    else:
        near = difflib.get_close_matches(up_to, names, n=3)
        hint = f"Did you mean {', '.join(near)}?" if near else "`model.summary()` lists its layers."
        raise InputError(f"{model.name} has no layer {up_to!r}. {hint}")
    for layer in model.layers:
        layer.trainable = layer.name not in frozen
    return model


def fractal_column(model: keras.Model, column: int) -> keras.Model:
    """Return one column of a FractalNet as a plain network, with copies of its weights.

    The network is that of the builder's option `column`: the layers of the column, under their names, and the classifier.

    Args:
        model: FractalNet, or a functional model that contains its layers.
        column: number of the column, from 1. The last is the deepest.

    Raises:
        ValueError: `column` is not the number of a column, or the model has no joins of columns.
    """
    from keras_deepnets import layers
    from keras_deepnets.families.checks import check_counts
    from keras_deepnets.graphs import as_functional, rebuild
    from keras_deepnets.models import flat_layers

    check_counts(model.name, column=column)
    joins = [layer for layer in flat_layers(model) if isinstance(layer, layers.FractalJoin)]
    if not joins:
        raise InputError(
            f"{model.name}: it has no layer that joins columns; give a FractalNet of at least two columns that is not folded."
        )
    columns = max(join.columns[-1] for join in joins)
    if column > columns:
        raise InputError(f"{model.name}: column={column} does not exist; the network has columns 1 to {columns}.")
    copy = rebuild(
        as_functional(model),
        new_layer=lambda layer: _Selection(layer, column) if isinstance(layer, layers.FractalJoin) else None,
    )
    architecture = getattr(copy, "architecture", None)
    if architecture:
        architecture["options"] = architecture["options"] | {"column": column}
    return copy


class _Selection:
    """Takes the place of a join and passes on one column. Maps of joins without the column are not used later."""

    def __init__(self, join: Any, column: int):
        self.index = join.columns.index(column) if column in join.columns else 0

    def __call__(self, maps: Sequence[Any], plan: Any = None) -> Any:
        return maps[self.index]


def ancestors(layer: keras.layers.Layer) -> set[str]:
    """The names of the layer and of all layers that compute its input."""
    found, waiting = {layer.name}, [layer]
    while waiting:
        node = waiting.pop()._inbound_nodes[0]
        for tensor in node.input_tensors:
            parent = tensor._keras_history.operation
            if parent.name not in found:
                found.add(parent.name)
                waiting.append(parent)
    return found
