"""The network for inference, with folded batch normalisation and no training layers: as a `.keras` file or a function."""

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
    """Write the network of `fold_batchnorm` as a ``.keras`` file, which is faster and for inference only.

    To read the file, import keras_deepnets and call ``keras.saving.load_model``. The import registers this library's layers. The JSON
    file next to it (``….keras.json``) contains this instruction and the network's input, labels and scaling.

    Args:
        model: A functional or built sequential model.
        path: The file to write, ``….keras``. An existing file and its JSON are replaced.

    Returns:
        The path.

    Raises:
        InputError: The model is not built or has no graph of layers, or the file cannot be written. No partial files remain.
    """
    from keras_deepnets.models import without_auxiliary

    path, model = single_file.check(path, ".keras"), without_auxiliary(model)
    folded = fold_batchnorm(model)
    with writing.folder_aside(path.parent) as aside, writing.write_errors(path):
        folded.save(aside / path.name)
        content = (aside / path.name).read_bytes()
    single_file.write(path, content, _described(model, folded, path))
    return path


def how_to_load(path: str | os.PathLike[str], config: str) -> str:
    """The Python code that loads a ``.keras`` file.

    Args:
        path: Path of the file.
        config: Config of its model, as JSON.
    """
    load = f"keras.saving.load_model({Path(path).name!r})"
    return f"import keras_deepnets; {load}" if '"keras_deepnets>' in config else load


def _described(model: keras.Model, folded: keras.Model, path: Path) -> dict[str, Any]:
    """The description of the file as JSON values."""
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
    """Compile the network of `fold_batchnorm` with its weights as constants: the fastest way to call it from Python.

    oneDNN arranges constant convolution weights for the processor once. The weights of a model may change, so oneDNN rearranges them at
    every call. The gain is largest for small batches (docs/benchmarks.md). The function keeps the current weights: later training or
    loading of `model` does not affect it. TensorFlow holds about eight copies of constants. Weights of more than 1.5 GB
    stay variables, and single weights of more than 64 MB.

    Args:
        model: A functional or built sequential model on TensorFlow. It is not changed.

    Returns:
        A function of one argument, the inputs as `model` takes them (tensors or arrays of any dtype, batches of any size). It returns
        the inference outputs of `model`, up to rounding, as tensors. Other TensorFlow functions and `tf.data` may call it too. For
        gradients call the model: some processors have none for the grouped convolutions of this graph.

    Raises:
        InputError: The model is not built or has no graph of layers, or Keras does not run on TensorFlow. The function also raises it
            if its argument is not a batch of the network's inputs.
    """
    import keras

    if (backend := keras.backend.backend()) != "tensorflow":
        raise InputError(
            f"inference_function needs Keras on TensorFlow, but Keras runs on {backend}; call fold_batchnorm(model) instead."
        )
    import tensorflow as tf

    folded = fold_batchnorm(model)
    weights = weight_precision.Weights(folded, "float32", largest=weight_precision.LARGEST_CONSTANT)
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
    """Convert the value to the dtype that the network takes; raise InputError if it cannot be one of its batches."""
    import tensorflow as tf

    try:
        tensor = tf.cast(value, spec.dtype)
    except (TypeError, ValueError, tf.errors.OpError) as error:
        raise InputError(f"the network takes numbers {spec.shape}, not a {type(value).__name__}.") from error
    if not spec.shape.is_compatible_with(
        tensor.shape
    ):  # the traced function would not check, and TensorFlow would abort
        raise InputError(f"the network takes {spec.shape}; it was given {tensor.shape}.")
    return tf.ensure_shape(tensor, spec.shape)
