"""Speed of RandAugment, MixUp, CutMix and random erasing inside tf.data: this library's policies, Keras' and keras-cv's layers.

    python -m benchmarks.augmenting [--seconds 3]

One `map` augments the same in-memory batch repeatedly. keras-cv is skipped if it is not installed. The table also shows whether two
passes over the same data give the same images, which this library requires of its augmentations.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

SIZES = ((128, 32), (64, 224))
"""Batch size and image side in pixels."""

WINDOWS = 5
CLASSES = 10
METHODS = ("RandAugment", "MixUp", "CutMix", "random erasing")
_OURS = dict(zip(METHODS, ("rand_augment(9)", "mixup(0.2)", "cutmix(1.0)", "random_erasing(1.0)"), strict=True))

Augment = Callable[["tf.Tensor", "tf.Tensor", "tf.Tensor"], "tuple[tf.Tensor, tf.Tensor]"]
"""Function from images uint8 ``[b, h, w, 3]``, targets float32 ``[b, 10]`` and the batch's number to images and targets."""


def ours(method: str) -> Augment:
    """The library's policy, with random numbers drawn as in the pipelines."""
    import tensorflow as tf

    from keras_deepnets.data import augmentation

    policy = augmentation.get(_OURS[method])

    def augment(images, targets, number):
        seed = tf.stack([tf.constant(0, tf.int64), number])
        draws = tf.random.stateless_uniform([images.shape[0], policy.draws], seed, alg="philox")
        return policy.mix(images, targets, draws) if policy.mix else (policy.batch(images, draws), targets)

    return augment


def of_layer(layer: Any, method: str) -> Augment:
    """Wrap a layer of Keras or keras-cv. Mixing layers get images and labels, other layers only images."""
    import tensorflow as tf

    from keras_deepnets.data.channels import to_dtype

    mixes = method in ("MixUp", "CutMix")

    def augment(images, targets, number):
        values = tf.cast(images, tf.float32)
        if not mixes:
            return to_dtype(layer(values, training=True), tf.uint8), targets
        out = layer({"images": values, "labels": targets}, training=True)
        return to_dtype(out["images"], tf.uint8), out["labels"]

    return augment


def keras_layer(method: str) -> Any:
    """Keras' layer for the method, with the same parameters."""
    import keras

    return {
        "RandAugment": lambda: keras.layers.RandAugment((0, 255), num_ops=2, factor=0.9, seed=1),
        "MixUp": lambda: keras.layers.MixUp(0.2, seed=1),
        "CutMix": lambda: keras.layers.CutMix((1.0, 1.0), seed=1),
        "random erasing": lambda: keras.layers.RandomErasing((1.0, 1.0), (0.02, 0.33), seed=1),
    }[method]()


def keras_cv_layer(method: str) -> Any:
    """keras-cv's layer for the method, with the same parameters. Its cut-out is used as random erasing."""
    layers = importlib.import_module("keras_cv").layers
    return {
        "RandAugment": lambda: layers.RandAugment((0, 255), 2, magnitude=0.9, seed=1),
        "MixUp": lambda: layers.MixUp(0.2, seed=1),
        "CutMix": lambda: layers.CutMix(1.0, seed=1),
        "random erasing": lambda: layers.RandomCutout((0.14, 0.57), (0.14, 0.57), "gaussian_noise", seed=1),
    }[method]()


def libraries(method: str) -> Iterator[tuple[str, Augment]]:
    """Yield the name and the function of each library to measure."""
    yield "keras_deepnets", ours(method)
    yield "Keras", of_layer(keras_layer(method), method)
    with contextlib.suppress(ImportError):
        yield "keras-cv", of_layer(keras_cv_layer(method), method)


def pipeline(augment: Augment, batch: int, side: int) -> tf.data.Dataset:
    """Endless batches of the same images, each augmented again."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    images = tf.constant(random.integers(0, 256, (batch, side, side, 3), np.uint8))
    targets = tf.one_hot(random.integers(0, CLASSES, batch), CLASSES)
    numbers = tf.data.Dataset.counter()
    return numbers.map(lambda number: augment(images, targets, number), tf.data.AUTOTUNE, deterministic=True).prefetch(
        2
    )


def rate(dataset: tf.data.Dataset, batch: int, seconds: float, clock: Callable[[], float] = time.perf_counter) -> float:
    """Images per second: the median of `WINDOWS` windows that last `seconds` in total, after one more window of warm-up."""
    batches, found = iter(dataset), []
    for _ in range(WINDOWS + 1):
        count, begin = 0, clock()
        while (elapsed := clock() - begin) < seconds / WINDOWS or not count:
            next(batches)
            count += batch
        found.append(count / elapsed)
    return statistics.median(found[1:])


def repeats(dataset: tf.data.Dataset, batches: int = 3) -> bool:
    """Whether a second pass over the dataset gives the same images."""
    first, second = (list(itertools.islice(dataset.as_numpy_iterator(), batches)) for _ in range(2))
    return all(np.array_equal(one[0], other[0]) for one, other in zip(first, second, strict=True))


def measure(method: str, batch: int, side: int, seconds: float) -> list[tuple[str, float | None, bool | None]]:
    """Return rows of library, images per second and repeatability. The values are None if it does not run inside tf.data."""
    found = []
    for library, augment in libraries(method):
        try:
            dataset = pipeline(augment, batch, side)
            found.append((library, rate(dataset, batch, seconds), repeats(dataset)))
        except Exception as error:  # libraries raise many types of errors here
            print(f"{library} {method}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
            found.append((library, None, None))
    return found


def main(arguments: list[str] | None = None) -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds to measure each number")
    seconds = parser.parse_args(arguments).seconds
    print("| method | images | library | images/s | the same twice |\n|---|---|---|---|---|")
    for (batch, side), method in itertools.product(SIZES, METHODS):
        for library, speed, same in measure(method, batch, side, seconds):
            shown = "does not run" if speed is None else f"{speed:,.0f}"
            twice = {None: "", True: "yes", False: "no"}[same]
            print(
                f"| {method} | {batch} of {side}² | {library} | {shown} | {twice} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
