"""Training the classifier alone: its inputs are computed once, since the layers below it stand still."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


class Features(NamedTuple):
    """What a classifier sees of some images: float32 ``[n, features]``, with labels int64 ``[n]``."""

    values: np.ndarray
    labels: np.ndarray


@keras.saving.register_keras_serializable("keras_deepnets")
class HeadOnly(keras.Model):
    """The last layer of a network as a model of its own, on the same weights.

    A functional model would add a second node to the layer's graph, and Keras could no longer say what the layer's input is.

    Args:
        head: a built `keras.layers.Dense`.
    """

    def __init__(self, head: keras.layers.Dense, **kwargs: Any):
        super().__init__(**kwargs)
        self.head = head
        self.built = True

    def call(self, features):
        """Outputs ``[batch, classes]`` of features ``[batch, features]``."""
        return self.head(features)

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {"head": keras.saving.serialize_keras_object(self.head)}


def classifier_of(model: keras.Model) -> keras.layers.Dense:
    """The classifier of a network. Raises `InputError` where its last layer is not fully connected."""
    head = model.layers[-1]
    if not isinstance(head, keras.layers.Dense) or len(head.input.shape) != 2:
        raise InputError(
            f"Model {model.name!r} ends in {type(head).__name__} {head.name!r}. The recipe trains the classifier first: end the model "
            "in a Dense layer on pooled features, or set head_epochs=0."
        )
    return head


def features(model: keras.Model, batches: tf.data.Dataset, say: Callable[[int], None] | None = None) -> Features:
    """What the classifier of `model` sees of images at inference.

    Args:
        model: ends in a `Dense` layer.
        batches: (images, labels), once each, in a fixed order.
        say: is given the number of images done, after each batch.
    """
    trunk = keras.Model(model.inputs, classifier_of(model).input)
    values, labels = [], []
    done = 0
    for images, targets in batches.as_numpy_iterator():
        values.append(np.asarray(trunk.predict_on_batch(images), "float32"))
        labels.append(targets)
        done += len(targets)
        if say is not None:
            say(done)
    return Features(np.concatenate(values), np.concatenate(labels))


def training(known: Features, batch_size: int, seed: int, first_epoch: int) -> tf.data.Dataset:
    """Endless shuffled batches of features and labels, epoch after epoch; each is a function of `seed` and its number.

    A last, smaller batch of an epoch is left out, as by `feed.training`.
    """
    import tensorflow as tf

    count = len(known.labels)
    steps = count // batch_size
    with tf.device("CPU:0"):
        values, labels = tf.constant(known.values), tf.constant(known.labels)

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), tf.cast(number, tf.int64)])
        order = tf.random.experimental.stateless_shuffle(tf.range(count), key, alg="philox")

        def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            some = tf.ensure_shape(order[step * batch_size : (step + 1) * batch_size], [batch_size])
            return tf.gather(values, some), tf.gather(labels, some)

        return tf.data.Dataset.range(steps, output_type=tf.int32).map(batch)

    epochs = tf.data.Dataset.counter(start=first_epoch).flat_map(epoch)
    return epochs.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)).prefetch(2)


def evaluation(known: Features, batch_size: int = 4096) -> tf.data.Dataset:
    """All features and labels once, in their order."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(tuple(known)).batch(batch_size)
