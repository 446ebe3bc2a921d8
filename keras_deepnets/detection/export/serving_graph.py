"""The graph of a detector's SavedModel: decode, resize and pad images, find objects, and return boxes in pixels of the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_deepnets.detection.export.prepared import Prepared
from keras_deepnets.detection.resizing import STRIDE
from keras_deepnets.export import decoding, operations, weight_precision
from keras_deepnets.export.signatures import Options, Serving

if TYPE_CHECKING:
    import tensorflow as tf

SKIPPED = -1
"""Value of ``count`` for an image that cannot be decoded."""


def serving(found: Prepared, options: Options) -> Serving:
    """Build the trackable object and its signatures.

    Raises:
        InputError: The network needs operations that a server lacks.
    """
    import tensorflow as tf

    from keras_deepnets.data import transforms

    module = tf.Module()
    weights = weight_precision.Weights(found.model, options.precision, largest=weight_precision.LARGEST_CONSTANT)
    names = tf.constant(found.labels)
    whole = tf.TensorSpec([None, 2], tf.int32)

    # A separate function, so that the file holds the network once and not once per signature.
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32), whole, whole], autograph=False)
    def find(images: tf.Tensor, sizes: tf.Tensor, originals: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(images)[0]
        # At least one image, because fused convolutions fail on empty batches.
        missing = tf.cast(tf.equal(count, 0), tf.int32)
        padding = [[0, missing], *([0, -tf.shape(images)[axis] % STRIDE] for axis in (1, 2)), [0, 0]]
        inputs = {
            "images": tf.ensure_shape(tf.pad(images, padding), [None, None, None, 3]),
            "sizes": tf.ensure_shape(tf.pad(sizes, [[0, missing], [0, 0]], constant_values=1), [None, 2]),
        }
        with weights.in_graph():
            outputs = found.model(inputs, training=False)
        outputs = {name: value[:count] for name, value in outputs.items()}
        ratios = tf.cast(originals, tf.float32) / tf.cast(sizes, tf.float32)
        boxes = outputs["boxes"] * tf.gather(ratios, [1, 0, 1, 0], axis=1)[:, tf.newaxis]
        valid = tf.sequence_mask(outputs["count"], found.most)
        return {
            "boxes": tf.ensure_shape(boxes, [None, found.most, 4]),
            "scores": tf.cast(outputs["scores"], tf.float32),
            "classes": tf.cast(outputs["labels"], tf.int64),
            "labels": tf.where(valid, tf.gather(names, outputs["labels"]), ""),
            "count": outputs["count"],
        }

    def view(encoded: tf.Tensor) -> tuple[tf.Tensor, ...]:
        image = transforms.decode(decoding.checked(encoded, options.max_pixels))
        original = tf.shape(image)[:2]
        size = resized_size(original, found.min_size, found.max_size)
        return resized(image[tf.newaxis], size)[0], size, original

    # Decoding has no XLA kernel and images differ in size. So decode one by one and never inside a compiled function.
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")], autograph=False)
    def serving_default(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        one = tf.ones([2], tf.int32)
        (images, sizes, originals), good = decoding.each(image_bytes, view, (tf.zeros([1, 1, 3]), one, one))
        if options.on_error == "skip":
            return {name: _only(good, name, value) for name, value in find(images, sizes, originals).items()}
        with tf.control_dependencies([decoding.require_all(good, options.max_pixels)]):
            return find(tf.identity(images), sizes, originals)

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="images")],
        autograph=False,
    )
    def serving_images(images: tf.Tensor) -> dict[str, tf.Tensor]:
        shape = tf.shape(images)
        size = resized_size(shape[1:3], found.min_size, found.max_size)
        same = [tf.tile(each[tf.newaxis], [shape[0], 1]) for each in (size, shape[1:3])]
        return find(resized(images, size), *same)

    signatures = {
        "serving_default": serving_default.get_concrete_function(),
        "serving_images": serving_images.get_concrete_function(),
    }
    operations.check(signatures["serving_images"].graph.as_graph_def(), found.model.name)
    # Exactly the variables that the graphs read. Empty if the weights are constant.
    variables = [variable for signature in signatures.values() for variable in signature.graph.variables]
    module.weights = list({id(variable): variable for variable in variables}.values())
    return Serving(module, signatures, weights.place)


def resized_size(size: tf.Tensor, min_size: int, max_size: int) -> tf.Tensor:
    """`resizing.resized_size` in a graph: height and width, int32 ``[2]``, to int32 ``[2]``."""
    import tensorflow as tf

    sides = tf.cast(size, tf.float64)
    scale = tf.minimum(min_size / tf.reduce_min(sides), max_size / tf.reduce_max(sides))
    return tf.maximum(1, tf.cast(sides * scale, tf.int32))


def resized(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """`resizing.resized` of a batch without a copy in float32: uint8 ``[n, h, w, 3]`` to float32 ``[n, *size, 3]``."""
    import tensorflow as tf

    found: Any = tf.raw_ops.ResizeBilinear(images=images, size=size, half_pixel_centers=True)
    return found


def _only(good: tf.Tensor, name: str, value: tf.Tensor) -> tf.Tensor:
    """The value for good images; zeros, empty strings or the count `SKIPPED` for the others."""
    import tensorflow as tf

    nothing = "" if value.dtype == tf.string else SKIPPED if name == "count" else 0
    return tf.where(tf.reshape(good, [-1] + [1] * (value.shape.rank - 1)), value, tf.constant(nothing, value.dtype))
