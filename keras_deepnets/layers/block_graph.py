"""The graph that all blocks of the same kind share."""

from __future__ import annotations

import contextlib
import functools
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
from keras import ops

from keras_deepnets.layers.stochastic import StochasticDepth

STAND_IN = "block"
"""Name of a block in the shared graph, and prefix of the names of its layers."""


class BlockGraph:
    """The graph of one kind of block: its steps in order, and layers whose weights are placeholders.

    Args:
        graph: JSON config of a functional model with one input and one output.
        frozen: names of the layers that are not trainable.

    Attributes:
        model: the functional model.
        stateful: layers with weights or other state.
        weights: for each of these layers, the arguments that create its weights; empty if it has other state.
        variables: variables of these layers, in order.
        state: indices of the variables that training changes by means other than gradients.
        drop: stochastic depth layer, or None.
        functions: functions traced by TensorFlow.
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
        """The `id` of every node that only the drop layer needs. Empty if the sum needs the branch."""
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
        """Whether the computation of a dropped branch can be skipped."""
        return len(self._branch) > 1

    def run(self, x: Any, training: bool, factor: Any = None, without_branch: bool = False) -> Any:
        """The output of the block. The drop layer multiplies by `factor`, unless it is None."""
        tensors = {id(self.model.inputs[0]): x}
        for node in self._nodes:
            if without_branch and id(node) in self._branch:
                continue
            operation = node.operation
            if operation is self.drop:
                y = tensors[id(node.input_tensors[0])]
                y = y if factor is None else y * ops.cast(factor, y.dtype)
            elif without_branch and any(id(tensor) not in tensors for tensor in node.input_tensors):
                # The branch is dropped, so the sum is the shortcut.
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
        """Computes the block with `values` for its variables.

        Args:
            x: the input.
            values: one value per variable.
            training: whether to train.
            factor: factor of the drop layer, or None.
            skip: treatment of a factor of zero. None always computes the branch. ``"exact"`` and ``"scaled"`` skip a dropped branch. They
                multiply a surviving branch by one and by `factor`, respectively.

        Returns:
            The output and, in training, the new values of the variables at `state`.
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

        def dropped() -> tuple[Any, list[Any]]:
            y, news = run(without_branch=True)
            return (_with_zero_gradients(y, values) if keras.backend.backend() == "torch" else y), news

        return ops.cond(ops.reshape(factor, ()) > 0, lambda: run(factor=kept), dropped)


def _with_zero_gradients(y: Any, weights: Sequence[Any]) -> Any:
    """Return `y`. Its gradients with respect to `weights` are zeros.

    Keras' optimizers need a gradient for every weight, and torch gives none for the weights of a skipped branch.
    """
    return _zero_gradients().apply(y, *(weight for weight in weights if weight.requires_grad))


@functools.cache
def _zero_gradients() -> Any:
    import torch

    class ZeroGradients(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, y: Any, *weights: Any) -> Any:
            context.save_for_backward(*weights)
            return y.view_as(y)

        @staticmethod
        def backward(context: Any, *gradients: Any) -> Any:
            return gradients[0], *(torch.zeros_like(weight) for weight in context.saved_tensors)

    return ZeroGradients


def described(layer: keras.layers.Layer) -> list[dict[str, Any]]:
    """The arguments of `made_variable` for each weight of a copy of `layer`."""
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
    """A variable for a position in the graph. Constant initial values are computed only once."""
    kind: Any = type(initializer)
    constant = kind in (keras.initializers.Zeros, keras.initializers.Ones)
    if constant and keras.backend.backend() == "tensorflow":
        described["initializer"] = _same_everywhere(kind, described.pop("shape"), described["dtype"])
    else:
        described["initializer"] = initializer.clone()
    variable = keras.Variable(**described)
    for name, value in kept.items():
        setattr(variable, name, value)
    return variable


@functools.lru_cache(maxsize=256)
def _same_everywhere(initializer: type, shape: tuple[int, ...], dtype: str) -> Any:
    """Initial zeros or ones, created once. Thousands of variables have the same initial value."""
    import tensorflow as tf

    with tf.init_scope():
        return initializer()(shape, dtype)


def has_seed(layer: keras.layers.Layer) -> bool:
    """Whether a layer draws random numbers."""
    return getattr(layer, "seed_generator", None) is not None


@functools.lru_cache(maxsize=256)
def block_graph(graph: str, frozen: tuple[str, ...]) -> BlockGraph:
    """The graph of one kind of block, created once per process."""
    with _seeds_untouched():
        return _made(graph, frozen)


@contextlib.contextmanager
def _seeds_untouched() -> Iterator[None]:
    """A scope that restores the state of Python's random generator, from which Keras draws default seeds.

    Weights must not depend on the graphs that the process has already created.
    """
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


def _made(graph: str, frozen: tuple[str, ...]) -> BlockGraph:
    if keras.backend.backend() != "tensorflow":
        return BlockGraph(graph, frozen)
    import tensorflow as tf

    with tf.init_scope():  # the first call of a block may be inside a traced function
        return BlockGraph(graph, frozen)


@functools.lru_cache(maxsize=1024)
def output_shape(graph: str, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """The output shape of a block."""
    return block_graph(graph, ()).model.compute_output_shape(input_shape)
