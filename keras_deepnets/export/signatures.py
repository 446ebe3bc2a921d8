"""The graph of a SavedModel: signatures that take images as they come, and the network with its weights as constants."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_deepnets import graphs
from keras_deepnets.errors import InputError
from keras_deepnets.export import decoding, operations, weight_precision
from keras_deepnets.export.classifier import Classifier

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

ON_ERROR = ("fail", "skip")


@dataclass(frozen=True)
class Options:
    """What is asked of a SavedModel's graph.

    Attributes:
        precision: in which weights are stored, one of `weight_precision.STORED`.
        top_k: how many of the most probable classes are given beside the first, or None.
        features: whether the classifier's input is given.
        image_size: height and width that `serving_images` takes; None: any.
        batch_size: that both signatures take; None: any.
        on_error: what a broken image does to its batch, one of `ON_ERROR`.
        max_pixels: of an encoded image.
    """

    precision: str = "float32"
    top_k: int | None = None
    features: bool = False
    image_size: tuple[int, int] | None = None
    batch_size: int | None = None
    on_error: str = "fail"
    max_pixels: int = decoding.MAX_PIXELS

    def __post_init__(self) -> None:
        """Raises `InputError` for a value that cannot be."""
        if self.precision not in weight_precision.STORED:
            raise InputError(f"precision={self.precision!r} is not one of {', '.join(weight_precision.STORED)}.")
        if self.on_error not in ON_ERROR:
            raise InputError(f"on_error={self.on_error!r} is not one of {', '.join(ON_ERROR)}.")
        for name in ("top_k", "batch_size"):
            if getattr(self, name) is not None and not _is_count(getattr(self, name)):
                raise InputError(f"{name}={getattr(self, name)!r} is not a whole number from 1; leave it out for none.")
        if not _is_count(self.max_pixels):
            raise InputError(f"max_pixels={self.max_pixels!r} is not a whole number from 1.")
        if self.image_size is not None:
            size = (self.image_size,) * 2 if _is_count(self.image_size) else self.image_size
            if not (isinstance(size, (tuple, list)) and len(size) == 2 and all(map(_is_count, size))):
                raise InputError(
                    f"image_size={self.image_size!r} is neither a side nor (height, width) in pixels; leave it out for any size."
                )
            object.__setattr__(self, "image_size", tuple(size))


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


@dataclass(frozen=True)
class Serving:
    """What is saved.

    Attributes:
        module: the trackable object: functions, and variables where the weights are no constants.
        signatures: name → concrete function.
        constant: whether the weights are in the graph.
    """

    module: tf.Module
    signatures: dict[str, Any]
    constant: bool


def serving(classifier: Classifier, options: Options) -> Serving:
    """The trackable object and its signatures.

    Raises:
        InputError: more classes are asked for than there are, or features of a network without a classifier at its end; or the network
            is made of what a server does not have.
    """
    import tensorflow as tf

    from keras_deepnets.data import transforms

    if options.top_k is not None and options.top_k > classifier.classes:
        raise InputError(
            f"top_k={options.top_k} is more than the {classifier.classes} classes of {classifier.model.name}; ask for fewer."
        )
    if options.precision == "bfloat16":
        classifier = dataclasses.replace(classifier, model=weight_precision.computing_in_bfloat16(classifier.model))
    network = _with_features(classifier.model) if options.features else classifier.model
    module = tf.Module()
    weights = weight_precision.Weights(network, options.precision)
    names = tf.constant(classifier.labels)
    view_shape = (classifier.height, classifier.width, classifier.channels)
    batch = options.batch_size

    # A function of its own, so that the network is in the file once and not once a signature.
    @tf.function(input_signature=[tf.TensorSpec([batch, *view_shape], tf.uint8)], autograph=False)
    def classify(views: tf.Tensor) -> dict[str, tf.Tensor]:
        given = views if batch is not None else _at_least_one(views)
        with weights.in_graph():
            outputs = network(classifier.scaled(given), training=False)
        outputs = outputs if options.features else [outputs]
        if batch is None:
            outputs = [output[: tf.shape(views)[0]] for output in outputs]
        output, *features = outputs
        probabilities = tf.ensure_shape(classifier.as_probabilities(output), [batch, classifier.classes])
        classes = tf.argmax(probabilities, axis=-1, output_type=tf.int64)
        results = {"probabilities": probabilities, "classes": classes, "labels": tf.gather(names, classes)}
        if features:
            results["features"] = tf.cast(features[0], tf.float32)
        if options.top_k is not None:
            best, indices = tf.math.top_k(probabilities, options.top_k)
            indices = tf.cast(indices, tf.int64)
            results |= {"top_probabilities": best, "top_classes": indices, "top_labels": tf.gather(names, indices)}
        return results

    def view_of_bytes(encoded: tf.Tensor) -> tf.Tensor:
        return classifier.view(transforms.decode(decoding.checked(encoded, options.max_pixels))[tf.newaxis])[0]

    # Decoding has no XLA kernel and images differ in size: one by one, never inside a compiled function.
    @tf.function(input_signature=[tf.TensorSpec([batch], tf.string, name="image_bytes")], autograph=False)
    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        views, good = decoding.views(image_bytes, view_of_bytes, view_shape)
        views.set_shape([batch, *view_shape])
        if options.on_error == "skip":
            return {name: _only(good, value) for name, value in classify(views).items()}
        with tf.control_dependencies([decoding.require_all(good, options.max_pixels)]):
            return classify(tf.identity(views))

    size = options.image_size or (None, None)

    @tf.function(input_signature=[tf.TensorSpec([batch, *size, 3], tf.uint8, name="images")], autograph=False)
    def serving_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return classify(classifier.view(images))

    signatures = {
        "serving_default": serving_default.get_concrete_function(),
        "serving_images": serving_images.get_concrete_function(),
    }
    operations.check(signatures["serving_images"].graph.as_graph_def(), classifier.model.name)
    # Exactly what the graphs read: no optimizer, no seeds, nothing that only training needs; nothing at all where it is constant.
    variables = [variable for signature in signatures.values() for variable in signature.graph.variables]
    module.weights = list({id(variable): variable for variable in variables}.values())
    return Serving(module, signatures, weights.constant)


def _at_least_one(views: tf.Tensor) -> tf.Tensor:
    """The views, or a black one where there are none: fused convolutions fail on nothing."""
    import tensorflow as tf

    missing = tf.cast(tf.equal(tf.shape(views)[0], 0), tf.int32)
    return tf.ensure_shape(tf.pad(views, [[0, missing], [0, 0], [0, 0], [0, 0]]), [None, *views.shape[1:]])


def _only(good: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """The rows that are good; NaN, -1 or an empty text in the others."""
    import tensorflow as tf

    nothing = {tf.float32: float("nan"), tf.int64: -1, tf.string: ""}[value.dtype]
    return tf.where(tf.reshape(good, [-1] + [1] * (value.shape.rank - 1)), value, tf.constant(nothing, value.dtype))


def _with_features(model: keras.Model) -> keras.Model:
    """The network with a second output: what its last dense layer takes.

    Raises:
        InputError: the network does not end in one.
    """
    import keras

    graph = graphs.as_functional(model)
    tensor = graph.outputs[0]
    while True:
        history = tensor._keras_history
        operation = history.operation
        if isinstance(operation, keras.layers.InputLayer) or _is_model(operation):
            break
        source = operation._inbound_nodes[history.node_index].input_tensors[0]
        if isinstance(operation, keras.layers.Dense):
            return keras.Model(graph.inputs[0], [graph.outputs[0], source], name=graph.name)
        if len(source.shape) != 2:
            break
        tensor = source
    raise InputError(
        f"features=True: {model.name} does not end in a dense layer on a vector of features; leave it out, or export such a network."
    )


def _is_model(operation: Any) -> bool:
    import keras

    return isinstance(operation, keras.Model)
