"""Loading anybody's weights, and saving ours. Importing this module imports neither Keras nor TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.lazy import lazy_names

if TYPE_CHECKING:
    import keras

    from keras_deepnets.weights.cards import Card, list_weights
    from keras_deepnets.weights.conversion import convert, open_model
    from keras_deepnets.weights.loading import LoadReport, MisfitError

__all__ = ["Card", "LoadReport", "MisfitError", "convert", "list_weights", "load_weights", "open_model", "save_weights"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "cards": ("Card", "list_weights"),
        "conversion": ("convert", "open_model"),
        "loading": ("LoadReport", "MisfitError"),
    },
)


def load_weights(
    model: keras.Model,
    source: str | Path | keras.Model | Mapping[str, Any],
    strict: bool = True,
    *,
    skip_head: bool = False,
) -> LoadReport:
    """Gives `model` the weights of a file, a model or a mapping of arrays, in anybody's naming.

    Recognised are Keras' names, which are ours (keras.applications too), torchvision's, timm's, pytorchcv's for CIFAR,
    KerasHub's, and plain CIFAR checkpoints (``layer1.0.conv1…``), with or without wrappers' prefixes (``module.``). A
    network without classifier takes the weights of one with it. Biases in front of batch normalisation are folded into
    it. Labels and input scaling that the file keeps become the model's.

    The weights are the network's own, whatever stands around it: the layers before its ``input_tensor``, those of a functional or
    sequential model that it is nested in. Such layers get numbers where the file has the same ones, and stay as they are where not.
    A ``layer_prefix`` does not matter either.

    Args:
        model: a built network, or a model that one is nested in; any Keras model whose layers have the names of ours.
        source: a path (``.weights.h5 .keras .h5 .safetensors .pth .pt .th .bin``), a built Keras model, a card
            (``"torchvision/imagenet1k_v2"``, see `model_info`), or a mapping of names to arrays. Torch's pickles need torch (extra
            ``torch``) and are read as tensors only.
        strict: whether every weight and every tensor must find its partner; False loads what fits and reports the rest.
        skip_head: leave the classifier as it is, whatever the source has for it.

    Returns:
        What was loaded and what was not.

    Raises:
        ValueError: no such file, another format, a naming that is not known, a network that computes something else, or (strict) tensors
            that are missing, unused or of another shape: a `MisfitError`, whose `report` lists all. The model is then left as it was.
    """
    from keras_deepnets.weights import cards, loading, names, reading

    if isinstance(source, str) and cards.is_name(source):
        card = cards.find(model, source)
        loading.check_options(names.named_weights(model).network, card.options, card.name)
        source = cards.tensors(card)
    return loading.load_into(model, reading.read(source), strict=strict, skip_head=skip_head)


def save_weights(model: keras.Model, path: str | Path) -> Path:
    """Saves the weights of `model` with its architecture, options, number of classes, labels and input scaling.

    Layers around the network (before its ``input_tensor``, in a model that it is nested in) are saved too, and told apart: the file fits
    the network alone as well.

    Args:
        model: a built network, or a model that one is nested in.
        path: ``.safetensors`` (any program reads it; names as ``conv1_conv/kernel``), ``.weights.h5`` (Keras' own) or ``.keras`` (the whole
            model). The file is written aside and renamed: it is whole or not there.

    Returns:
        The path.

    Raises:
        ValueError: another format, or a place that cannot be written to.
    """
    from keras_deepnets.weights import saving

    return saving.save(model, path)
