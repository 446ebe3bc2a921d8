"""Input pipelines: batches of the data at the size and scale that a network expects."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeGuard, cast

import keras
import numpy as np

from keras_deepnets import data as datasets
from keras_deepnets import models
from keras_deepnets.data import ImageData, arrays, parallel, transforms
from keras_deepnets.data.channels import normalised
from keras_deepnets.data.pipelines import Share
from keras_deepnets.data.remote import is_remote
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
"""Side in pixels. Up to this side, a random crop of 8 % of the area shows nothing, and the test-time view is the whole image."""
_MOST = 256  # largest evaluation batch for small images
_PIXELS = _MOST * 32 * 32  # per evaluation batch, whatever the training batch size
_HELD = 1 << 28  # bytes of images at all scales, held at once to group them by shape


class Sets(NamedTuple):
    """Training and validation images of a run.

    Attributes:
        train: Training images.
        held: Images to validate on after each epoch, or None.
        cut: Number or fraction of the source's training images that were split off as `held`. None: `held` is a
            separate set.
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
    """Load the training images, and the images to validate on after each epoch.

    Args:
        data: Source of `keras_deepnets.data.load` or its result. The result of this function passes through.
        validation: Another source, the number or fraction of images to split off from `data`, or `False` for no
            validation. All images of a folder, of arrays or of a `tf.data.Dataset` are used, and the test split of a
            named data set. `None`: the source's validation split, otherwise its test split. A tenth is split off
            (`cut_by_default`) if the source has neither or is loaded already. A folder of class folders without splits
            is divided into 80 % training, 10 % validation and 10 % test images if this is `None`. `False`: its
            validation images are trained on too. Another source: all its images are trained on.
        seed: Seed of the split and of `limit`.
        skip_broken: Whether to skip image files that cannot be decoded.
        limit: Maximum number of training images. Each class keeps its share. The validation images do not change.

    Raises:
        InputError: The source, size or limit is invalid, an existing validation split is unusable, or the labels differ
            from those of the training images.
    """
    if isinstance(data, Sets):
        if validation is not None:
            raise InputError(f"validation={validation!r}: the data was loaded with a validation set; omit validation.")
        if limit is not None:
            raise InputError(f"limit={limit!r}: the data is loaded already; set the limit when loading it.")
        return data
    if validation is True:
        raise InputError(
            "validation=True is not allowed; give a source, a fraction, or None for the source's own split."
        )
    _check_limit(limit)
    options: dict[str, Any] = {"seed": seed, "skip_broken": skip_broken}
    asked = validation if _is_size(validation) else None
    cut = asked
    if arrays.is_loaded(data):
        data = arrays.read(data, split="train")
    if isinstance(data, ImageData):
        train, held = (data, None) if asked is None else data.divide(asked, seed)
        cut = None  # the caller split an already loaded set
    else:
        source = cast("str | os.PathLike", data)  # everything else is loaded by now
        split = datasets.training_split(source)
        if asked is not None:
            options["validation"] = asked
            train, held = (datasets.load(source, part, **options) for part in (split, "validation"))
        elif validation is not None and datasets.is_cut(source):  # nothing of the folder is held out for validation
            part, size = (split, 0) if validation is False else ("all", None)
            train, held = datasets.load(source, part, validation=size, **options), None
        else:
            train = datasets.load(source, split, **options)
            held = _own(source, options) if validation is None else None
    if validation is None and held is None and (size := cut_by_default(train)):
        train, held = train.divide(size, seed)
        cut = None if isinstance(data, ImageData) else size
    elif asked is None and validation is not None and validation is not False:
        held = _other(cast("Source", validation), train.labels, options)
    if held is not None and held.labels != train.labels:
        raise InputError(
            f"Validation data {held.name!r} has the classes {_few(held.labels)}, training data {train.name!r} {_few(train.labels)}; "
            "they must be the same, in the same order."
        )
    return Sets(train if limit is None else _limited(train, limit, seed), held, cut)


def _is_size(validation: Any) -> TypeGuard[int | float]:
    """Return whether `validation` is a number or fraction of images."""
    return isinstance(validation, (int, float, np.integer, np.floating)) and not isinstance(validation, bool)


def cut_by_default(data: ImageData) -> int:
    """Return the number of images to split off for validation if the source has no separate ones.

    This is a tenth of the images, but at least one for each class with three or more images.
    """
    if not isinstance(data.store, IndexedStore):  # records are read in order
        return round(data.size / 10)
    return max(round(data.size / 10), sum(count > 2 for count in data.class_counts))


def _check_limit(limit: int | None) -> None:
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 1):
        raise InputError(f"limit={limit!r}: give a whole number of training images, at least 1.")


def _limited(train: ImageData, limit: int, seed: int) -> ImageData:
    """Return at most `limit` training images, with some of each class."""
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
    named = cast("str | os.PathLike", source)  # everything else is loaded
    return datasets.load(named, "all" if _is_folder(named) else "test", **options)


def _is_folder(source: str | os.PathLike) -> bool:
    return is_remote(source) or Path(source).expanduser().is_dir()


def labelled(source: Any, labels: tuple[str, ...] | None, split: str = "all") -> ImageData:
    """Read arrays or a `tf.data.Dataset`. Its class names are `labels` if it has none."""
    return arrays.read(source, arrays.class_names(source) or labels, split)


def of_model(model: keras.Model, source: Any) -> ImageData:
    """Read arrays or a `tf.data.Dataset` to evaluate a model on. Its class names are the model's if it has none."""
    labels = models.labels_of(model)
    if labels is None and isinstance(model.output_shape, tuple):
        labels = tuple(map(str, range(model.output_shape[-1] or 0)))
    return labelled(source, labels)


def evaluation_batch(model: keras.Model, data: ImageData, batch: int, image_size: int | None = None) -> int:
    """Return the batch size for evaluation next to a training batch size of `batch`, which is known to fit in memory.

    Small images get larger batches: they need little memory, and each step has a fixed overhead.
    """
    height, width = _view(model, data, image_size)["image_size"]
    return min(_MOST, max(batch, _PIXELS // (height * width)))


def suitable_augmentation(data: ImageData, side: int) -> str:
    """Return the augmentation policy that does not change what the images show.

    Data sets whose labels all have one character are taken as written characters, which are not mirrored.

    Args:
        data: Images.
        side: Side of the network's input in pixels.
    """
    if all(len(label) == 1 for label in data.labels):
        return "shift"
    return "pad_crop_flip" if side <= SMALL else "random_resized_crop_flip(area=0.35)"


def batch_size(data: ImageData, recipe: Recipe) -> int:
    """Return the images per step: the recipe's batch size, or all images if there are fewer.

    `sizing` chooses it if the recipe leaves it to the data.
    """
    return sized(recipe, data.size).images_per_step


def training(
    model: keras.Model,
    data: ImageData,
    recipe: Recipe,
    augmentation: str | None,
    seed: int,
    first_epoch: int,
    class_weight: Sequence[float] | None = None,
    first_step: int = 0,
    share: Share | None = None,
) -> tf.data.Dataset:
    """Return endless shuffled and augmented batches, epoch after epoch.

    Each epoch is a function of `seed` and the epoch's number. A smaller last batch of an epoch is dropped, so all steps
    have the same shape. The dropped images differ from epoch to epoch.

    Args:
        model: Model that is trained.
        data: Training images.
        recipe: Recipe of the run.
        augmentation: Resolved augmentation policy of the recipe.
        seed: Seed of the order and the augmentation.
        first_epoch: First epoch.
        class_weight: One weight per class. Batches are then (images, labels, weights); see `class_weights`.
        first_step: First step in the first epoch.
        share: Part of each batch that this worker reads. `None`: all of it.
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
        first_step=first_step,
        share=share,
        **_view(model, data, recipe.image_size),
    )
    batches = _scaled(model, batches)
    return batches if class_weight is None else class_weights.weighted(batches, class_weight)


def evaluation(model: keras.Model, data: ImageData, batch: int, image_size: int | None = None) -> tf.data.Dataset:
    """Return all images once, in a fixed order, as the network sees them at test time.

    A batch has at most `batch` images.
    """
    return _scaled(model, data.batches(_even(data, batch), **_view(model, data, image_size)))


def ten_crops(model: keras.Model, data: ImageData, batch: int, image_size: int | None = None) -> tf.data.Dataset:
    """Return all images once, in a fixed order, each as its `transforms.ten_crops` ``[b, 10, h, w, c]``.

    A step has at most `batch` crops.

    Raises:
        InputError: All crops are the same, because the network sees the whole image. Or they may be, because the image
            sizes are unknown.
    """
    view = _view(model, data, image_size)
    (height, width), channels = view["image_size"], view["channels"]
    fraction, interpolation = view.get("crop_fraction", 1.0), view.get("interpolation", "bilinear")
    transforms.check_view(height, width, channels, fraction, interpolation)
    if _leaves_no_margin(data.image_shape[:2], (height, width), fraction):
        raise InputError(
            f"Ten crops need a margin around the {height}×{width} pixels of the input of model {model.name!r}, and the images of "
            f"{data.name!r} leave none (crop fraction {fraction:g}); use crops=1 (--crops 1)."
        )

    def crop(image, label):
        return transforms.ten_crops(image, height, width, channels, fraction, interpolation), label

    data.steps(batch)  # raises if the batch size is invalid
    crops = data.examples().map(crop, parallel.calls(), deterministic=True).batch(_even(data, max(1, batch // 10)))
    return _scaled(model, crops).prefetch(parallel.READY)


def _leaves_no_margin(own: tuple[int | None, int | None], size: tuple[int, int], fraction: float) -> bool:
    """Return whether images of size `own` have, or may have, exactly `size` after resizing for the test-time view."""
    if None in own:
        return fraction == 1.0
    resized = size if own == size else transforms.resized_size(*own, *size, fraction)
    return tuple(map(int, resized)) == size


def at_scales(
    model: keras.Model, data: ImageData, batch: int, scales: Sequence[int]
) -> Iterator[tuple[list[np.ndarray], np.ndarray, np.ndarray]]:
    """Yield all images once, each at every scale. The shorter side has the given length, and nothing is cropped.

    Args:
        model: Model whose input scaling is applied.
        data: Images.
        batch: Maximum images per group.
        scales: Shorter sides in pixels.

    Yields:
        Groups of images of the same shape, in an order that depends only on the arguments. Each has the images ``[b, h,
        w, c]`` for each scale, the labels ``[b]`` and the positions in the data ``[b]``.
    """
    data.steps(batch)
    scaling = models.scaling_of(model)
    interpolation = scaling.interpolation if scaling else "bilinear"
    applied = None if scaling is None or models.includes_preprocessing(model) else scaling
    channels = model.input_shape[3] or data.image_shape[2]

    def views(image, label):
        return tuple(transforms.whole_view(image, side, channels, interpolation) for side in scales), label

    examples = data.examples().map(views, parallel.calls(), deterministic=True).prefetch(parallel.READY)
    held = _even(data, max(1, min(batch, _HELD // (channels * sum(side**2 for side in scales)))))
    numbered = enumerate(examples.as_numpy_iterator())
    while chunk := list(itertools.islice(numbered, held)):
        groups: dict[Any, list[Any]] = {}
        for position, (images, label) in chunk:
            groups.setdefault(tuple(image.shape for image in images), []).append((images, label, position))
        for group in groups.values():
            shown, labels, positions = zip(*group, strict=True)
            stacks = [np.stack(images) for images in zip(*shown, strict=True)]
            yield (
                stacks if applied is None else [applied.apply(stack) for stack in stacks],
                np.array(labels),
                np.array(positions),
            )


def _even(data: ImageData, batch: int) -> int:
    """Return a batch size of at most `batch` that makes all batches nearly equal.

    A small last batch would be traced and compiled separately.
    """
    return -(-data.size // data.steps(batch))


def input_side(model: keras.Model, data: ImageData, image_size: int | None = None) -> int:
    """Return the smaller side of the network's input in pixels."""
    return min(_view(model, data, image_size)["image_size"])


def _view(model: keras.Model, data: ImageData, image_size: int | None) -> dict[str, Any]:
    """Return size, channels and test-time view of a network's input, as arguments of `ImageData.batches`."""
    _, height, width, channels = model.input_shape
    own_height, own_width, own_channels = data.image_shape
    size = (height or image_size or own_height, width or image_size or own_width)
    if None in size:
        raise InputError(
            f"Model {model.name!r} takes images of any size, and those of {data.name!r} differ in size. Set image_size."
        )
    scaling = models.scaling_of(model)
    view = {"crop_fraction": scaling.crop_fraction, "interpolation": scaling.interpolation} if scaling else {}
    return {"image_size": size, "channels": channels or own_channels} | view


def _scaled(model: keras.Model, batches: tf.data.Dataset) -> tf.data.Dataset:
    """Scale the images if the model is known to need it and does not do it itself.

    Otherwise the images keep RGB values 0–255.
    """
    import tensorflow as tf

    scaling = models.scaling_of(model)
    if scaling is None or models.includes_preprocessing(model):
        return batches

    def scale(images, labels):
        # Ten times as fast as [..., ::-1].
        images = tf.reverse(images, [-1]) if scaling.channel_order == "BGR" else images
        return normalised(images, scaling.mean, scaling.std), labels

    return batches.map(scale, parallel.calls(), deterministic=True)


def pixels(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Convert images from `training` or `evaluation` back to pixels: uint8 0–255, RGB or grey.

    Args:
        model: Model that the images were prepared for.
        images: Images `[n, h, w, c]`.
    """
    scaling = models.scaling_of(model)
    if scaling is not None and not models.includes_preprocessing(model):
        images = images * np.asarray(scaling.std) + np.asarray(scaling.mean)
        images = images[..., ::-1] if scaling.channel_order == "BGR" else images
    return np.clip(np.rint(images), 0, 255).astype("uint8")


def _few(labels: tuple[str, ...]) -> str:
    return ", ".join(labels[:4]) + (f", … ({len(labels)})" if len(labels) > 4 else "")
