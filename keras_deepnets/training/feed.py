"""What a network is fed with: the data's batches at the size and scale that the network takes."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import keras
import numpy as np

from keras_deepnets import data as datasets
from keras_deepnets import models
from keras_deepnets.data import ImageData, arrays, transforms
from keras_deepnets.data.stores import IndexedStore
from keras_deepnets.errors import InputError, NoSuchSplit
from keras_deepnets.training import class_weights
from keras_deepnets.training.recipe import Recipe
from keras_deepnets.training.sizing import sized

if TYPE_CHECKING:
    import tensorflow as tf

Source: TypeAlias = "str | os.PathLike | ImageData | tuple[Any, Any] | tf.data.Dataset"
"""A source of `keras_deepnets.data.load` (a name, a folder, arrays, a dataset), or an `ImageData`."""
SMALL = 64
"""Pixels: up to it a random crop of 8 % of the area shows nothing, and images are seen whole at test time."""
_MOST = 256  # images measured at once
_PIXELS = _MOST * 32 * 32  # of images that are measured at once whatever the training batch
_HELD = 1 << 28  # bytes of images at all scales that are held at once to find those of one shape


class Sets(NamedTuple):
    """What a run learns from and is measured on.

    Attributes:
        train: training images.
        held: those to measure on after each epoch, or None.
        cut: how many, or which fraction, of the source's training images were cut out to be `held`; None: it is a set of its own.
    """

    train: ImageData
    held: ImageData | None
    cut: int | float | None = None


def load(
    data: Source | Sets,
    validation: Source | float | bool | None,
    seed: int,
    *,
    skip_broken: bool = False,
    limit: int | None = None,
) -> Sets:
    """The training images, and those to measure on after each epoch.

    Args:
        data: a source of `keras_deepnets.data.load`, or its result; or the result of this function, which passes through.
        validation: another (all of a folder, of arrays or of a dataset, the test split of a named set); or how many examples or
            which fraction to cut out of `data`; or `False` for none. `None`: the source's validation split, else its test split;
            of a source without either, and of images that are loaded already, a tenth (`cut_by_default`).
        seed: of what is cut out, and of `limit`.
        skip_broken: leave out image files that cannot be decoded.
        limit: train on at most so many images, each class in proportion. What is measured on stays the same.

    Raises:
        InputError: bad source, size or limit, a validation split that is there and cannot be used; or labels that differ from the
            training images'.
    """
    if isinstance(data, Sets):
        if validation is not None:
            raise InputError(f"validation={validation!r}: the data was loaded with a validation set; leave it out.")
        if limit is not None:
            raise InputError(f"limit={limit!r}: the data is loaded already; give the limit when loading it.")
        return data
    if validation is True:
        raise InputError("validation=True: give a source, a fraction, or None for the source's own split.")
    _check_limit(limit)
    options = {"seed": seed, "skip_broken": skip_broken}
    is_size = isinstance(validation, (int, float, np.integer, np.floating)) and not isinstance(validation, bool)
    cut = validation if is_size else None
    if arrays.is_loaded(data):
        data = arrays.read(data, split="train")
    if isinstance(data, ImageData):
        train, held = data.divide(cut, seed) if is_size else (data, None)
        cut = None  # who loaded them knows what they were cut from
    elif is_size:
        train, held = (
            datasets.load(data, split, validation=cut, **options)
            for split in (datasets.training_split(data), "validation")
        )
    else:
        train = datasets.load(data, datasets.training_split(data), **options)
        held = _own(data, options) if validation is None else None
    if validation is None and held is None and (size := cut_by_default(train)):
        train, held = train.divide(size, seed)
        cut = None if isinstance(data, ImageData) else size
    elif not is_size and validation is not None and validation is not False:
        held = _other(validation, train.labels, options)
    if held is not None and held.labels != train.labels:
        raise InputError(
            f"Validation data {held.name!r} has the classes {_few(held.labels)}, training data {train.name!r} {_few(train.labels)}; "
            "they must be the same, in the same order."
        )
    return Sets(train if limit is None else _limited(train, limit, seed), held, cut)


def cut_by_default(data: ImageData) -> int:
    """How many images to measure on where there are no others: a tenth, and one at least of each class that has three or more."""
    if not isinstance(data.store, IndexedStore):  # a run of records
        return round(data.size / 10)
    return max(round(data.size / 10), sum(count > 2 for count in data.class_counts))


def _check_limit(limit: int | None) -> None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 1):
        raise InputError(f"limit={limit!r}: give a whole number of training images, at least 1.")


def _limited(train: ImageData, limit: int, seed: int) -> ImageData:
    """At most `limit` of the training images, and still some of each class."""
    part = train.take(limit, seed)
    if isinstance(part.store, IndexedStore):
        before, after = (sum(count > 0 for count in data.class_counts) for data in (train, part))
        if after < before:
            raise InputError(
                f"limit={limit} leaves {before - after} of {before} classes without an image; give at least {before}."
            )
    return part


def _own(source: str | os.PathLike, options: dict[str, Any]) -> ImageData | None:
    for split in ("validation", "test"):
        with contextlib.suppress(NoSuchSplit):
            return datasets.load(source, split, **options)
    return None


def _other(source: Source, labels: tuple[str, ...], options: dict[str, Any]) -> ImageData:
    if isinstance(source, ImageData):
        return source
    if arrays.is_loaded(source):
        return labelled(source, labels, "validation")
    return datasets.load(source, "all" if Path(source).expanduser().is_dir() else "test", **options)


def labelled(source: Any, labels: tuple[str, ...] | None, split: str = "all") -> ImageData:
    """Arrays or a dataset whose class names, where it has none of its own, are `labels`."""
    return arrays.read(source, arrays.class_names(source) or labels, split)


def of_model(model: keras.Model, source: Any) -> ImageData:
    """Arrays or a dataset to measure a model on, whose class names, where it has none of its own, are the model's."""
    labels = models.labels_of(model)
    if labels is None and isinstance(model.output_shape, tuple):
        labels = tuple(map(str, range(model.output_shape[-1] or 0)))
    return labelled(source, labels)


def evaluation_batch(model: keras.Model, data: ImageData, batch: int, image_size: int | None = None) -> int:
    """How many images to measure on at once beside a training step of `batch`, which is what memory is known to suffice for.

    Of small images more: they cost next to nothing, and a step has a price of its own.
    """
    height, width = _view(model, data, image_size)["image_size"]
    return min(_MOST, max(batch, _PIXELS // (height * width)))


def suitable_augmentation(data: ImageData, side: int) -> str:
    """The policy that varies images without changing what they show.

    Written characters are told by labels of one character each, and are not mirrored.

    Args:
        data: the images.
        side: in pixels, of what the network takes.
    """
    if all(len(label) == 1 for label in data.labels):
        return "shift"
    return "pad_crop_flip" if side <= SMALL else "random_resized_crop_flip(area=0.35)"


def batch_size(data: ImageData, recipe: Recipe) -> int:
    """Images a step: the recipe's, or all there are; what `sizing` says where the recipe leaves it to the data."""
    return sized(recipe, data.size).batch_size


def training(
    model: keras.Model,
    data: ImageData,
    recipe: Recipe,
    augmentation: str | None,
    seed: int,
    first_epoch: int,
    class_weight: Sequence[float] | None = None,
) -> tf.data.Dataset:
    """Endless shuffled and augmented batches, epoch after epoch; each epoch is a function of `seed` and its number.

    A last, smaller batch of an epoch is left out (other images every time), so that all steps have one shape.

    Args:
        model: which takes them.
        data: training images.
        recipe: of the run.
        augmentation: policy; the recipe's, resolved.
        seed: of order and augmentation.
        first_epoch: the epoch to begin with.
        class_weight: a weight a class: batches are (images, labels, weights) then; see `class_weights`.
    """
    batches = data.batches(
        batch_size(data, recipe),
        training=True,
        augment=augmentation,
        seed=seed,
        drop_remainder=True,
        first_epoch=first_epoch,
        repeat=True,
        copies=recipe.repeated_augmentation,
        **_view(model, data, recipe.image_size),
    )
    batches = _scaled(model, batches)
    return batches if class_weight is None else class_weights.weighted(batches, class_weight)


def evaluation(model: keras.Model, data: ImageData, batch: int, image_size: int | None = None) -> tf.data.Dataset:
    """All images once, in a fixed order, in batches of at most `batch`, as the network sees them at test time."""
    return _scaled(model, data.batches(_even(data, batch), **_view(model, data, image_size)))


def ten_crops(model: keras.Model, data: ImageData, batch: int, image_size: int | None = None) -> tf.data.Dataset:
    """All images once, in a fixed order, each as its `transforms.ten_crops`: ``[b, 10, h, w, c]``, at most `batch` crops a step.

    Raises:
        InputError: the crops are all the same, since the network sees the whole of the images; or may be, since their sizes
            are not known beforehand.
    """
    import tensorflow as tf

    view = _view(model, data, image_size)
    (height, width), channels = view["image_size"], view["channels"]
    fraction, interpolation = view.get("crop_fraction", 1.0), view.get("interpolation", "bilinear")
    transforms.check_view(height, width, channels, fraction, interpolation)
    if _leaves_no_margin(data.image_shape[:2], (height, width), fraction):
        raise InputError(
            f"Ten crops need a margin around the {height}×{width} pixels that model {model.name!r} takes, and the images of "
            f"{data.name!r} leave none (crop fraction {fraction:g}); use crops=1 (--crops 1)."
        )

    def crop(image, label):
        return transforms.ten_crops(image, height, width, channels, fraction, interpolation), label

    data.steps(batch)  # says what is wrong with it
    crops = data.examples().map(crop, tf.data.AUTOTUNE, deterministic=True).batch(_even(data, max(1, batch // 10)))
    return _scaled(model, crops).prefetch(tf.data.AUTOTUNE)


def _leaves_no_margin(own: tuple[int | None, int | None], size: tuple[int, int], fraction: float) -> bool:
    """Whether images of size `own` are `size` once they are resized for the test-time view, or may be."""
    if None in own:
        return fraction == 1.0
    resized = own if own == size else transforms.resized_size(*own, *size, fraction)
    return tuple(map(int, resized)) == size


def at_scales(
    model: keras.Model, data: ImageData, batch: int, scales: Sequence[int]
) -> Iterator[tuple[list[np.ndarray], np.ndarray, np.ndarray]]:
    """All images once, each at every scale: the shorter side has so many pixels, and nothing is cut off.

    Args:
        model: whose scaling they get.
        data: the images.
        batch: images in a group, at most.
        scales: shorter sides in pixels.

    Yields:
        Groups of images of one shape, in an order that depends on the arguments only: for each scale the images
        ``[b, h, w, c]``, the labels ``[b]`` and the images' positions in the data ``[b]``.
    """
    import tensorflow as tf

    data.steps(batch)
    scaling = models.scaling_of(model)
    interpolation = scaling.interpolation if scaling else "bilinear"
    prepared = scaling is not None and not models.includes_preprocessing(model)
    channels = model.input_shape[3] or data.image_shape[2]

    def views(image, label):
        return tuple(transforms.whole_view(image, side, channels, interpolation) for side in scales), label

    examples = data.examples().map(views, tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)
    held = _even(data, max(1, min(batch, _HELD // (channels * sum(side**2 for side in scales)))))
    numbered = enumerate(examples.as_numpy_iterator())
    while chunk := list(itertools.islice(numbered, held)):
        groups: dict[Any, list[Any]] = {}
        for position, (images, label) in chunk:
            groups.setdefault(tuple(image.shape for image in images), []).append((images, label, position))
        for group in groups.values():
            views, labels, positions = zip(*group, strict=True)
            stacks = [np.stack(images) for images in zip(*views, strict=True)]
            yield (
                [scaling.apply(stack) for stack in stacks] if prepared else stacks,
                np.array(labels),
                np.array(positions),
            )


def _even(data: ImageData, batch: int) -> int:
    """At most `batch`, so that all batches have nearly one size: a small last one would be traced and compiled for itself."""
    return -(-data.size // data.steps(batch))


def input_side(model: keras.Model, data: ImageData, image_size: int | None = None) -> int:
    """The smaller side in pixels of what the network is fed with."""
    return min(_view(model, data, image_size)["image_size"])


def _view(model: keras.Model, data: ImageData, image_size: int | None) -> dict[str, Any]:
    """Size, channels and test-time view of a network's input, as arguments of `ImageData.batches`."""
    _, height, width, channels = model.input_shape
    own_height, own_width, own_channels = data.image_shape
    size = (height or image_size or own_height, width or image_size or own_width)
    if None in size:
        raise InputError(
            f"Model {model.name!r} takes images of any size and those of {data.name!r} differ; set image_size."
        )
    scaling = models.scaling_of(model)
    view = {"crop_fraction": scaling.crop_fraction, "interpolation": scaling.interpolation} if scaling else {}
    return {"image_size": size, "channels": channels or own_channels} | view


def _scaled(model: keras.Model, batches: tf.data.Dataset) -> tf.data.Dataset:
    """Scales the images where the model does not but is known to need it; others get RGB 0–255."""
    import tensorflow as tf

    scaling = models.scaling_of(model)
    if scaling is None or models.includes_preprocessing(model):
        return batches

    def scale(images, labels):
        images = tf.cast(images, "float32")
        images = images[..., ::-1] if scaling.channel_order == "BGR" else images
        return (images - tf.constant(scaling.mean)) / tf.constant(scaling.std), labels

    return batches.map(scale, tf.data.AUTOTUNE, deterministic=True)


def pixels(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What `training` and `evaluation` feed a network, as pixels again: uint8 0–255, RGB or grey.

    Args:
        model: which they were made for.
        images: some of theirs, `[n, h, w, c]`.
    """
    scaling = models.scaling_of(model)
    if scaling is not None and not models.includes_preprocessing(model):
        images = images * np.asarray(scaling.std) + np.asarray(scaling.mean)
        images = images[..., ::-1] if scaling.channel_order == "BGR" else images
    return np.clip(np.rint(images), 0, 255).astype("uint8")


def _few(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:4]) + (f", … ({len(labels)})" if len(labels) > 4 else "")
