"""The graph that all blocks of one kind share."""

from __future__ import annotations

import contextlib
import functools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from keras_deepnets.layers.stochastic import StochasticDepth

STAND_IN = "block"
"""What a block is called in the shared graph; the names of its layers begin with it."""


class BlockGraph:
    """The graph of a kind of block: its steps in order, and layers whose weights are only placeholders.

    Args:
        graph: JSON of the config of a functional model with one input and one output.
        frozen: names of the layers that are not trainable.

    Attributes:
        model: the functional model.
        stateful: the layers that have weights or other state.
        weights: for each of these what its weights are made of; none where it has other state.
        variables: theirs, in order.
        state: the places of those that training changes by other ways than gradients.
        drop: the stochastic depth, if there is one.
        functions: what TensorFlow has traced.
    """

    def __init__(self, graph: str, frozen: tuple[str, ...]):
        self.model = keras.Model.from_config(json.loads(graph))
        self.stateful = [layer for layer in self.model.layers if layer.variables]
        self.variables = [variable for layer in self.stateful for variable in layer.variables]
        self.drop = next((layer for layer in self.model.layers if isinstance(layer, StochasticDepth)), None)
        places = enumerate((layer, variable) for layer in self.stateful for variable in layer.variables)
        self.state = [
            place
            for place, (layer, variable) in places
            if not variable.trainable and layer is not self.drop and layer.name not in frozen
        ]
        self.weights = [described(layer) for layer in self.stateful]
        for layer in self.stateful:
            layer.trainable = layer.name not in frozen
        self.functions: dict[Any, Callable[..., Any]] = {}
        depths = self.model._nodes_by_depth
        self._nodes = [node for depth in sorted(depths, reverse=True) for node in depths[depth] if not node.is_input]
        self._branch = self._only_before_the_drop()

    def _only_before_the_drop(self) -> set[int]:
        """The `id` of every node that nothing but the drop needs; empty where the sum cannot do without the branch."""
        if self.drop is None:
            return set()
        (drop,) = self.drop._inbound_nodes
        readers: dict[int, list[Any]] = {}
        for node in self._nodes:
            for tensor in node.input_tensors:
                readers.setdefault(id(tensor), []).append(node)
        after = [node.operation for tensor in drop.outputs for node in readers.get(id(tensor), [])]
        if not after or not all(isinstance(operation, keras.layers.Add) for operation in after):
            return set()
        branch = {id(drop)}
        for node in reversed(self._nodes):
            consumers = [reader for tensor in node.outputs for reader in readers.get(id(tensor), [])]
            if consumers and all(id(reader) in branch for reader in consumers):
                branch.add(id(node))
        return branch

    @property
    def skips(self) -> bool:
        """Whether a dropped branch need not be computed."""
        return len(self._branch) > 1

    def run(self, x: Any, training: bool, factor: Any = None, without_branch: bool = False) -> Any:
        """The block's output; the drop multiplies by `factor`, by nothing where that is None."""
        tensors = {id(self.model.inputs[0]): x}
        for node in self._nodes:
            if without_branch and id(node) in self._branch:
                continue
            operation = node.operation
            if operation is self.drop:
                y = tensors[id(node.input_tensors[0])]
                y = y if factor is None else y * ops.cast(factor, y.dtype)
            elif without_branch and any(id(tensor) not in tensors for tensor in node.input_tensors):
                # The sum of the shortcut and nothing.
                (y,) = (tensors[id(tensor)] for tensor in node.input_tensors if id(tensor) in tensors)
            else:
                args, kwargs = node.arguments.fill_in(tensors)
                if getattr(operation, "_call_has_training_arg", False):
                    kwargs["training"] = training
                y = operation(*args, **kwargs)
            tensors[id(node.outputs[0])] = y
        return tensors[id(self.model.outputs[0])]

    def compute(
        self, x: Any, values: list[Any], training: bool, factor: Any, skip: str | None
    ) -> tuple[Any, list[Any]]:
        """The block with `values` for its variables.

        Args:
            x: the input.
            values: one a variable.
            training: whether to train.
            factor: what the drop multiplies by, or None.
            skip: how to treat a factor of zero: None computes the branch in any case; ``"exact"`` and ``"scaled"`` do not compute it, and
                multiply a branch that stays by nothing or by the factor.

        Returns:
            The output, and while training the new values of the variables at `state`.
        """

        def run(**kwargs: Any) -> tuple[Any, list[Any]]:
            with keras.StatelessScope(state_mapping=list(zip(self.variables, values, strict=True))) as scope:
                y = self.run(x, training, **kwargs)
            if not training:
                return y, []
            return y, [scope.get_current_value(self.variables[place]) for place in self.state]

        if skip is None:
            return run(factor=factor)
        kept = None if skip == "exact" else factor
        return ops.cond(ops.reshape(factor, ()) > 0, lambda: run(factor=kept), lambda: run(without_branch=True))


def described(layer: keras.layers.Layer) -> list[dict[str, Any]]:
    """What a copy of `layer` asks for when it makes its weights: the arguments of `_variable`."""
    calls: list[dict[str, Any]] = []

    def add_weight(**kwargs: Any) -> Any:
        variable = keras.layers.Layer.add_weight(copy, **kwargs)
        described = {name: getattr(variable, name) for name in ("shape", "dtype", "trainable", "aggregation", "name")}
        kept = {name: getattr(variable, name) for name in ("regularizer", "constraint")}
        described["autocast"] = kwargs.get("autocast", True)
        calls.append({"initializer": keras.initializers.get(kwargs["initializer"]), "kept": kept, **described})
        return variable

    if has_seed(layer):
        return calls
    copy = type(layer).from_config(layer.get_config())
    copy.add_weight = add_weight
    copy.build(layer.input.shape)
    return calls


def made_variable(initializer: keras.Initializer, kept: dict[str, Any], **described: Any) -> keras.Variable:
    """A variable for a place in the graph, made without drawing the numbers of constants again."""
    constant = type(initializer) in (keras.initializers.Zeros, keras.initializers.Ones)
    if constant and keras.backend.backend() == "tensorflow":
        described["initializer"] = _same_everywhere(type(initializer), described.pop("shape"), described["dtype"])
    else:
        described["initializer"] = initializer.clone()
    variable = keras.Variable(**described)
    for name, value in kept.items():
        setattr(variable, name, value)
    return variable


@functools.lru_cache(maxsize=256)
def _same_everywhere(initializer: type, shape: tuple[int, ...], dtype: str) -> Any:
    """Zeros or ones to begin with, made once: thousands of variables have the same."""
    import tensorflow as tf

    with tf.init_scope():
        return initializer()(shape, dtype)


def has_seed(layer: keras.layers.Layer) -> bool:
    """Whether a layer draws random numbers."""
    return getattr(layer, "seed_generator", None) is not None


@functools.lru_cache(maxsize=256)
def block_graph(graph: str, frozen: tuple[str, ...]) -> BlockGraph:
    """The graph of a kind of block, made once a process."""
    with _seeds_untouched():
        return _made(graph, frozen)


@contextlib.contextmanager
def _seeds_untouched() -> Iterator[None]:
    """Keras draws default seeds from Python's generator: weights must not depend on which graphs the process has made before."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def _made(graph: str, frozen: tuple[str, ...]) -> BlockGraph:
    if keras.backend.backend() != "tensorflow":
        return BlockGraph(graph, frozen)
    import tensorflow as tf

    with tf.init_scope():  # a block may first be called where a function is traced
        return BlockGraph(graph, frozen)


@functools.lru_cache(maxsize=1024)
def output_shape(graph: str, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """The shape that a block gives."""
    return block_graph(graph, ()).model.compute_output_shape(input_shape)
