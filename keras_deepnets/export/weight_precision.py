"""The weights of an exported network: in the graph or outside it, in full or in half the space."""

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
"""The dtypes that weights can have in an artifact."""
MOST_CONSTANTS = 1_500_000_000
"""Bytes of weights that may lie in the graph itself: protocol buffers end at 2 GiB."""


class Weights:
    """The weights of a network as its graph gets them: constants or variables.

    As constants, oneDNN lays out a convolution's weights once and not at each call, and TFLite's converter need not save and load
    them, which takes longer than the conversion of a network of a thousand layers. TensorFlow copies constants many times meanwhile.

    Args:
        network: whose weights they are.
        precision: one of `STORED`.
        most: bytes beyond which they are variables; by default `MOST_CONSTANTS`.

    Attributes:
        constant: whether they are constants.
    """

    def __init__(self, network: keras.Model, precision: str, most: int | None = None):
        import tensorflow as tf

        stored = list(stored_weights(network, precision))
        self.constant = sum(value.nbytes for _, value, _ in stored) <= (MOST_CONSTANTS if most is None else most)
        if not self.constant:
            # Variables of the network that are stored as they are need no copy.
            stored = [
                (variable, tf.Variable(value, trainable=False), computed)
                for variable, value, computed in stored
                if value.dtype != variable.dtype
            ]
        self._stored = stored

    @contextlib.contextmanager
    def in_graph(self) -> Iterator[None]:
        """While it lasts, the network reads the stored weights; for use where a function is traced."""
        import keras
        import tensorflow as tf

        values = [
            (variable, tf.cast(tf.convert_to_tensor(value), computed)) for variable, value, computed in self._stored
        ]
        with keras.StatelessScope(state_mapping=values) if values else contextlib.nullcontext():
            yield


def computing_in_bfloat16(model: keras.Model) -> keras.Model:
    """A copy whose layers with feature maps compute in bfloat16; what scales the input and what follows the pooling stays as it is."""
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
    """Every variable, its value as it is stored, and the dtype in which it is computed with.

    Vectors, a thousandth of a network, stay in float32: statistics and biases of few digits would cost accuracy for nothing.
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
    """A layer's config with mixed precision in place of float32, in the graph of a block too."""
    if isinstance(config, (list, tuple)):
        return type(config)(_in_bfloat16(value) for value in config)
    if not isinstance(config, dict):
        return config
    config = {key: _in_bfloat16(value) for key, value in config.items()}
    for key in ("name",) if set(config) == {"name"} else ("dtype",):
        if config.get(key) == "float32":
            config[key] = "mixed_bfloat16"
    if config.get("class_name") in ("InputLayer", "__keras_tensor__"):  # these have a dtype, and no policy
        config["config"]["dtype"] = "bfloat16"
    if isinstance(config.get("graph"), str):
        config["graph"] = _graph_in_bfloat16(config["graph"])
    return config


@functools.lru_cache(maxsize=256)
def _graph_in_bfloat16(graph: str) -> str:
    return json.dumps(_in_bfloat16(json.loads(graph)))
