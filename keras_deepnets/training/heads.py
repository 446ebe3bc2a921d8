"""Training of the classifier only. Its inputs are computed once, because the layers below it are frozen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np

from keras_deepnets import surgery
from keras_deepnets.data import parallel
from keras_deepnets.data.pipelines import Share
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


class Features(NamedTuple):
    """Inputs of a classifier, float32 ``[n, features]`` or maps ``[n, h, w, features]``, with labels int64 ``[n]``."""

    values: np.ndarray
    labels: np.ndarray

    def part(self, index: int, count: int) -> Features:
        """Return the ``index``-th of ``count`` runs of nearly equal size."""
        rows = slice(len(self.labels) * index // count, len(self.labels) * (index + 1) // count)
        return Features(self.values[rows], self.labels[rows])


@keras.saving.register_keras_serializable("keras_deepnets")
class HeadOnly(keras.Model):
    """The last layers of a network as a separate model that shares the weights.

    A functional model would add a second node to the graph of each layer. Keras could then no longer return the
    layer's input.

    Args:
        layers: Built layers: the classifier, then the layers without weights that follow it.
    """

    def __init__(self, layers: list[keras.layers.Layer], **kwargs: Any):
        super().__init__(**kwargs)
        self.head_layers = layers
        self.built = True

    def call(self, features):
        """Map inputs of the classifier to outputs ``[batch, classes]``."""
        for layer in self.head_layers:
            features = layer(features)
        return features

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"layers": [keras.saving.serialize_keras_object(layer) for layer in self.head_layers]}


def classifier_of(model: keras.Model) -> surgery.Classifier:
    """Return the classifier of a network; raise `InputError` if it ends in something else."""
    found = surgery.classifier_of(model)
    if found is None:
        last = model.layers[-1]
        raise InputError(
            f"Model {model.name!r} ends in {type(last).__name__} {last.name!r}. The recipe trains the classifier first: a Dense "
            "layer, or a 1×1 convolution and global average pooling. Change the model, or set head_epochs=0."
        )
    return found


def features(model: keras.Model, batches: tf.data.Dataset, say: Callable[[int], None] | None = None) -> Features:
    """Compute the inputs of the classifier of `model` for some images, at inference.

    Args:
        model: Model that ends in a classifier.
        batches: (images, labels), each image once, in a fixed order.
        say: Called with the number of images done after each batch.
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


def training(
    known: Features, batch_size: int, seed: int, first_epoch: int, share: Share | None = None
) -> tf.data.Dataset:
    """Return endless shuffled batches of features and labels, epoch after epoch.

    Each epoch is a function of `seed` and the epoch's number. A smaller last batch of an epoch is dropped, as in
    `feed.training`. `share` is the part of each batch that this worker reads.
    """
    import tensorflow as tf

    share = share or Share()
    count = len(known.labels)
    steps, own = count // batch_size, batch_size // share.count
    with tf.device("CPU:0"):
        values, labels = tf.constant(known.values), tf.constant(known.labels)

    def epoch(number: tf.Tensor) -> tf.data.Dataset:
        key = tf.stack([tf.constant(seed, tf.int64), tf.cast(number, tf.int64)])
        order = tf.random.experimental.stateless_shuffle(tf.range(count), key, alg="philox")

        def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            start = step * batch_size + share.index * own
            some = tf.ensure_shape(order[start : start + own], [own])
            return tf.gather(values, some), tf.gather(labels, some)

        return tf.data.Dataset.range(steps, output_type=tf.int32).map(batch)

    epochs = tf.data.Dataset.counter(start=first_epoch).flat_map(epoch)
    endless = epochs.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    return endless.prefetch(parallel.READY).with_options(parallel.options())


def evaluation(known: Features, batch_size: int = 4096) -> tf.data.Dataset:
    """Return all features and labels once, in order."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(tuple(known)).batch(batch_size).with_options(parallel.options())
