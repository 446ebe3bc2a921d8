"""Fold batch normalisation into the preceding convolution or dense layer: the same outputs in fewer passes."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_deepnets import graphs

if TYPE_CHECKING:
    import keras
    import numpy as np


class _Pair(NamedTuple):
    """A layer and the batch normalisation that is the only reader of its output."""

    linear: Any
    norm: Any


class _Valued(NamedTuple):
    """A layer and the variables to compute with: its own, or those that a block holds for it."""

    layer: Any
    variables: Sequence[Any]

    def value(self, name: str) -> np.ndarray:
        """The value of a variable in float64."""
        return next(_value(variable) for variable in self.variables if variable.name == name)

    def weights(self) -> list[np.ndarray]:
        """The result of the layer's `get_weights`, without seeds."""
        from keras import ops

        weights = {id(weight) for weight in self.layer.weights}
        pairs = zip(self.layer.variables, self.variables, strict=True)
        return [ops.convert_to_numpy(variable) for own, variable in pairs if id(own) in weights]


def fold_batchnorm(model: keras.Model) -> keras.Model:
    """Return the network without the batch normalisations (BN) that follow a convolution or a dense layer.

    At inference BN is ``y·s + (beta - mean·s)`` with ``s = gamma / sqrt(variance + epsilon)`` per channel. If `y` is the output of a
    linear layer and nothing else reads it, `s` goes into the kernel and the rest into the bias. This works for convolutions of one to
    three dimensions, including grouped, dilated, depthwise and transposed ones, for dense layers, and inside nested models.

    Some BN layers cannot be folded. Their input is a non-linearity (pre-activation networks, DenseNet), or they are shared. Or the layer
    before them has other readers, or is quantised or adapted (LoRA). On TensorFlow such a BN becomes a depthwise 1×1 convolution with a
    bias. It runs in one pass with the following ReLU and is quantised per channel. A BN that is called with ``training=True``, or whose
    images are not channels-last, stays unchanged.

    Layers that only serve training are removed too, also auxiliary classifiers. Recomputing layers become the three layers that they
    consist of. Dropout and stochastic depth are dropped, or become a `keras.layers.Rescaling` if they rescale at inference. The
    activations and concatenations of this library become Keras' own, and joins of columns become a sum and a
    `keras.layers.Rescaling`.

    Args:
        model: A functional or built sequential model. It is not changed.

    Returns:
        A new functional model for inference and export, not compiled. Its outputs equal those of `model` up to rounding; the folding
        computes in float64. Layer names, `architecture`, `labels` and `scaling` are kept.

    Raises:
        InputError: The model is not built or has no graph of layers.
    """
    from keras_deepnets.models import without_auxiliary

    graph = _separated(graphs.as_functional(without_auxiliary(model)))
    return _folded(graph, inside_block=False)


def _folded(graph: keras.Model, *, inside_block: bool) -> keras.Model:
    import keras

    from keras_deepnets.layers import Block, FractalJoin, StochasticDepth

    pairs = _pairs(graph)
    norms = {id(pair.norm) for pair in pairs.values()}
    scalings = _scalings(graph) - norms

    def new_layer(layer: Any) -> Any:
        if isinstance(layer, Block):
            return _folded_block(layer)
        if type(layer) is StochasticDepth and not inside_block:
            return keras.layers.Rescaling(layer.survival, name=layer.name, dtype=layer.dtype_policy)
        if type(layer) is FractalJoin and not inside_block:
            return _Mean(layer)
        if type(layer) in _differing_in_training():
            return graphs.same(layer, kind=_differing_in_training()[type(layer)])
        if id(layer) in scalings:
            return keras.layers.DepthwiseConv2D(
                1,
                data_format="channels_last",
                name=layer.name,
                dtype=layer.dtype_policy,
                trainable=layer.trainable,
            )
        return _with_bias(layer) if id(layer) in pairs else None

    def weights_of(layer: Any) -> list[np.ndarray]:
        if isinstance(layer, Block):
            return _folded_block_weights(layer)
        if id(layer) in scalings:
            return _scaling_weights(_valued(layer))
        return _folded_weights(*map(_valued, pairs[id(layer)])) if id(layer) in pairs else layer.get_weights()

    return graphs.rebuild(
        graph,
        new_layer=new_layer,
        weights_of=weights_of,
        left_out=lambda node: id(node.operation) in norms or (not inside_block and _does_nothing(node)),
        nested=fold_batchnorm,
        marks={"folded": True},
    )


@functools.cache
def _differing_in_training() -> dict[type, type]:
    """Layers of this library that equal Keras' own layers at inference."""
    import keras

    from keras_deepnets import layers

    return {layers.Activation: keras.layers.Activation, layers.Concatenate: keras.layers.Concatenate}


def _does_nothing(node: Any) -> bool:
    """Whether the call returns its input unless it is training."""
    import keras

    from keras_deepnets.layers import StochasticDepth

    layer = node.operation
    if node.arguments.kwargs.get("training") or not _is_ours(layer):
        return False
    if isinstance(layer, StochasticDepth):
        return layer.rescale == "training" or layer.survival == 1
    return isinstance(layer, (keras.layers.Dropout, keras.layers.SpatialDropout2D))


class _Mean:
    """A join without drop-path and without its plan, in the layers of Keras that every runtime computes fast."""

    def __init__(self, layer: Any):
        self.layer = layer

    def __call__(self, maps: Sequence[Any], plan: Any = None) -> Any:
        import keras

        name, dtype = self.layer.name, self.layer.dtype_policy
        total = keras.layers.Add(name=f"{name}_sum", dtype=dtype)(maps)
        return keras.layers.Rescaling(1 / len(maps), name=name, dtype=dtype)(total)


class _Separate:
    """The layers that a recomputing layer consists of, callable like that layer."""

    def __init__(self, layer: Any):
        import keras

        name = layer.norm.name
        activation = keras.layers.Activation("relu", name=f"{name.removesuffix('_bn')}_relu", dtype=layer.dtype_policy)
        self.layers = [graphs.same(layer.norm), activation, graphs.same(layer.convolution)]

    def __call__(self, inputs: Sequence[Any]) -> Any:
        return functools.reduce(lambda x, layer: layer(x), self.layers, inputs[0])

    def set_weights(self, weights: list[np.ndarray]) -> None:
        norm, _, convolution = self.layers
        *of_norm, kernel = weights
        norm.set_weights(of_norm)
        convolution.set_weights([kernel])


def _separated(model: keras.Model) -> keras.Model:
    """The network with recomputing layers taken apart, or the network itself if it has none."""
    from keras_deepnets.layers import RecomputedConv2D

    if not any(isinstance(node.operation, RecomputedConv2D) for node in graphs.nodes(model)):
        return model

    def weights_of(layer: Any) -> list[np.ndarray]:
        if isinstance(layer, RecomputedConv2D):
            return [*layer.norm.get_weights(), *layer.convolution.get_weights()]
        return layer.get_weights()

    return graphs.rebuild(
        model,
        new_layer=lambda layer: _Separate(layer) if isinstance(layer, RecomputedConv2D) else None,
        weights_of=weights_of,
    )


@functools.lru_cache(maxsize=256)
def _folded_graph(graph: str) -> str:
    """The shared graph of blocks without its foldable normalisations."""
    import keras

    return json.dumps(_folded(keras.Model.from_config(json.loads(graph)), inside_block=True).get_config())


def _folded_block(block: Any) -> Any:
    frozen = [
        name for name in block.frozen if name not in {pair.norm.name for pair in _pairs(block.network()).values()}
    ]
    return type(block).from_config(block.get_config() | {"graph": _folded_graph(block.graph), "frozen": frozen})


def _folded_block_weights(block: Any) -> list[np.ndarray]:
    network = block.network()
    pairs = {pair.linear.name: pair.norm.name for pair in _pairs(network).values()}
    scalings = _scalings(network)
    # Read the variables, not the sublayers: making a thousand layers just to read their weights would take most of the time.
    own = {name: _Valued(network.get_layer(name), block.variables_of(name)) for name in block.stateful_names}
    weights = []
    for name, valued in own.items():
        if name in pairs:
            weights += _folded_weights(valued, own[pairs[name]])
        elif name in pairs.values():
            continue
        elif id(valued.layer) in scalings:
            weights += _scaling_weights(valued)
        else:
            weights += valued.weights()
    return weights


def _scalings(model: keras.Model) -> set[int]:
    """The `id` of each normalisation in one graph that only scales and shifts channels-last images; nested models are separate."""
    import keras

    if keras.backend.backend() != "tensorflow":  # Other backends compile a normalisation together with the next layers.
        return set()
    found: set[int] = set()
    others: set[int] = set()
    for node in graphs.nodes(model):
        norm = node.operation
        plain = _is_plain_norm(norm) and isinstance(norm.axis, int) and not node.arguments.kwargs.get("training")
        images = plain and len(node.input_tensors[0].shape) == 4 and norm.axis % 4 == 3
        (found if images else others).add(id(norm))
    return found - others


def _pairs(model: keras.Model) -> dict[int, _Pair]:
    """The foldable pairs of one graph by the `id` of the linear layer; nested models are separate."""
    nodes = graphs.nodes(model)
    calls = Counter(id(node.operation) for node in nodes)
    readers = Counter(id(tensor) for node in nodes for tensor in node.input_tensors)
    readers.update(id(tensor) for tensor in model.outputs)
    pairs = {}
    for node in nodes:
        norm = node.operation
        if not _is_plain_norm(norm) or calls[id(norm)] > 1 or node.arguments.kwargs.get("training"):
            continue
        tensor = node.input_tensors[0]
        alone = readers[id(tensor)] == 1
        linear = tensor._keras_history.operation
        while calls[id(linear)] == 1 and _does_nothing(linear._inbound_nodes[tensor._keras_history.node_index]):
            # Dropout between them
            tensor = linear._inbound_nodes[tensor._keras_history.node_index].input_tensors[0]
            alone = alone and readers[id(tensor)] == 1
            linear = tensor._keras_history.operation
        alone = alone and calls[id(linear)] == 1
        if alone and _is_plain_linear(linear) and _same_axis(linear, norm, len(tensor.shape)):
            pairs[id(linear)] = _Pair(linear, norm)
    return pairs


def _is_ours(layer: Any) -> bool:
    """Whether the class comes from Keras or this package. A subclass from elsewhere may do more than its base."""
    return type(layer).__module__.split(".")[0] in ("keras", "keras_deepnets")


def _is_plain_norm(layer: Any) -> bool:
    import keras

    return (
        isinstance(layer, keras.layers.BatchNormalization) and _is_ours(layer) and not getattr(layer, "renorm", False)
    )


def _is_plain_linear(layer: Any) -> bool:
    import keras

    kinds = keras.layers
    convolutions = (kinds.Conv1D, kinds.Conv2D, kinds.Conv3D, kinds.DepthwiseConv1D, kinds.DepthwiseConv2D)
    transposed = (kinds.Conv1DTranspose, kinds.Conv2DTranspose, kinds.Conv3DTranspose)
    if not isinstance(layer, (*convolutions, *transposed, kinds.Dense)) or not _is_ours(layer):
        return False
    if getattr(layer, "lora_enabled", False) or getattr(layer, "quantization_mode", None):
        return False
    return layer.activation is None or layer.activation is keras.activations.linear


def _same_axis(linear: Any, norm: Any, rank: int) -> bool:
    """Whether the normalisation is over the layer's output channels."""
    axis = 1 if getattr(linear, "data_format", "channels_last") == "channels_first" else rank - 1
    return isinstance(norm.axis, int) and norm.axis % rank == axis


def _with_bias(layer: Any) -> Any:
    """A copy of the layer with a bias. Its weights are set later."""
    return type(layer).from_config(layer.get_config() | {"use_bias": True})


def _valued(layer: Any) -> _Valued:
    return _Valued(layer, layer.variables)


def _folded_weights(linear: _Valued, norm: _Valued) -> list[np.ndarray]:
    """Kernel and bias that are equivalent to `linear` followed by `norm`."""
    scale, shift = _scale_and_shift(norm)
    bias = linear.value("bias") * scale if linear.layer.use_bias else 0.0
    kernel = linear.value("kernel")
    return [kernel * _over_kernel(linear.layer, kernel.shape, scale), bias + shift]


def _scaling_weights(norm: _Valued) -> list[np.ndarray]:
    """Kernel and bias of the depthwise 1×1 convolution equivalent to `norm`."""
    scale, shift = _scale_and_shift(norm)
    return [scale[None, None, :, None], shift]


def _scale_and_shift(norm: _Valued) -> tuple[np.ndarray, np.ndarray]:
    """The factors and offsets of `norm` at inference, one per channel, computed in float64."""
    import numpy as np

    scale = 1.0 / np.sqrt(norm.value("moving_variance") + norm.layer.epsilon)
    if norm.layer.scale:
        scale = scale * norm.value("gamma")
    shift = -norm.value("moving_mean") * scale
    return scale, shift + norm.value("beta") if norm.layer.center else shift


def _value(variable: Any) -> np.ndarray:
    from keras import ops

    return ops.convert_to_numpy(ops.cast(variable, "float32")).astype("float64")


def _over_kernel(linear: Any, shape: tuple[int, ...], scale: np.ndarray) -> np.ndarray:
    """Reshape the factors, one per output channel, so that they multiply the kernel."""
    name = type(linear).__name__
    if "Depthwise" in name:  # [..., channels, multiplier], output channel = channel · multiplier + index
        return scale.reshape(shape[-2:])
    if "Transpose" in name:  # [..., outputs, inputs]
        return scale[:, None]
    return scale  # [..., inputs, outputs]
