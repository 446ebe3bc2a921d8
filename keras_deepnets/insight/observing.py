"""Compute tensors inside a network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import keras

BATCH = 32


def graph_of(model: keras.Model) -> keras.Model:
    """Return the functional graph of a network. A network nested in a model, such as one behind augmentation, is found.

    Raises:
        InputError: The model has no graph of layers.
    """
    from keras_deepnets.graphs import as_functional
    from keras_deepnets.models import network_of, without_auxiliary

    return without_auxiliary(network_of(model) or as_functional(model))


def inputs_of(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Scale images as a network expects them.

    Args:
        model: The network.
        images: ``[n, h, w, c]`` with values 0–255, of the network's input size.

    Returns:
        float32 ``[n, h, w, c]``.

    Raises:
        InputError: The images have another shape than the network's input, or its scaling is unknown.
    """
    from keras_deepnets.predictions import preprocess_input

    images = np.asarray(images)
    wanted = tuple(model.input_shape[1:])
    fits = images.ndim == 4 and len(images) and len(wanted) == 3
    if not fits or any(side not in (None, own) for side, own in zip(wanted, images.shape[1:], strict=True)):
        text = ", ".join("any" if side is None else str(side) for side in wanted)
        raise InputError(f"images of shape {list(images.shape)}: {model.name} takes [n, {text}], at least one image.")
    return np.asarray(preprocess_input(images, model))


def tensors_of(
    model: keras.Model, tensors: Sequence[Any], images: np.ndarray, batch: int = BATCH
) -> Iterator[list[np.ndarray]]:
    """Yield the values of symbolic tensors for batches of images, in inference mode.

    Args:
        model: Functional model with these tensors.
        tensors: Symbolic tensors of the model.
        images: Images as for `inputs_of`.
        batch: Maximum images per step.
    """
    import keras

    from keras_deepnets.models import deep_graphs

    inputs = inputs_of(model, images)
    with deep_graphs():
        inner = keras.Model(model.inputs[0], list(tensors))
        for at in range(0, len(inputs), batch):
            found = inner.predict_on_batch(inputs[at : at + batch])
            yield [np.asarray(value) for value in (found if isinstance(found, (list, tuple)) else [found])]


def classifier_node(model: keras.Model) -> Any:
    """Return the call of the layer that gives a classifier's outputs.

    Raises:
        InputError: The model does not have one output of shape ``[n, classes]``.
    """
    if len(model.outputs) != 1 or len(model.outputs[0].shape) != 2:
        raise InputError(f"{model.name} is not a classifier with one output [n, classes]; give a classifier.")
    history = model.outputs[0]._keras_history
    return history.operation._inbound_nodes[history.node_index]


def logits_tensor(model: keras.Model) -> Any:
    """Return the symbolic logits ``[n, classes]`` of a classifier that ends in a softmax or in logits.

    Raises:
        InputError: The classifier ends in another activation.
    """
    import keras

    from keras_deepnets.graphs import from_config

    node = classifier_node(model)
    layer = node.operation
    activation = getattr(layer, "activation", None)
    if isinstance(layer, keras.layers.Softmax) or (isinstance(layer, keras.layers.Activation) and _is_softmax(layer)):
        return node.input_tensors[0]
    if activation is None or activation is keras.activations.linear:
        return model.outputs[0]
    if not _is_softmax(layer):
        raise InputError(
            f"{model.name} ends in {getattr(activation, '__name__', activation)!r}; give a classifier that ends in a softmax or in logits."
        )
    linear = from_config(
        type(layer), layer.get_config() | {"activation": "linear", "name": f"{layer.name}_logits"}, layer
    )
    logits = linear(node.input_tensors[0])
    linear.set_weights(layer.get_weights())
    return logits


def _is_softmax(layer: Any) -> bool:
    import keras

    return layer.activation is keras.activations.softmax
