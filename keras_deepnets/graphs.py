"""Rebuild a functional model layer by layer, as folding and changes of precision need it.

`keras.models.clone_model` compiles the copy if the original is compiled, and it decides per layer. Here, the unit is the node: one
call of a layer. A layer can thus be left out in one place and kept in another.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import keras
    import numpy as np

HALF = ("float16", "bfloat16")
"""Compute dtypes of mixed-precision models."""

_FULL_PRECISION = {"mixed_float16": "float32", "mixed_bfloat16": "float32", "float16": "float32", "bfloat16": "float32"}


def as_functional(model: keras.Model) -> keras.Model:
    """The model as a graph of layers: the model itself, or the graph inside a built `keras.Sequential`.

    Raises:
        InputError: the model is not built, or it is a subclassed model without a graph.
    """
    import keras

    if isinstance(model, keras.Sequential):
        if not model.built:
            raise InputError(f"model {model.name!r} is not built: give it an input_shape or call it once.")
        outputs = model.outputs[0] if len(model.outputs) == 1 else model.outputs
        return keras.Model(model.inputs[0], outputs, name=model.name, trainable=model.trainable)
    if not is_functional(model):
        raise InputError(
            f"model {model.name!r} ({type(model).__name__}) is not a functional or sequential Keras model; "
            "wrap it as keras.Model(inputs, model(inputs))."
        )
    return model


def is_functional(model: Any) -> bool:
    """Whether the object is a Keras model with a graph of layers. A `keras.Sequential` does not count."""
    import keras

    return isinstance(model, keras.Model) and hasattr(model, "operations") and not isinstance(model, keras.Sequential)


def nodes(model: keras.Model) -> list[Any]:
    """The calls that lead from the model's inputs to its outputs, in topological order.

    A node has `.operation`, `.arguments`, `.input_tensors` and `.outputs`. The walk is iterative, so networks with a
    thousand layers do not exhaust Python's stack.
    """
    order: list[Any] = []
    done: set[int] = set()
    inputs = {id(tensor) for tensor in model.inputs}
    stack = [(tensor, False) for tensor in reversed(model.outputs)]
    while stack:
        tensor, parents_done = stack.pop()
        history = tensor._keras_history
        if id(tensor) in inputs or history.operation is None:
            continue
        node = history.operation._inbound_nodes[history.node_index]
        if id(node) in done:
            continue
        if parents_done:
            done.add(id(node))
            order.append(node)
        else:
            stack.append((tensor, True))
            stack.extend((parent, False) for parent in reversed(node.input_tensors))
    return order


def output_elements(model: keras.Model) -> int:
    """Elements of the outputs of all layers for one image, including nested models and blocks. Sizes that are open do not count.

    Training writes each and reads it again, so networks with many small layers are slower than their multiply-adds say.
    """
    import keras

    from keras_deepnets.layers import Block

    found = 0
    for node in nodes(model):
        layer = node.operation
        if isinstance(layer, (keras.Model, Block)):
            found += output_elements(layer.network() if isinstance(layer, Block) else layer)
        else:
            found += sum(math.prod(tensor.shape[1:]) for tensor in node.outputs if None not in tensor.shape[1:])
    return found


def rebuild(
    model: keras.Model,
    *,
    full_precision: bool = False,
    any_size: bool = False,
    new_layer: Callable[[Any], Any] = lambda layer: None,
    weights_of: Callable[[Any], list[np.ndarray]] = lambda layer: layer.get_weights(),
    left_out: Callable[[Any], bool] = lambda node: False,
    nested: Callable[[keras.Model], keras.Model] | None = None,
    marks: dict[str, Any] | None = None,
) -> keras.Model:
    """Return an uncompiled copy of a functional model with the same layer names.

    Args:
        model: functional model; it is not changed.
        full_precision: layers that compute in float16 or bfloat16 compute in float32 in the copy.
        any_size: the copy takes images of any height and width.
        new_layer: returns the replacement of a layer, or None to copy the layer from its config.
        weights_of: returns the weights for the copy of a layer. Default: the weights of the layer.
        left_out: whether to skip a node; its first input then replaces its output.
        nested: copies sub-models. Default: a call of `rebuild` with the same arguments.
        marks: entries to add to the copy's `architecture`.
    """
    import keras

    from keras_deepnets.models import deep_graphs

    def same_again(inner: keras.Model) -> keras.Model:
        return rebuild(
            as_functional(inner),
            full_precision=full_precision,
            any_size=any_size,
            new_layer=new_layer,
            weights_of=weights_of,
            left_out=left_out,
        )

    nested = nested or same_again
    copies: dict[int, Any] = {}
    pairs: list[tuple[Any, Any]] = []

    def copy_of(operation: Any) -> Any:
        if id(operation) not in copies:
            if isinstance(operation, keras.Sequential) or is_functional(operation):
                made = nested(operation)
            else:
                made = new_layer(operation) or same(operation, full_precision, any_size=any_size)
                if made is not operation:
                    pairs.append((operation, made))
            copies[id(operation)] = made
        return copies[id(operation)]

    tensors = {id(tensor): _new_input(tensor, full_precision, any_size) for tensor in model.inputs}
    with deep_graphs():
        for node in nodes(model):
            if left_out(node):
                results = tensors[id(node.input_tensors[0])]
            else:
                args, kwargs = node.arguments.fill_in(tensors)
                made = copy_of(node.operation)
                if type(made) is not type(node.operation):
                    # A different layer class may not accept all the arguments that are None.
                    kwargs = {name: value for name, value in kwargs.items() if value is not None}
                results = made(*args, **kwargs)
            tensors.update(zip(map(id, node.outputs), keras.tree.flatten(results), strict=True))
        inputs = keras.tree.map_structure(lambda tensor: tensors[id(tensor)], model.input)
        outputs = keras.tree.map_structure(lambda tensor: tensors[id(tensor)], model.output)
        copy = _model_like(model, inputs, outputs, marks or {})
    for old, new in pairs:
        if getattr(old, "weights", None):
            new.set_weights(weights_of(old))
    if not model.trainable:
        copy.trainable = False
    return copy


def computes_in_half(model: keras.Model) -> bool:
    """Whether any layer of the model, including nested models, computes in float16 or bfloat16."""
    from keras_deepnets.models import flat_layers

    return any(layer.compute_dtype in HALF for layer in flat_layers(model))


def _model_like(model: keras.Model, inputs: Any, outputs: Any, marks: dict[str, Any]) -> keras.Model:
    """A model on the new graph with the record of the old model; `marks` are added to its architecture."""
    import keras

    from keras_deepnets.models import DeepNet

    record = {name: getattr(model, name, None) for name in ("architecture", "labels", "scaling")}
    if record["architecture"]:
        record["architecture"] = record["architecture"] | marks
    if isinstance(model, DeepNet):
        return DeepNet(inputs, outputs, name=model.name, record=record)
    copy = keras.Model(inputs, outputs, name=model.name)
    for name, value in record.items():
        if value is not None:
            setattr(copy, name, value)
    return copy


def _new_input(tensor: Any, full_precision: bool, any_size: bool) -> Any:
    import keras

    shape = _of_any_size(tensor.shape) if any_size else tensor.shape
    dtype = _FULL_PRECISION.get(tensor.dtype, tensor.dtype) if full_precision else tensor.dtype
    return keras.Input(batch_shape=shape, dtype=dtype, name=tensor._keras_history.operation.name)


def same(operation: Any, full_precision: bool = False, kind: type | None = None, any_size: bool = False) -> Any:
    """A copy of a layer or operation from its config, or the object itself if it has no config.

    Args:
        operation: layer or operation.
        full_precision: whether to replace half precision by float32.
        kind: class of the copy, if different from the original's.
        any_size: whether a block takes feature maps of any height and width.

    Raises:
        InputError: the config does not produce such a layer.
    """
    from keras_deepnets.layers import Block

    try:
        config = operation.get_config()
    except NotImplementedError:
        return operation
    if full_precision:
        config = in_full_precision(config)
        if isinstance(operation, Block):
            config["graph"] = _graph_in_full_precision(config["graph"])
    if any_size and isinstance(operation, Block):
        config["graph"] = _graph_of_any_size(config["graph"])
    return from_config(kind or type(operation), config, operation)


def from_config(kind: Any, config: dict[str, Any], original: Any) -> Any:
    """A layer or operation of class `kind` from a config.

    Raises:
        InputError: it cannot be created. The message names `original`.
    """
    try:
        return kind.from_config(config)
    except Exception as error:
        reason = next(
            iter(str(error.__context__ or error).splitlines()), type(error).__name__
        )  # Keras adds the config to the message
        raise InputError(
            f"layer {original.name!r} ({type(original).__name__}) cannot be recreated from its config ({reason}); "
            "its get_config must return the arguments of its __init__."
        ) from error


@functools.lru_cache(maxsize=256)
def _graph_in_full_precision(graph: str) -> str:
    return json.dumps(in_full_precision(json.loads(graph)))


@functools.lru_cache(maxsize=256)
def _graph_of_any_size(graph: str) -> str:
    config = json.loads(graph)
    for layer in config["layers"]:
        if layer["class_name"] == "InputLayer":
            layer["config"]["batch_shape"] = _of_any_size(layer["config"]["batch_shape"])
    return json.dumps(config)


def _of_any_size(shape: Any) -> list[int | None]:
    """The shape of a batch of feature maps with height and width left open. Other shapes stay unchanged."""
    return [shape[0], None, None, shape[3]] if len(shape) == 4 else list(shape)


def in_full_precision(config: Any) -> Any:
    """A layer's config with every half-precision dtype or dtype policy replaced by float32, including wrapped layers."""
    if isinstance(config, (list, tuple)):
        return type(config)(in_full_precision(value) for value in config)
    if not isinstance(config, dict):
        return config
    config = {key: in_full_precision(value) for key, value in config.items()}
    names = ("name",) if set(config) == {"name"} else ("dtype", "activity_dtype", "compute_dtype")
    for key in names:
        value = config.get(key)
        if isinstance(value, str) and value in _FULL_PRECISION:
            config[key] = _FULL_PRECISION[value]
    return config
