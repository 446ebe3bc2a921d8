"""The graph of a SavedModel: signatures for encoded images and pixels, and the network with its weights as constants."""

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
    """Options of a SavedModel's graph.

    Attributes:
        precision: Dtype of the stored weights, one of `weight_precision.STORED`.
        top_k: Number of most probable classes to return in addition to the first, or None.
        features: Whether to return the classifier's input.
        image_size: Height and width that `serving_images` takes. None: any.
        batch_size: Batch size that both signatures take. None: any.
        on_error: Effect of a broken image on its batch, one of `ON_ERROR`.
        max_pixels: Limit on the pixels of an encoded image.
    """

    precision: str = "float32"
    top_k: int | None = None
    features: bool = False
    image_size: tuple[int, int] | None = None
    batch_size: int | None = None
    on_error: str = "fail"
    max_pixels: int = decoding.MAX_PIXELS

    def __post_init__(self) -> None:
        """Raise `InputError` for an invalid value."""
        if self.precision not in weight_precision.STORED:
            raise InputError(f"precision={self.precision!r} is not one of {', '.join(weight_precision.STORED)}.")
        if self.on_error not in ON_ERROR:
            raise InputError(f"on_error={self.on_error!r} is not one of {', '.join(ON_ERROR)}.")
        for name in ("top_k", "batch_size"):
            if getattr(self, name) is not None and not _is_count(getattr(self, name)):
                raise InputError(
                    f"{name}={getattr(self, name)!r} is not a whole number from 1; leave it out for the default."
                )
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
    """The contents of a SavedModel.

    Attributes:
        module: The trackable object: functions, and the weights that are variables.
        signatures: Concrete functions by name.
        place: Where the weights are (`weight_precision.Weights.place`).
    """

    module: tf.Module
    signatures: dict[str, Any]
    place: str


def serving(classifier: Classifier, options: Options) -> Serving:
    """Build the trackable object and its signatures.

    Raises:
        InputError: `top_k` exceeds the number of classes, or `features` is set for a network without a final classifier. The network
            needs operations that a server lacks.
    """
    import tensorflow as tf

    from keras_deepnets.data import transforms

    if options.top_k is not None and options.top_k > classifier.classes:
        raise InputError(
            f"top_k={options.top_k} is more than the {classifier.classes} classes of {classifier.model.name}; ask for fewer."
        )
    if options.precision == "bfloat16":
        classifier = dataclasses.replace(classifier, model=weight_precision.computing_in_bfloat16(classifier.model))
    network = with_features(classifier.model) if options.features else classifier.model
    module = tf.Module()
    weights = weight_precision.Weights(network, options.precision, largest=weight_precision.LARGEST_CONSTANT)
    names = tf.constant(classifier.labels)
    view_shape = (classifier.height, classifier.width, classifier.channels)
    batch = options.batch_size

    # A separate function, so that the file holds the network once and not once per signature.
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

    # Decoding has no XLA kernel and images differ in size. So decode one by one and never inside a compiled function.
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
    # Exactly the variables that the graphs read: no optimizer, no seeds, no training state. Empty if the weights are constant.
    variables = [variable for signature in signatures.values() for variable in signature.graph.variables]
    module.weights = list({id(variable): variable for variable in variables}.values())
    return Serving(module, signatures, weights.place)


def _at_least_one(views: tf.Tensor) -> tf.Tensor:
    """The views, or a black one if there are none, because fused convolutions fail on empty batches."""
    import tensorflow as tf

    missing = tf.cast(tf.equal(tf.shape(views)[0], 0), tf.int32)
    return tf.ensure_shape(tf.pad(views, [[0, missing], [0, 0], [0, 0], [0, 0]]), [None, *views.shape[1:]])


def _only(good: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """The value for good rows; NaN, -1 or an empty string for the others."""
    import tensorflow as tf

    nothing = {tf.float32: float("nan"), tf.int64: -1, tf.string: ""}[value.dtype]
    return tf.where(tf.reshape(good, [-1] + [1] * (value.shape.rank - 1)), value, tf.constant(nothing, value.dtype))


def with_features(model: keras.Model) -> keras.Model:
    """The network with a second output, the input of its last dense layer.

    If the classes are averages of maps, it is the average of the maps that the last convolution reads.

    Raises:
        InputError: The network does not end in such a classifier.
    """
    import keras

    from keras_deepnets.surgery import classifier_of

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
    if (found := classifier_of(graph)) is not None:
        features = keras.layers.GlobalAveragePooling2D(data_format="channels_last")(found.input)
        return keras.Model(graph.inputs[0], [graph.outputs[0], features], name=graph.name)
    raise InputError(
        f"features=True: {model.name} does not end in a dense layer on a vector of features; leave features out, or export one that does."
    )


def _is_model(operation: Any) -> bool:
    import keras

    return isinstance(operation, keras.Model)
