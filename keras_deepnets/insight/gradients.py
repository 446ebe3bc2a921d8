"""Gradients of class scores with respect to maps inside a network, on each backend of Keras."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras

Result = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Classes int64 ``[n]``, scores ``[n, classes]``, maps ``[n, h, w, c]`` and the gradient with respect to the maps, float32."""


def class_gradients(model: keras.Model, layer: keras.layers.Layer) -> Callable[[Any, np.ndarray | None], Result]:
    """Return a function that computes the gradient of one class score of each image with respect to the maps of a layer.

    Args:
        model: Model from images to two outputs: the maps and the scores.
        layer: Layer of the model that outputs the maps.

    Returns:
        A function of a batch of images ``[n, h, w, c]`` and of the class of each image. For None, it takes the class with
        the highest score.
    """
    import keras

    backends = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}
    return backends[keras.backend.backend()](model, layer)


def _on_tensorflow(model: keras.Model, layer: keras.layers.Layer) -> Callable[[Any, np.ndarray | None], Result]:
    import tensorflow as tf

    @tf.function(reduce_retracing=True)  # a graph leaves out the gradients of the weights
    def compute(images: Any, classes: Any) -> Any:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            maps, scores = model(images, training=False)
            scores = tf.cast(scores, tf.float32)
            classes = tf.argmax(scores, -1) if classes is None else classes
            picked = tf.gather(scores, classes, batch_dims=1)
        return classes, scores, tf.cast(maps, tf.float32), tf.cast(tape.gradient(picked, maps), tf.float32)

    def run(images: Any, classes: np.ndarray | None) -> Result:
        given = None if classes is None else tf.constant(classes, tf.int64)
        first, second, third, fourth = (each.numpy() for each in compute(tf.convert_to_tensor(images), given))
        return first, second, third, fourth

    return run


# Elsewhere, zeros are added to the maps: the gradient with respect to the zeros equals that of the maps.


@contextlib.contextmanager
def _added(layer: Any, zeros: Any) -> Iterator[None]:
    """Add `zeros` to the output of a layer during the block."""
    original = layer.call

    def call(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs) + zeros

    layer.call = call
    try:
        yield
    finally:
        layer.call = original


def _zeros(model: keras.Model, layer: Any, images: Any) -> np.ndarray:
    maps, _ = model.compute_output_shape(np.shape(images))
    return np.zeros(maps, "float32")


def _on_jax(model: keras.Model, layer: keras.layers.Layer) -> Callable[[Any, np.ndarray | None], Result]:
    import jax
    from jax import numpy as jnp

    def score(zeros: Any, state: Any, images: Any, classes: Any) -> Any:
        with _added(layer, zeros.astype(layer.compute_dtype)):
            (maps, scores), _ = model.stateless_call(*state, images, training=False)
        scores = scores.astype(jnp.float32)
        classes = jnp.argmax(scores, -1) if classes is None else classes
        picked = jnp.take_along_axis(scores, classes[:, None], -1)
        return picked.sum(), (classes, scores, maps.astype(jnp.float32))

    compute = jax.jit(jax.grad(score, has_aux=True))

    def run(images: Any, classes: np.ndarray | None) -> Result:
        state = [[each.value for each in some] for some in (model.trainable_variables, model.non_trainable_variables)]
        gradient, found = compute(_zeros(model, layer, images), state, images, classes)
        own, scores, maps = (np.asarray(each) for each in found)
        return own.astype(np.int64), scores, maps, np.asarray(gradient)

    return run


def _on_torch(model: keras.Model, layer: keras.layers.Layer) -> Callable[[Any, np.ndarray | None], Result]:
    import keras
    import torch

    def run(images: Any, classes: np.ndarray | None) -> Result:
        zeros = keras.ops.convert_to_tensor(_zeros(model, layer, images)).requires_grad_()
        with torch.enable_grad(), _added(layer, zeros.to(getattr(torch, layer.compute_dtype))):
            maps, scores = model(images, training=False)
            scores = scores.float()
            own = scores.argmax(-1) if classes is None else torch.as_tensor(classes, device=scores.device)
            (gradient,) = torch.autograd.grad(scores.gather(1, own[:, None]).sum(), [zeros])
        first, second, third, fourth = (each.detach().float().cpu().numpy() for each in (own, scores, maps, gradient))
        return first.astype(np.int64), second, third, fourth

    return run
