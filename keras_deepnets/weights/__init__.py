"""Load weights from any supported library, and save weights. Importing this module imports neither Keras nor TensorFlow."""

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
    """Load weights into `model` from a file, another model or a mapping of arrays, with the names of any supported library.

    The loader recognises the library from the tensor names:

    * Keras, whose names this library uses too (also keras.applications)
    * torchvision and timm
    * pytorchcv for CIFAR
    * KerasHub
    * plain CIFAR checkpoints (``layer1.0.conv1…``)

    Wrapper prefixes such as ``module.`` are ignored. A network without a classifier accepts weights that include one. Biases before
    batch normalisation are folded into it. The model takes over the labels and the input scaling of the file.

    The file's weights belong to the network, and the layers around it do not matter. These are layers before its ``input_tensor``, or
    layers of a functional or sequential model that contains the network. Such layers get weights if the file has the same layers.
    Otherwise they stay unchanged. A ``layer_prefix`` does not matter either.

    Args:
        model: A built network, or a model that contains one. Any Keras model works if its layers have this library's names.
        source: A path (``.weights.h5 .keras .h5 .safetensors .pth .pt .th .bin``), a built Keras model, a card
            (``"torchvision/imagenet1k_v2"``, see `model_info`), or a mapping of names to arrays. Torch pickles need torch (extra
            ``torch``). They are read as tensors only.
        strict: Whether all weights and tensors must match. If False, load what fits and report the rest.
        skip_head: Whether to keep the model's classifier and ignore the source's.

    Returns:
        A report of what was loaded and what was not.

    Raises:
        ValueError: The file does not exist, its format or naming is unknown, or its network computes something else. With `strict`, also
            if tensors are missing, unused or of another shape. This is a `MisfitError`, and its `report` lists them all. The model stays
            unchanged.
    """
    from keras_deepnets.weights import cards, loading, names, reading

    if isinstance(source, str) and cards.is_name(source):
        card = cards.find(model, source)
        loading.check_options(names.named_weights(model).network, card.options, card.name)
        source = cards.tensors(card)
    return loading.load_into(model, reading.read(source), strict=strict, skip_head=skip_head)


def save_weights(model: keras.Model, path: str | Path) -> Path:
    """Save the weights of `model` with its architecture, options, number of classes, labels and input scaling.

    Layers around the network are saved too: those before its ``input_tensor``, or those of a model that contains the network. They are
    marked, so that the file also fits the network alone.

    Args:
        model: A built network, or a model that contains one.
        path: Path of the file. The suffix sets the format: ``.safetensors`` (readable by any program, names like ``conv1_conv/kernel``),
            ``.weights.h5`` (Keras' format) or ``.keras`` (the whole model). The file is written to a temporary name and renamed, so it is
            never incomplete.

    Returns:
        The path.

    Raises:
        ValueError: The format is not supported, or the path cannot be written to.
    """
    from keras_deepnets.weights import saving

    return saving.save(model, path)
