"""Modify a built model: feature pyramid, new classifier, frozen layers."""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import keras

_BLOCK_ENDS = re.compile(r"(conv\d+)_block\d+_(out|concat)|block\d+_pool|inception_\d[a-z]_output|post_relu|relu")


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
    import keras

    from keras_deepnets.models import DeepNet, layer_prefix

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
    levels: dict[int, Any] = {}
    prefix = layer_prefix(model)
    ends = [layer for layer in maps if _BLOCK_ENDS.fullmatch(layer.name.removeprefix(prefix))] or maps
    for layer in ends:
        levels[strides[layer.name]] = _output(layer)
    outputs = {f"P{level}": levels[level] for level in sorted(levels)}
    record = {"scaling": getattr(model, "scaling", None), "architecture": getattr(model, "architecture", None)}
    return DeepNet(_input_of(model), outputs, name=f"{model.name}_pyramid", record=record)


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
        model: network that ends in a fully connected classifier.
        classes: number of outputs of the new classifier.
        classifier_activation: activation of the new classifier; None returns logits.

    Raises:
        ValueError: `classes` is not a whole number of at least 1, or the model does not end in a fully connected layer.
    """
    import keras

    from keras_deepnets import layers
    from keras_deepnets.families.checks import check_counts
    from keras_deepnets.models import DeepNet

    check_counts(model.name, classes=classes)
    head = model.layers[-1]
    if not isinstance(head, keras.layers.Dense):
        way = (
            f"it is a model: call replace_classifier on it, model.get_layer({head.name!r})"
            if isinstance(head, keras.Model)
            else "build it with include_top=True"
            if isinstance(model, DeepNet)
            else "add one: keras.layers.Dense(classes)"
        )
        raise InputError(f"{model.name}: its last layer {head.name!r} is not a fully connected classifier; {way}.")
    outputs = layers.classifier(
        head.input, classes, classifier_activation, kernel_constraint=head.kernel_constraint, name=head.name
    )
    record = {"scaling": getattr(model, "scaling", None), "architecture": getattr(model, "architecture", None)}
    return DeepNet(_input_of(model), outputs, name=model.name, record=record)


def freeze(model: keras.Model, up_to: str | None = None) -> keras.Model:
    """Freeze the lower part of a network, in place.

    Frozen weights are not updated. Frozen batch normalisation uses its moving statistics and does not update them. Frozen dropout and
    stochastic depth drop nothing. In training, the frozen part therefore computes the same as at inference. Compile the model afterwards.

    Args:
        model: network to freeze.
        up_to: name of the last frozen layer, e.g. ``"conv4_block6_out"``, with or without the network's ``layer_prefix``. None
            freezes all layers except the classifier (without a top, all layers).

    Returns:
        The same model.

    Raises:
        ValueError: no layer is called `up_to`.
    """
    import keras

    from keras_deepnets.models import layer_prefix

    names = [layer.name for layer in model.layers]
    if up_to is not None and up_to not in names and f"{layer_prefix(model)}{up_to}" in names:
        up_to = f"{layer_prefix(model)}{up_to}"
    if up_to is None:
        last = len(names) - isinstance(model.layers[-1], keras.layers.Dense)
        frozen = set(names[:last])
    elif up_to in names:
        frozen = _ancestors(model.get_layer(up_to)) & set(names)
    else:
        near = difflib.get_close_matches(up_to, names, n=3)
        hint = f"Did you mean {', '.join(near)}?" if near else "`model.summary()` lists its layers."
        raise InputError(f"{model.name} has no layer {up_to!r}. {hint}")
    for layer in model.layers:
        layer.trainable = layer.name not in frozen
    return model


def _ancestors(layer: keras.layers.Layer) -> set[str]:
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
