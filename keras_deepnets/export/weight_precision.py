"""Storage of an exported network's weights: inside the graph or outside, at full or half size."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from keras_deepnets import graphs

if TYPE_CHECKING:
    import keras
    import numpy as np

STORED = ("float32", "bfloat16", "float16")
"""Dtypes for the weights of an artifact."""
MOST_CONSTANTS = 1_500_000_000
"""Maximum bytes of weights inside the graph itself. Protocol buffers are limited to 2 GiB."""
LARGEST_CONSTANT = 64_000_000
"""Maximum bytes of one weight inside a graph that TensorFlow runs. Only the dense layers of VGG have larger ones, and gain nothing."""


class Weights:
    """The weights of a network for its graph: constants or variables.

    oneDNN arranges constant convolution weights once, not at each call. TFLite's converter need not save and load constants. For a
    network of a thousand layers, saving and loading takes longer than the conversion. TensorFlow copies constants many times in the
    process.

    Args:
        network: The network.
        precision: One of `STORED`.
        most: Bytes of all weights beyond which they are variables. Default: `MOST_CONSTANTS`.
        largest: Bytes beyond which a single weight is a variable. None: no limit.

    Attributes:
        place: Where the weights are: ``graph``, ``variables``, or ``graph and variables``.
    """

    def __init__(self, network: keras.Model, precision: str, most: int | None = None, largest: int | None = None):
        import tensorflow as tf

        stored = list(stored_weights(network, precision))
        fit = sum(value.nbytes for _, value, _ in stored) <= (MOST_CONSTANTS if most is None else most)
        inside = [fit and (largest is None or value.nbytes <= largest) for _, value, _ in stored]
        self.place = "graph" if all(inside) else "graph and variables" if any(inside) else "variables"
        constants = [each for each, constant in zip(stored, inside, strict=True) if constant]
        # Variables whose stored dtype is unchanged need no copy.
        copies = [
            (variable, tf.Variable(value, trainable=False), computed)
            for (variable, value, computed), constant in zip(stored, inside, strict=True)
            if not constant and value.dtype != variable.dtype
        ]
        self._stored = [*constants, *copies]

    @contextlib.contextmanager
    def in_graph(self) -> Iterator[None]:
        """Let the network read the stored weights inside the block. Use it to trace a function without gradients."""
        import keras
        import tensorflow as tf

        from keras_deepnets.layers.fast.convolution import exporting

        values = [
            (variable, tf.cast(tf.convert_to_tensor(value), computed)) for variable, value, computed in self._stored
        ]
        with exporting(), keras.StatelessScope(state_mapping=values) if values else contextlib.nullcontext():
            yield


def computing_in_bfloat16(model: keras.Model) -> keras.Model:
    """A copy whose layers with feature maps compute in bfloat16. Input scaling and layers after the pooling stay unchanged."""
    from keras_deepnets.layers import InputScaling

    def new_layer(layer: Any) -> Any:
        if isinstance(layer, InputScaling) or len(layer._inbound_nodes[0].outputs[0].shape) != 4:
            return None
        try:
            config = layer.get_config()
        except NotImplementedError:
            return None
        return graphs.from_config(type(layer), _in_bfloat16(config), layer)

    return graphs.rebuild(graphs.as_functional(model), new_layer=new_layer)


def stored_weights(model: keras.Model, precision: str) -> Iterator[tuple[Any, np.ndarray, str]]:
    """Every variable, its stored value, and the dtype in which it is computed.

    Vectors stay in float32. They are a thousandth of a network, and low-precision statistics and biases would cost accuracy for no gain.
    """
    import numpy as np
    import tensorflow as tf

    from keras_deepnets.models import flat_layers

    seen: set[int] = set()
    for layer in flat_layers(model):
        for variable in layer.variables:
            if id(variable) in seen:
                continue
            seen.add(id(variable))
            value, computed = np.asarray(variable), variable.dtype
            if precision != "float32" and computed == "float32" and value.ndim > 1:
                value = value.astype(tf.dtypes.as_dtype(precision).as_numpy_dtype)
                if layer.compute_dtype == precision:
                    computed = precision
            yield variable, value, computed


def _in_bfloat16(config: Any) -> Any:
    """The config of a layer with mixed precision instead of float32, including the graph of a block."""
    if isinstance(config, (list, tuple)):
        return type(config)(_in_bfloat16(value) for value in config)
    if not isinstance(config, dict):
        return config
    config = {key: _in_bfloat16(value) for key, value in config.items()}
    for key in ("name",) if set(config) == {"name"} else ("dtype",):
        if config.get(key) == "float32":
            config[key] = "mixed_bfloat16"
    if config.get("class_name") in ("InputLayer", "__keras_tensor__"):  # these have a dtype but no policy
        config["config"]["dtype"] = "bfloat16"
    if isinstance(config.get("graph"), str):
        config["graph"] = _graph_in_bfloat16(config["graph"])
    return config


@functools.lru_cache(maxsize=256)
def _graph_in_bfloat16(graph: str) -> str:
    return json.dumps(_in_bfloat16(json.loads(graph)))
