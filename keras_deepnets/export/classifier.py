"""Facts about a model that every export needs, checked before anything is written."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_deepnets import graphs
from keras_deepnets.errors import InputError
from keras_deepnets.scaling import Scaling

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_PASSING_ON = ("Dropout", "Identity", "Reshape", "Flatten", "Cast")
_DISTRIBUTIONS = ("softmax", "sigmoid")


@dataclass(frozen=True)
class Classifier:
    """An image classifier ready for export.

    Attributes:
        model: The model, which computes in float32, with batch normalisation folded if requested.
        height: Height of the network's input, pixels.
        width: Width of the network's input, pixels.
        channels: 3 (RGB) or 1 (grey).
        labels: One name per output.
        scaling: Scaling of pixels 0–255 before `model`. None if the model takes them unscaled.
        crop_fraction: Crop fraction of the evaluation view.
        interpolation: Interpolation of the evaluation view.
        gives_logits: Whether `model` lacks the softmax.
        folded: Whether batch normalisation is folded.
    """

    model: keras.Model
    height: int
    width: int
    channels: int
    labels: tuple[str, ...]
    scaling: Scaling | None
    crop_fraction: float
    interpolation: str
    gives_logits: bool
    folded: bool

    @property
    def classes(self) -> int:
        """Number of outputs of the network."""
        return len(self.labels)

    def view(self, images: tf.Tensor) -> tf.Tensor:
        """Apply the evaluation view of the data pipeline: images uint8 ``[n, h, w, c]`` of any size to the network's input size, uint8."""
        from keras_deepnets.data import transforms

        return transforms.evaluation_view(
            images, self.height, self.width, self.channels, self.crop_fraction, self.interpolation
        )

    def probabilities(self, images: tf.Tensor) -> tf.Tensor:
        """Class probabilities float32 ``[n, classes]`` of images ``[n, height, width, channels]`` with values 0–255 (any dtype)."""
        return self.as_probabilities(self.model(self.scaled(images), training=False))

    def scaled(self, images: tf.Tensor) -> tf.Tensor:
        """Scale images with values 0–255 (any dtype) to the input range of `model`."""
        import tensorflow as tf

        images = tf.cast(images, tf.float32)
        if self.scaling is not None:
            images = self.scaling.apply(images)
        return tf.cast(images, self.model.inputs[0].dtype)

    def as_probabilities(self, outputs: tf.Tensor) -> tf.Tensor:
        """Convert the outputs of `model` to probabilities, float32."""
        import tensorflow as tf

        outputs = tf.cast(outputs, tf.float32)
        return tf.nn.softmax(outputs) if self.gives_logits else outputs


def classifier_of(
    model: keras.Model, labels: Sequence[str] | None = None, fold: bool = True, for_device: bool = False
) -> Classifier:
    """Check a model and prepare it for export. `model` itself is not changed.

    Args:
        model: A model with one image input of fixed size and one output of class probabilities or logits.
        labels: Names in the order of the outputs. Default: the model's own, else the numbers ``"0"``, ``"1"``, ….
        fold: Whether to fold batch normalisation.
        for_device: Whether to replace layers that quantise badly by equivalent ones.

    Raises:
        InputError: The model is not such a classifier, or there is not one label per output.
    """
    from keras_deepnets.models import without_auxiliary

    model = without_auxiliary(model)
    height, width, channels, classes = image_geometry(model)
    names = checked_labels(model, labels, classes)
    scaling, inside = _scaling(model, channels)
    logits = not _gives_probabilities(graphs.as_functional(model))
    return Classifier(
        model=for_inference(model, fold, for_device),
        height=height,
        width=width,
        channels=channels,
        labels=names,
        scaling=None if inside else scaling,
        crop_fraction=scaling.crop_fraction if scaling else 1.0,
        interpolation=scaling.interpolation if scaling else "bilinear",
        gives_logits=logits,
        folded=fold,
    )


def image_geometry(model: keras.Model) -> tuple[int, int, int, int]:
    """Height, width, channels and classes of an image classifier; raise InputError for any other model."""
    check_model(model)
    graph = graphs.as_functional(model)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise InputError(
            f"{model.name} has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; "
            "export takes one of each: pick them with keras.Model(input, output)."
        )
    shape, output = tuple(graph.inputs[0].shape), tuple(graph.outputs[0].shape)
    if len(shape) != 4 or shape[3] not in (1, 3):
        raise InputError(
            f"{model.name} takes {shape}; export takes images [batch, height, width, 1 or 3], channels last."
        )
    if None in shape[1:]:
        raise InputError(
            f"{model.name} takes images of any size {shape}; export needs one size: build it with input_shape=(height, width, {shape[3]})."
        )
    if len(output) != 2 or output[1] is None:
        raise InputError(
            f"{model.name} gives {output}; export takes a classifier [batch, classes]: build it with include_top=True."
        )
    return shape[1], shape[2], shape[3], output[1]


def check_model(model: keras.Model) -> None:
    """Raise InputError unless this is a Keras model."""
    import keras

    if not isinstance(model, keras.Model):
        raise InputError(
            f"export takes a keras.Model; it was given a {type(model).__name__}. Load the model with keras.saving.load_model."
        )


def checked_labels(model: keras.Model, labels: Sequence[str] | None, classes: int) -> tuple[str, ...]:
    """The names of the classes: those given, else the model's own, else ``"0"``, ``"1"``, …. Raise InputError unless one per class."""
    from keras_deepnets.models import labels_of

    if labels is None:
        labels = labels_of(model) or [str(number) for number in range(classes)]
    if isinstance(labels, str):
        raise InputError(f"labels={labels!r} is one string; give a list of {classes} names.")
    labels = tuple(str(label) for label in labels)
    if len(labels) != classes:
        raise InputError(
            f"{len(labels)} labels were given for the {classes} outputs of {model.name}; give one per class."
        )
    for label in labels:
        if label.splitlines() not in ([label], []):  # a trailing line break counts too
            raise InputError(f"label {label!r} has a line break; a labels file holds one name per line.")
    return labels


def _scaling(model: keras.Model, channels: int) -> tuple[Scaling | None, bool]:
    """The scaling that the network expects, and whether it is part of the network.

    Raises:
        InputError: A keras_deepnets network has no known scaling, or the scaling is for another number of channels.
    """
    from keras_deepnets.models import begins_like_ours, includes_preprocessing, scaling_of

    scaling, inside = scaling_of(model), includes_preprocessing(model)
    if scaling is not None and scaling.channels != channels:
        raise InputError(
            f"{model.name}.scaling is for {scaling.channels} channels, but its input has {channels}; "
            f"set a Scaling with {channels} means and deviations."
        )
    if said := unscaled(model):
        if begins_like_ours(model):
            raise InputError(said)
        warnings.warn(said, stacklevel=6)
    return scaling, inside


def unscaled(model: keras.Model) -> str | None:
    """A one-line message if the scaling of the input of `model` is unknown and the model does not scale it; else None."""
    from keras_deepnets.models import begins_like_ours, includes_preprocessing, scaling_of

    if scaling_of(model) is not None or includes_preprocessing(model):
        return None
    channels = model.inputs[0].shape[-1]
    identity = f"keras_deepnets.Scaling({(0.0,) * channels}, {(1.0,) * channels})"
    if begins_like_ours(model):
        return (
            f"{model.name}: it is not known how this network's input is scaled; set model.scaling = keras_deepnets.Scaling(mean, std), "
            f"or = {identity} for unscaled pixels 0–255."
        )
    return (
        f"{model.name}: it is not known how its input is scaled, so the artifact gives it pixels 0–255 unscaled. If the model needs "
        "scaled input, set model.scaling = keras_deepnets.Scaling(mean, std), or start the model with keras.layers.Rescaling."
    )


def _gives_probabilities(model: keras.Model) -> bool:
    """Whether the graph ends in a softmax or sigmoid, according to the operation that makes the output."""
    import keras

    tensor = model.outputs[0]
    while True:
        history = tensor._keras_history
        operation, name = history.operation, type(history.operation).__name__
        if isinstance(operation, keras.Sequential) or graphs.is_functional(operation):
            return _gives_probabilities(graphs.as_functional(operation))
        node = operation._inbound_nodes[history.node_index]
        activation = getattr(getattr(operation, "activation", None), "__name__", None)
        if name.lower() in _DISTRIBUTIONS or activation in _DISTRIBUTIONS:
            return True
        passes_on = name in _PASSING_ON or (name == "Activation" and activation == "linear")
        if not passes_on or not node.input_tensors:
            return False
        tensor = node.input_tensors[0]


def for_inference(model: keras.Model, fold: bool, for_device: bool) -> keras.Model:
    """The model in its exported form: folded, in float32, with layers that every runtime supports."""
    from keras_deepnets.export.folding import fold_batchnorm
    from keras_deepnets.export.substitutes import substitute
    from keras_deepnets.models import flat_layers

    if fold:
        model = fold_batchnorm(model)
    half = graphs.computes_in_half(model)
    if half or any(substitute(layer, for_device) for layer in flat_layers(model)):

        def new_layer(layer: Any) -> Any:
            kind = substitute(layer, for_device)
            return kind and graphs.same(layer, half, kind)

        model = graphs.rebuild(graphs.as_functional(model), full_precision=half, new_layer=new_layer)
    return model
