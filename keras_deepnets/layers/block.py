"""A block of a network as a single layer, for networks of hundreds of blocks.

The time that Keras, TensorFlow's tracing and its graph optimiser take grows faster than the number of layers. Blocks with the same
channels, strides and precision differ only in their weights. Here they share one small graph. On TensorFlow, they also share one
function, which is traced and optimised once and called once per block.
"""

from __future__ import annotations

import contextlib
import contextvars
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_deepnets.layers import fast, replicas
from keras_deepnets.layers.block_graph import STAND_IN, BlockGraph, block_graph, has_seed, made_variable, output_shape
from keras_deepnets.layers.building import named, prefixed, quickly
from keras_deepnets.layers.fast import internals
from keras_deepnets.layers.precision import at_least_float32

_inline: contextvars.ContextVar[bool] = contextvars.ContextVar("inline_blocks", default=False)


@contextlib.contextmanager
def inlined_blocks() -> Iterator[None]:
    """A scope in which blocks are traced as parts of their network instead of as function calls."""
    token = _inline.set(True)
    try:
        yield
    finally:
        _inline.reset(token)


@keras.saving.register_keras_serializable("keras_deepnets")
class Block(keras.layers.Layer):
    """A sub-network with one input and one output as a single layer.

    Weights, their order, their paths, results and gradients are those of the sub-network's layers. The layers with weights are the
    `sublayers`. If the sub-network has a `StochasticDepth` with one draw per batch before a sum, a dropped branch is not computed.

    Args:
        graph: JSON config of the sub-network, a functional model that calls the block ``"block"``.
        survival: survival probability of the sub-network's `StochasticDepth`, which differs between blocks.
        frozen: names of the sub-network's layers that are initially not trainable.
        name: name of the layer. `stem`, its part before ``_out``, replaces ``"block"`` in the names of the sublayers.

    Shapes: those of the sub-network.
    """

    def __init__(self, graph: str, survival: float = 1.0, frozen: Sequence[str] = (), **kwargs: Any):
        """Raises ValueError if `survival` is outside (0, 1]."""
        kwargs["autocast"] = False  # the sublayers cast
        super().__init__(**kwargs)
        if not 0 < survival <= 1:
            raise ValueError(f"Block: survival={survival} is not a probability in (0, 1].")
        self.graph = graph
        self.survival = float(survival)
        self._at_first_frozen = tuple(frozen)
        self._parts = _Parts()

    @property
    def stem(self) -> str:
        """The prefix of the names of the sublayers."""
        return self.name.removesuffix("_out")

    @property
    def sublayers(self) -> Mapping[str, keras.layers.Layer]:
        """The layers of this block that have weights or other state, by name. They are created on first access."""
        return _Sublayers(self)

    def _sublayer(self, index: int) -> keras.layers.Layer:
        """The sublayer at `index`. It is created with the block's weights on first access."""
        network = block_graph(self.graph, ())
        layer, made = network.stateful[index], self._parts.layers
        if layer.name not in made:
            own = self._own(layer)
            weights = self._parts.variables[index]
            for weight, description in zip(weights, network.weights[index], strict=True):
                weight.trainable = description["trainable"]  # the sublayer uses this flag to tell the two kinds apart
            remaining = iter(weights)
            own.add_weight = lambda **kwargs: next(remaining)
            own.build(layer.input.shape)
            del own.add_weight
            own.trainable = self.trainable and layer.name not in self._at_first_frozen
            made[layer.name] = own
        return made[layer.name]

    def _own(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(layer.get_config() | {"name": self.own_name(layer.name)})

    @property
    def trainable(self) -> bool:
        """Whether the block is trainable. Setting it also sets it for all sublayers."""
        return keras.layers.Layer.trainable.fget(self)

    @trainable.setter
    def trainable(self, value: bool) -> None:
        keras.layers.Layer.trainable.fset(self, value)
        for layer in self._parts.layers.values():
            layer.trainable = value

    @property
    def variables(self) -> list[Any]:
        """Weights and other state in the order of the sublayers."""
        return [variable for variables in self._parts.variables for variable in variables]

    @property
    def weights(self) -> list[Any]:
        """Weights in the order of the sublayers."""
        seeds = {id(generator.state) for layer in self._layers for generator in layer._seed_generators}
        return [variable for variable in self.variables if id(variable) not in seeds]

    def network(self) -> keras.Model:
        """The shared sub-network. Its weights have no meaning.

        This is a method because Keras would save a property with the block.
        """
        return block_graph(self.graph, ()).model

    @property
    def stateful_names(self) -> list[str]:
        """The names, in the shared sub-network, of the layers with weights or other state."""
        return [layer.name for layer in block_graph(self.graph, ()).stateful]

    def variables_of(self, name: str) -> list[Any]:
        """The variables of the layer `name`, one of `stateful_names`. This does not create the sublayer."""
        return list(self._parts.variables[self.stateful_names.index(name)])

    def own_name(self, name: str) -> str:
        """The name in this block of a layer of the sub-network."""
        return self.stem + name.removeprefix(STAND_IN) if name.startswith(STAND_IN) else f"{self.stem}_{name}"

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights, with the paths that they would have outside a block."""
        network = block_graph(self.graph, ())
        self._parts.variables = []
        with quickly():
            for layer, calls in zip(network.stateful, network.weights, strict=True):
                if has_seed(layer):
                    own = self._own(layer)
                    if layer is network.drop:
                        own.survival = self.survival
                    self._tracker.add_to_store("layers", own)
                    self._parts.layers[layer.name] = own
                    self._parts.variables.append(own.variables)
                    continue
                with keras.name_scope(self.own_name(layer.name), override_parent="/"):
                    made = [made_variable(**call) for call in calls]
                for variable in made:
                    self._track_variable(variable)
                self._parts.variables.append(made)
        for name in self._at_first_frozen:
            self._sublayer(self.stateful_names.index(name))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The shape of the output."""
        return output_shape(self.graph, tuple(input_shape))

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> keras.KerasTensor:
        """Shape and dtype of the output."""
        return keras.KerasTensor(self.compute_output_shape(inputs.shape), self.network().output.dtype)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Runs the sub-network."""
        # In a model of a different precision, Keras casts a layer's variables even if the layer has `autocast` off.
        with internals.without_autocast():
            return self._call(inputs, bool(training))

    def _call(self, inputs: Any, training: bool) -> Any:
        frozen = self.frozen
        network = block_graph(self.graph, frozen)
        factor, skip = self._drop(network, inputs, training)
        variables = self.variables
        # A sum over replicas in a shared function would be the same operation in every block.
        shares = not (_inline.get() or replicas.synchronizes() or internals.in_stateless_scope())
        if shares and fast.on("shared_functions"):
            from keras_deepnets.layers.fast.blocks import shared

            compute = shared(network.functions, network.compute, network.state)
            return compute(inputs, variables, training, factor, skip)
        values = [variable.value for variable in variables]
        outputs, news = network.compute(inputs, values, training, factor, skip)
        for place, new in zip(network.state, news, strict=False):
            variables[place].assign(new)
        return outputs

    def _drop(self, network: BlockGraph, inputs: Any, training: bool) -> tuple[Any, str | None]:
        """The arguments `factor` and `skip` of `BlockGraph.compute`."""
        if network.drop is None:
            return None, None
        drop = self._parts.layers[network.drop.name]
        factor = drop.factor(inputs, training)
        if factor is not None:
            factor = ops.convert_to_tensor(factor, at_least_float32(self.compute_dtype))
        # Replicas that synchronise statistics wait for each other in every branch.
        possible = network.skips and not replicas.synchronizes()
        if not (drop.drops(training) and drop.unit == "batch" and possible):
            return factor, None
        return factor, "exact" if drop.rescale == "inference" else "scaled"

    def save_own_variables(self, store: Any) -> None:
        """Saves the variables of the sublayers, each as ``{layer}.{variable}``.

        One group per block is faster to write and read than one group per layer.
        """
        for key, variable in self._named_variables():
            store[key] = variable

    def load_own_variables(self, store: Any) -> None:
        """Loads the variables of the sublayers. Raises ValueError if the file has different ones."""
        variables = dict(self._named_variables())
        if set(store.keys()) != set(variables):
            odd = ", ".join(sorted(set(store.keys()) ^ set(variables))[:5])
            raise ValueError(f"{self.name}: the file and the block do not have the same variables: {odd}.")
        for key, variable in variables.items():
            variable.assign(store[key])

    def _named_variables(self) -> Iterator[tuple[str, Any]]:
        for layer, variables in zip(block_graph(self.graph, ()).stateful, self._parts.variables, strict=True):
            for variable in variables:
                yield f"{layer.name.removeprefix(STAND_IN).removeprefix('_')}.{variable.name}", variable

    @property
    def frozen(self) -> tuple[str, ...]:
        """The names, in the shared sub-network, of the layers that are not trainable."""
        made = self._parts.layers
        return tuple(
            name for name in self.stateful_names if not (made[name].trainable if name in made else self.trainable)
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return super().get_config() | {"graph": self.graph, "survival": self.survival, "frozen": list(self.frozen)}


class _Parts:
    """State that Keras must not track twice: the variables of each sublayer, and the sublayers created so far."""

    def __init__(self) -> None:
        self.variables: list[list[Any]] = []
        self.layers: dict[str, keras.layers.Layer] = {}


class _Sublayers(Mapping):
    """The sublayers of a block by name. A sublayer is created when it is looked up, not when the mapping is created."""

    def __init__(self, block: Block):
        self._block = block

    def __getitem__(self, name: str) -> keras.layers.Layer:
        names = list(self)
        if name not in names:
            raise KeyError(f"{self._block.name} has no sublayer {name!r}; it has {', '.join(names)}.")
        return self._block._sublayer(names.index(name))

    def __iter__(self) -> Iterator[str]:
        return map(self._block.own_name, self._block.stateful_names)

    def __len__(self) -> int:
        return len(self._block.stateful_names)


def shared_blocks(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turns each call of `function` into one `Block`.

    Args:
        function: ``(x, *args, survival, name) -> tensor``. The result is named ``{name}_out``, and `args` are hashable. Only the value
            in `StochasticDepth` may depend on `survival`.

    Returns:
        A function with the same arguments.
    """
    graphs: dict[Any, str] = {}

    def block(x: Any, *args: Any, survival: float, name: str) -> Any:
        kind = (tuple(x.shape), x.dtype, args, survival < 1)
        if kind not in graphs:
            inputs = keras.Input(x.shape[1:], dtype=x.dtype, name=f"{STAND_IN}_input")
            with prefixed(""):  # the shared graph belongs to no particular network
                outputs = function(inputs, *args, survival=survival, name=STAND_IN)
            graphs[kind] = json.dumps(keras.Model(inputs, outputs, name=STAND_IN).get_config())
        return Block(graphs[kind], survival, name=named(f"{name}_out"))(x)

    return block
