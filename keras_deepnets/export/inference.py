"""The network for inference, batch normalisation folded and nothing of training: a `.keras` file, or a function."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.export import model_card, single_file, weight_precision, writing
from keras_deepnets.export.folding import fold_batchnorm
from keras_deepnets.scaling import Scaling

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


def inference_model(model: keras.Model, path: str | os.PathLike[str]) -> Path:
    """Writes the network of `fold_batchnorm` as a ``.keras`` file: faster, for inference alone.

    ``keras.saving.load_model`` reads it after ``import keras_deepnets``, which registers this library's layers. The JSON file
    beside it (``….keras.json``) says so, with the network's input, labels and scaling.

    Args:
        model: a functional or built sequential model.
        path: the file to write, ``….keras``; what is there is replaced, and the JSON beside it.

    Returns:
        The path.

    Raises:
        InputError: the model is not built or has no graph of layers, or the file cannot be written. Nothing is left behind.
    """
    path = single_file.check(path, ".keras")
    folded = fold_batchnorm(model)
    with writing.folder_aside(path.parent) as aside, writing.write_errors(path):
        folded.save(aside / path.name)
        content = (aside / path.name).read_bytes()
    single_file.write(path, content, _described(model, folded, path))
    return path


def how_to_load(path: str | os.PathLike[str], config: str) -> str:
    """The Python that loads a ``.keras`` file.

    Args:
        path: of the file.
        config: of its model, as JSON.
    """
    load = f"keras.saving.load_model({Path(path).name!r})"
    return f"import keras_deepnets; {load}" if '"keras_deepnets>' in config else load


def _described(model: keras.Model, folded: keras.Model, path: Path) -> dict[str, Any]:
    """The facts of the file as JSON values."""
    from keras_deepnets.models import includes_preprocessing, labels_of, scaling_of

    labels, scaling = labels_of(model), scaling_of(model)
    shapes = [list(tensor.shape[1:]) for tensor in folded.inputs]
    return {
        "name": model.name,
        "load": how_to_load(path, folded.to_json()),
        "architecture": getattr(model, "architecture", None),
        "parameters": model.count_params(),
        "labels": labels and list(labels),
        "input": {
            "shape": shapes[0] if len(shapes) == 1 else shapes,
            "scaled_inside": includes_preprocessing(model),
        },
        "scaling": scaling.to_dict() if isinstance(scaling, Scaling) else None,
        "batch_normalization": "folded",
        "software": model_card.software(),
        "created": model_card.now(),
    }


def inference_function(model: keras.Model) -> Callable[[Any], Any]:
    """The network of `fold_batchnorm` as a compiled function whose weights are constants: the fastest way to call it in Python.

    oneDNN lays out a convolution's weights for the processor once, where those of a model, which may change, are laid out at every
    call. That tells most in small batches (docs/benchmarks.md). The function has the weights as they are now: what `model` learns or
    loads later does not reach it. TensorFlow holds about eight copies of them; weights of more than 1.5 GB stay variables.

    Args:
        model: a functional or built sequential model on TensorFlow. It is left as it is.

    Returns:
        A function of one argument, inputs as `model` takes them (tensors or arrays of any dtype, batches of any size). It gives
        `model`'s outputs at inference, to rounding, as tensors. It may be called in other TensorFlow functions, in `tf.data` too.

    Raises:
        InputError: the model is not built or has no graph of layers, or Keras runs on another backend than TensorFlow. The function
            raises it for what is no batch of the network's inputs.
    """
    import keras

    if (backend := keras.backend.backend()) != "tensorflow":
        raise InputError(
            f"inference_function needs Keras on TensorFlow, and it runs on {backend}: call fold_batchnorm(model) there."
        )
    import tensorflow as tf

    folded = fold_batchnorm(model)
    weights = weight_precision.Weights(folded, "float32")
    signature = keras.tree.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), folded.input)

    def forward(inputs: Any) -> Any:
        with weights.in_graph():
            return folded(inputs, training=False)

    traced = tf.function(forward, input_signature=[signature], autograph=False).get_concrete_function()

    def infer(inputs: Any) -> Any:
        try:
            tensors = keras.tree.map_structure_up_to(signature, _as_tensor, inputs, signature)
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            taken = keras.tree.map_structure(lambda spec: tuple(spec.shape), signature)
            raise InputError(
                f"the network takes {taken}; it was given a {type(inputs).__name__} of other parts."
            ) from error
        return traced(tensors)

    return infer


def _as_tensor(value: Any, spec: tf.TensorSpec) -> tf.Tensor:
    """The value in the dtype that the network takes; InputError where it cannot be one of its batches."""
    import tensorflow as tf

    try:
        tensor = tf.cast(value, spec.dtype)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise InputError(f"the network takes numbers {spec.shape}, not a {type(value).__name__}.") from error
    if not spec.shape.is_compatible_with(tensor.shape):  # the traced function would not look, and TensorFlow abort
        raise InputError(f"the network takes {spec.shape}; it was given {tensor.shape}.")
    return tf.ensure_shape(tensor, spec.shape)
