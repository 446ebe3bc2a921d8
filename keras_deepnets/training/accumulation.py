"""Training steps that compute a batch in parts, one after the other, because the whole batch does not fit in memory."""

from __future__ import annotations

from typing import Any

import keras

from keras_deepnets.errors import InputError


def in_parts(model: keras.Model, parts: int) -> None:
    """Make each training step of a model compute the batch in parts. The optimizer still makes one update per batch.

    Gradients, losses and metrics are those of the whole batch. Batch normalisation uses the statistics of each part.

    Args:
        model: Compiled model. It keeps this step until its `train_step` is deleted.
        parts: Number of parts. It divides the batch.

    Raises:
        InputError: Keras does not run on TensorFlow.
    """
    if keras.backend.backend() != "tensorflow":
        raise InputError(f"accumulate={parts} needs Keras on TensorFlow; it runs on {keras.backend.backend()}.")
    import tensorflow as tf

    def train_step(data: Any) -> dict[str, Any]:
        pieces = [None if tensor is None else tf.split(tensor, parts) for tensor in tf.nest.flatten(data)]
        weights = model.trainable_weights
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        total: list[Any] = [None] * len(weights)
        found: dict[str, Any] = {}
        for part in range(parts):
            # Without this order, TensorFlow would compute the parts at the same time and need the memory of the whole batch.
            with tf.control_dependencies([gradient for gradient in total if gradient is not None]):
                some = [None if piece is None else tf.identity(piece[part]) for piece in pieces]
            own = tf.nest.pack_sequence_as(data, some)
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(own)
            with tf.GradientTape() as tape:
                outputs = model(x, training=True)
                loss = model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=True)
                scaled = model.optimizer.scale_loss(loss)
            model.metrics[0].update_state(loss * replicas, sample_weight=tf.shape(tf.nest.flatten(x)[0])[0])
            gradients = tape.gradient(scaled, weights)
            total = [new if old is None else old + new for old, new in zip(total, gradients, strict=True)]
            found = model.compute_metrics(x, y, outputs, sample_weight)
        means = [None if gradient is None else gradient / parts for gradient in total]
        model.optimizer.apply_gradients(zip(means, weights, strict=True))
        return found

    model.train_step = train_step
