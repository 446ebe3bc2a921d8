"""Rebuilding a functional model layer by layer: what folding and the change of precision have in common.

`keras.models.clone_model` would compile the copy where the original was compiled, and decides layer by layer; here the
unit is the node (one call of a layer), so that a layer may be left out in one place and kept in another.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import keras
    import numpy as np

HALF = ("float16", "bfloat16")
"""The compute dtypes that a mixed-precision model uses."""

_FULL_PRECISION = {"mixed_float16": "float32", "mixed_bfloat16": "float32", "float16": "float32", "bfloat16": "float32"}


def as_functional(model: keras.Model) -> keras.Model:
    """The model as a graph of layers: itself, or the graph inside a built `keras.Sequential`.

    Raises:
        InputError: the model is not built, or is a subclass without a graph.
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
    """Whether the object is a Keras model with a graph of layers (`keras.Sequential` is not one by itself)."""
    import keras

    return isinstance(model, keras.Model) and hasattr(model, "operations") and not isinstance(model, keras.Sequential)


def nodes(model: keras.Model) -> list[Any]:
    """The calls that lead from the model's inputs to its outputs, each after those that it needs.

    A node has `.operation`, `.arguments`, `.input_tensors` and `.outputs`. The walk is iterative: networks of a
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
    """A copy of a functional model, not compiled, under the same layer names.

    Args:
        model: a functional model; it is not changed.
        full_precision: layers that compute in float16 or bfloat16 compute in float32 in the copy.
        any_size: the copy takes images of any height and width.
        new_layer: gives what takes a layer's place, or None for a copy from its config.
        weights_of: the weights for the copy of a layer; by default the layer's.
        left_out: whether a node is skipped: its output becomes its first input.
        nested: how sub-models are copied; by default with the same arguments.
        marks: what to add to the copy's `architecture`.
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
                    # Another kind of layer may not know all the arguments that were left open.
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
    """Whether any layer of the model, nested ones too, computes in float16 or bfloat16."""
    from keras_deepnets.models import flat_layers

    return any(layer.compute_dtype in HALF for layer in flat_layers(model))


def _model_like(model: keras.Model, inputs: Any, outputs: Any, marks: dict[str, Any]) -> keras.Model:
    """A model on the new graph that carries the record of the old one, `marks` added to its architecture."""
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
    """A copy of a layer or operation from its config; the object itself where it cannot be described by one.

    Args:
        operation: the layer or operation.
        full_precision: replace half precision by float32.
        kind: the class of the copy, if another than the original's.
        any_size: let a block take maps of any height and width.

    Raises:
        InputError: the config does not make such a layer.
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


def from_config(kind: type, config: dict[str, Any], original: Any) -> Any:
    """A layer or operation of a class from a config.

    Raises:
        InputError: it cannot be made; `original` is named.
    """
    try:
        return kind.from_config(config)
    except Exception as error:
        reason = next(
            iter(str(error.__context__ or error).splitlines()), type(error).__name__
        )  # Keras adds the config to it
        raise InputError(
            f"layer {original.name!r} ({type(original).__name__}) cannot be made again from its config ({reason}); "
            "let its get_config give the arguments of its __init__."
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
    """The shape of a batch of maps with height and width left open; another shape as it is."""
    return [shape[0], None, None, shape[3]] if len(shape) == 4 else list(shape)


def in_full_precision(config: Any) -> Any:
    """A layer's config with every half-precision dtype or dtype policy replaced by float32, in wrapped layers too."""
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
