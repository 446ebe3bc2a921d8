"""Training steps that compute a batch in parts, one after the other, because the whole batch does not fit in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


def in_parts(model: keras.Model, parts: int) -> None:
    """Make each training step of a model compute the batch in parts. The optimizer still makes one update per batch.

    Gradients, losses and metrics are those of the whole batch. Batch normalisation uses the statistics of each part. The
    losses of a detector are the means of those of the parts, each of which counts its own sampled anchors and regions.

    Args:
        model: Compiled model. It keeps this step until its `train_step` is deleted.
        parts: Number of parts. It divides the batch.
    """
    model.train_step = _STEPS[keras.backend.backend()](model, parts)


def _under_tensorflow(model: keras.Model, parts: int) -> Callable[[Any], dict[str, Any]]:
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

    return train_step


def _under_jax(model: Any, parts: int) -> Callable[[Any, Any], tuple[Any, Any]]:
    import jax

    gradient_of = jax.value_and_grad(model.compute_loss_and_updates, has_aux=True)

    def split(tensor: Any) -> Any:
        # Every device of several then has its share of each part.
        return tensor.reshape(tensor.shape[0] // parts, parts, *tensor.shape[1:]).swapaxes(0, 1)

    def train_step(state: Any, data: Any) -> tuple[Any, Any]:
        trainable, others, optimizer_variables, metrics = state

        def one_part(carried: Any, some: Any) -> tuple[Any, Any]:
            others, metrics, total = carried
            x, y, sample_weight = some
            (_, (loss, outputs, others, metrics)), gradients = gradient_of(
                trainable,
                others,
                metrics,
                x,
                y,
                sample_weight,
                training=True,
                optimizer_variables=optimizer_variables,
            )
            logs, metrics = model._update_metrics_variables(metrics, loss, x, y, outputs, sample_weight)
            return (others, metrics, jax.tree.map(jax.numpy.add, total, gradients)), logs

        nothing = jax.tree.map(jax.numpy.zeros_like, trainable)
        pieces = jax.tree.map(split, keras.utils.unpack_x_y_sample_weight(data))
        (others, metrics, total), logs = jax.lax.scan(one_part, (others, metrics, nothing), pieces)
        means = [gradient / parts for gradient in total]
        trainable, optimizer_variables = model.optimizer.stateless_apply(optimizer_variables, means, trainable)
        return jax.tree.map(lambda values: values[-1], logs), (trainable, others, optimizer_variables, metrics)

    return train_step


def _under_torch(model: Any, parts: int) -> Callable[[Any], dict[str, Any]]:
    import torch

    def train_step(data: Any) -> dict[str, Any]:
        tensors = [
            None if tensor is None else keras.ops.convert_to_tensor(tensor) for tensor in keras.tree.flatten(data)
        ]
        pieces = [None if tensor is None else tensor.chunk(parts) for tensor in tensors]
        found: dict[str, Any] = {}
        model.zero_grad()
        for part in range(parts):
            some = [None if piece is None else piece[part] for piece in pieces]
            own = keras.tree.pack_sequence_as(data, some)
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(own)
            outputs = model(x, training=True)
            loss = model.compute_loss(x=x, y=y, y_pred=outputs, sample_weight=sample_weight, training=True)
            model.metrics[0].update_state(loss.detach(), sample_weight=len(keras.tree.flatten(x)[0]))
            model.optimizer.scale_loss(loss / parts).backward()  # adds to the gradients
            found = model.compute_metrics(x, y, outputs, sample_weight)
        weights = model.trainable_weights
        with torch.no_grad():
            model.optimizer.apply([weight.value.grad for weight in weights], weights)
        return found

    return train_step


_STEPS: dict[str, Callable[[Any, int], Callable[..., Any]]] = {
    "tensorflow": _under_tensorflow,
    "jax": _under_jax,
    "torch": _under_torch,
}
