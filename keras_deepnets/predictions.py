"""Convert images to a network's input, and its outputs to class names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.labels import imagenet_classes

if TYPE_CHECKING:
    import keras


def preprocess_input(x: Any, model: keras.Model | str) -> Any:
    """Scale images with values 0–255 as a network expects them.

    Args:
        x: ``[…, height, width, channels]`` RGB, uint8 or float, as a NumPy array or a tensor; it is not changed.
        model: model, or name of a network. If the model scales its input itself, the images are only cast to float32.

    Returns:
        float32 images of the same shape.

    Raises:
        ValueError: the name is unknown, the scaling of the model is unknown, or the number of channels differs.
    """
    import numpy as np

    from keras_deepnets import registry

    if isinstance(model, str):
        facts = registry.constructor_of(model).facts
        if not facts.row:
            raise InputError(f"{model} is a builder of many networks; pass the model itself.")
        name, scaling, inside = model, facts.spec.domain.scaling, False
    else:
        from keras_deepnets.models import includes_preprocessing, scaling_of

        name, scaling, inside = model.name, scaling_of(model), includes_preprocessing(model)
    if scaling is None:
        raise InputError(
            f"{name}: the input scaling is unknown; set model.scaling = keras_deepnets.Scaling(mean, std)."
        )
    if x.shape[-1] != scaling.channels:
        raise InputError(
            f"{name} takes {scaling.channels} channels and the images have {x.shape[-1]} (shape {tuple(x.shape)})."
        )
    if not hasattr(x, "__array_interface__"):
        from keras import ops

        x = ops.cast(x, "float32")
        return x if inside else scaling.apply(x)
    return np.array(x, "float32") if inside else scaling.apply(np.asarray(x, "float32"))


def decode_predictions(
    probabilities: Any, top: int = 5, labels: Sequence[str] | keras.Model | None = None
) -> list[list[tuple[str, str, float]]]:
    """Return the most probable classes of each image.

    Args:
        probabilities: ``[n, classes]``.
        top: number of classes to return, most probable first.
        labels: class names, or a model that has them. None selects ImageNet's names if there are 1,000 classes.

    Returns:
        For each image, `top` triples of id, name and probability. The id is WordNet's for ImageNet, otherwise the index as text.

    Raises:
        ValueError: the probabilities are not two-dimensional, the class names are unknown, or their number differs from the classes.
    """
    import numpy as np

    probabilities = np.asarray(probabilities)
    if probabilities.ndim != 2:
        raise InputError(f"probabilities must be [n, classes]; their shape is {probabilities.shape}.")
    classes = probabilities.shape[1]
    if not isinstance(top, int) or top < 1:
        raise InputError(f"top={top!r} must be a whole number of at least 1.")
    labels = getattr(labels, "labels", labels)
    if labels is not None:
        names = [(str(index), str(label)) for index, label in enumerate(labels)]
    elif classes == 1000:
        names = list(imagenet_classes())
    else:
        raise InputError(f"The names of the {classes} classes are unknown; pass labels=[…] or labels=model.")
    if len(names) != classes:
        raise InputError(f"{len(names)} labels were given for {classes} classes; give one label per class.")
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    return [
        [(*names[index], float(row[index])) for index in order] for row, order in zip(probabilities, best, strict=True)
    ]
