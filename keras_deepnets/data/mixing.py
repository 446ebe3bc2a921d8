"""Keras' MixUp, CutMix and RandomErasing as pure functions of a batch and its random numbers.

The Keras layers use a `SeedGenerator`, whose state counts their calls. What an image gets would therefore depend on earlier calls.
Here each call gets a generator seeded with the pipeline's own numbers for the batch, so a resumed run sees the same images.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_deepnets.data.channels import to_dtype
from keras_deepnets.data.colour import seeds
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


def mixup(images: tf.Tensor, targets: tf.Tensor, draws: tf.Tensor, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Blend each image and its target with another one of the batch: λ·x + (1 - λ)·x', λ from Beta(α, α).

    Args:
        images: uint8 ``[b, h, w, c]``.
        targets: float32 ``[b, classes]``.
        draws: float32 ``[b, 2]`` in [0, 1).
        alpha: Parameter of the Beta distribution. 0 leaves images and targets unchanged.
    """
    return _mixed("MixUp", images, targets, draws, alpha=alpha) if alpha else (images, targets)


def cutmix(images: tf.Tensor, targets: tf.Tensor, draws: tf.Tensor, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Paste a box of another image of the batch into each image, and mix the targets by area.

    The share of the area comes from Beta(α, α). The arguments are those of `mixup`.
    """
    return _mixed("CutMix", images, targets, draws, factor=(alpha, alpha)) if alpha else (images, targets)


def erase(images: tf.Tensor, draws: tf.Tensor, probability: float) -> tf.Tensor:
    """Fill a box of an image with noise. The box covers 2 to 33 % of the area.

    Args:
        images: uint8 ``[b, h, w, c]``.
        draws: float32 ``[b, 2]`` in [0, 1).
        probability: Share of the images that get a box.
    """
    import tensorflow as tf

    if not 0 <= probability <= 1:
        raise InputError(f"random_erasing: probability={probability} must be in [0, 1].")
    layer = _layer("RandomErasing", factor=(1.0, 1.0), scale=(0.02, 0.33))
    erased = _run(layer, images, draws, lambda change: layer.transform_images(tf.cast(images, tf.float32), change))
    return tf.where(draws[:, 1, None, None, None] < probability, to_dtype(erased, images.dtype), images)


def _mixed(kind: str, images: Any, targets: Any, draws: Any, **arguments: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    layer = _layer(kind, **arguments)

    def both(change: Any) -> tuple[Any, Any]:
        values = layer.transform_images(tf.cast(images, tf.float32), change)
        return tf.ensure_shape(to_dtype(values, images.dtype), images.shape), layer.transform_labels(targets, change)

    return _run(layer, images, draws, both)


@functools.cache
def _layer(kind: str, **arguments: Any) -> Any:
    import keras

    return getattr(keras.layers, kind)(**arguments, data_format="channels_last", dtype="float32")


def _run(layer: Any, images: Any, draws: Any, apply: Callable[[Any], Any]) -> Any:
    """Call `apply` on the layer's random transformation of `images`, seeded with the first row of `draws`."""
    # Under another Keras backend these layers must be told to compute with TensorFlow inside tf.data.
    layer.backend.set_backend("tensorflow")
    try:
        return apply(layer.get_random_transformation(images, training=True, seed=_seeds(draws)))
    finally:
        layer.backend.reset()


def _seeds(draws: Any) -> Any:
    """A stateless Keras seed generator: the n-th seed is a function of `draws` and n."""
    import keras
    import tensorflow as tf

    class Seeds(keras.random.SeedGenerator):
        def __init__(self):
            self._base, self._count = seeds(draws[0]), 0

        def next(self, ordered=True):
            self._count += 1
            return tf.bitcast(
                tf.random.experimental.stateless_fold_in(self._base, self._count, alg="philox"), tf.uint32
            )

    return Seeds()
