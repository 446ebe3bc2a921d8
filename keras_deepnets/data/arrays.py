"""Images already in memory: NumPy arrays, a `tf.data.Dataset`, the result of `keras.utils.image_dataset_from_directory`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.data.collecting import AT_ONCE, Collector, Converter
from keras_deepnets.data.files import natural
from keras_deepnets.data.image_data import ImageData, cut_out
from keras_deepnets.data.stores import ArrayPixels, PackedPixels, empty, in_order
from keras_deepnets.errors import InputError, NoSuchSplit

if TYPE_CHECKING:
    import tensorflow as tf

SPLITS = ("train", "validation", "all")
"""The splits of loaded data. Test images are passed separately."""

_SHOWN = 5
_TAKEN = "give (images, labels) as NumPy arrays, or a tf.data.Dataset of (image, label)"


def is_loaded(source: Any) -> bool:
    """Whether a source is data rather than the name or path of a data set."""
    return not isinstance(source, (str, os.PathLike, ImageData))


def class_names(source: Any) -> tuple[str, ...] | None:
    """The class names that a dataset carries (``.class_names``), or None."""
    names = getattr(source, "class_names", None)
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) else None


def load(
    source: Any,
    split: str = "train",
    *,
    seed: int = 0,
    validation: int | float | None = None,
    labels: Sequence[str] | None = None,
) -> ImageData:
    """Load data from memory or from a `tf.data.Dataset`; see `keras_deepnets.data.load`.

    All of the data is ``"all"``. It is also ``"train"``, from which ``validation`` is cut out.

    Raises:
        InputError: The validation size is invalid, or `read` raises it.
        NoSuchSplit: The split does not exist.
    """
    if split not in SPLITS:
        raise NoSuchSplit(
            f"split {split!r}: arrays and datasets have {', '.join(SPLITS)}; pass test images separately and load them as 'all'."
        )
    data = read(source, labels, "all" if split == "all" else "train")
    return data if split == "all" else cut_out(data, split, validation, seed)


def read(source: Any, labels: Sequence[str] | None = None, split: str = "all") -> ImageData:
    """Read every image of a source once.

    A dataset may return its examples in a different order each time (``shuffle``). The examples are therefore sorted by a digest of
    their pixels: the same images always give the same data. Arrays keep their order. Images are stored as uint8; other values are
    rounded.

    Args:
        source: ``(images, labels)`` or a `tf.data.Dataset`; see `keras_deepnets.data.load`.
        labels: Class names. None: the dataset's ``.class_names``, the values of string labels, or "0", "1", ….
        split: Name of the split, for messages.

    Raises:
        InputError: The source is of an unsupported kind, has no images, has only one class, or never ends. Pixel values are not
            0–255. Labels are not integers, one-hot vectors or strings, or do not match the class names.
    """
    names = _checked_names(labels)
    pixels: ArrayPixels | PackedPixels | Collector
    if _is_dataset(source):
        name = "dataset"
        pixels, targets = _of_dataset(source)
        names = names or class_names(source)
    else:
        name = "arrays"
        images, targets = _pair(source)
        pixels, targets = _of_images(images), _array(targets)
    targets, names = _classes(targets, names, name)
    if isinstance(pixels, Collector):
        pixels, targets = pixels.finish(targets)
    count = len(pixels.images) if isinstance(pixels, ArrayPixels) else len(pixels.shapes)
    if count != len(targets):
        raise InputError(f"{name}: {count:,} images and {len(targets):,} labels; give one label per image.")
    return ImageData(name, split, names, in_order(pixels, targets))


# --- Labels


def _checked_names(labels: Sequence[str] | None) -> tuple[str, ...] | None:
    if labels is None:
        return None
    valid = isinstance(labels, (list, tuple)) and all(isinstance(label, str) for label in labels)
    if not valid or len(labels) < 2:
        raise InputError(f"labels={labels!r}: give the class names as a list of at least two strings.")
    return tuple(labels)


def _classes(targets: np.ndarray, names: tuple[str, ...] | None, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Convert labels of any form to int64 ``[n]``, and return them with the class names."""
    if targets.ndim == 2 and targets.shape[1] == 1:  # CIFAR's arrays, label_mode="binary"
        targets = targets[:, 0]
    if targets.dtype.kind in "OSU" and targets.ndim == 1:
        return _of_texts(targets, names, name)
    if targets.dtype.kind not in "biuf" and "float" not in targets.dtype.name:
        raise InputError(f"{name}: labels are {targets.dtype}; give whole numbers, one-hot vectors or strings.")
    width = None
    if targets.ndim == 2:
        width = targets.shape[1]
        if not ((targets == 0) | (targets == 1)).all() or not (targets.sum(axis=1) == 1).all():
            raise InputError(
                f"{name}: labels of shape {targets.shape} are not one-hot; give one class per image (to mix images in training, use "
                "augmentation='mixup(0.2)')."
            )
        targets = targets.argmax(axis=1)
    if targets.ndim != 1:
        raise InputError(f"{name}: labels have the shape {targets.shape}; give [n], or one-hot [n, classes].")
    with np.errstate(invalid="ignore"):  # NaN is reported below
        whole = targets.astype(np.int64)
    if targets.dtype.kind not in "biu" and not (whole == targets).all():
        raise InputError(
            f"{name}: labels such as {targets[whole != targets][0]:g} are not whole numbers; give class numbers."
        )
    return _of_numbers(whole, width, names, name)


def _of_numbers(
    targets: np.ndarray, width: int | None, names: tuple[str, ...] | None, name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    if len(targets) == 0:
        raise InputError(f"{name}: no images; give at least one of each class.")
    lowest, highest = int(targets.min()), int(targets.max())
    if names is None:
        missing: Sequence[int] | np.ndarray = []
        if width is None and lowest >= 0:
            missing = np.setdiff1d(np.arange(min(highest, len(targets))), targets)
        if len(missing):
            raise InputError(
                f"{name}: labels go up to {highest}, but no image has label {missing[0]}; count classes from 0, or name all of them with "
                "the argument labels=[…] of keras_deepnets.data.load."
            )
        names = tuple(map(str, range(highest + 1 if width is None else width)))
    if width is not None and width != len(names):
        raise InputError(
            f"{name}: one-hot labels have {width} classes, but {len(names)} names were given ({_few(names)})."
        )
    if lowest < 0 or highest >= len(names):
        wrong = lowest if lowest < 0 else highest
        raise InputError(
            f"{name}: label {wrong} is not one of the {len(names)} classes ({_few(names)}), which count from 0."
        )
    return targets, _several(names, name)


def _of_texts(targets: np.ndarray, names: tuple[str, ...] | None, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    texts = [text.decode("utf-8", "replace") if isinstance(text, bytes) else text for text in targets.tolist()]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{name}: labels are Python objects; give whole numbers, one-hot vectors or strings.")
    names = tuple(sorted(set(texts), key=natural)) if names is None else names
    index = {label: at for at, label in enumerate(names)}
    unknown = next((text for text in texts if text not in index), None)
    if unknown is not None:
        raise InputError(f"{name}: label {unknown!r} is not one of the {len(names)} classes ({_few(names)}).")
    return np.array([index[text] for text in texts], np.int64), _several(names, name)


def _several(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    if len(names) < 2:
        raise InputError(f"{name}: only one class ({_few(names)!r}); a classifier needs at least two.")
    return names


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")


# --- Arrays


def _pair(source: Any) -> tuple[Any, Any]:
    """The images and the labels of a source."""
    if not isinstance(source, (tuple, list)):
        what = "images without labels" if hasattr(source, "shape") else f"of type {type(source).__name__}"
        raise InputError(f"The data is {what}; {_TAKEN}, or the name or the folder of a data set.")
    if any(_is_dataset(part) for part in source):
        raise InputError("The data is a list of datasets; pass one of them as the data and the other as validation.")
    if any(isinstance(part, tuple) and len(part) == 2 for part in source):
        raise InputError(
            "The data is a pair of (images, labels), as load_data() returns; pass the first as the data and keep the second for evaluation."
        )
    if len(source) != 2:
        raise InputError(
            f"The data is a {type(source).__name__} of {len(source)} parts; {_TAKEN}. Pass class weights as class_weight=…."
        )
    return source[0], source[1]


def _array(values: Any) -> np.ndarray:
    try:
        return np.asarray(values)
    except ValueError as error:  # lists of several lengths
        raise InputError(f"The labels are not an array ({error}); give one label per image.") from None


def _of_images(images: Any) -> ArrayPixels | Collector:
    """The pixels of images in memory: an array ``[n, h, w]`` or ``[n, h, w, c]``, or a list of arrays of different sizes."""
    convert = Converter("arrays", "images * 255")
    if isinstance(images, (list, tuple)) or (isinstance(images, np.ndarray) and images.dtype == object):
        collector = Collector("arrays", convert)
        for image in images:
            collector.add(_with_channels(np.asarray(image), 2, "arrays")[None])
        return collector
    images = _with_channels(np.asarray(images), 3, "arrays")
    values = empty(images.shape)  # a copy: the caller may change its array
    for start in range(0, len(images), AT_ONCE):
        values[start : start + AT_ONCE] = convert(images[start : start + AT_ONCE])
    convert.finish()
    return ArrayPixels(values)


def _with_channels(images: np.ndarray, plain: int, name: str) -> np.ndarray:
    """Append a channel axis to grey images that have none. `plain` is the number of axes without it."""
    shape = images.shape
    images = images[..., None] if images.ndim == plain else images
    if images.ndim != plain + 1 or images.shape[-1] not in (1, 3) or 0 in images.shape[1:]:
        first = images.ndim == plain + 1 and images.shape[-3] in (1, 3)
        hint = "; move the channel axis to the end, np.moveaxis(images, -3, -1)" if first else ""
        raise InputError(f"{name}: images have shape {shape}; give [height, width, 1 or 3] per image{hint}.")
    return images


# --- Datasets


def _is_dataset(source: Any) -> bool:
    if isinstance(source, (str, bytes, np.ndarray, tuple, list)) or not hasattr(source, "element_spec"):
        return False
    import tensorflow as tf

    return isinstance(source, tf.data.Dataset)


def _of_dataset(dataset: tf.data.Dataset) -> tuple[Collector, np.ndarray]:
    import tensorflow as tf

    _check_elements(dataset)
    scale = "dataset.map(lambda image, label: (image * 255, label))"
    collector, labels = Collector("dataset", Converter("dataset", scale), sort=True), []
    try:
        for images, targets in _chunks(dataset):
            if len(images) != len(targets):
                raise InputError(f"dataset: a batch has {len(images)} images and {len(targets)} labels.")
            collector.add(images)
            labels.append(targets)
    except tf.errors.OpError as error:
        lines = re.sub(r"\{\{.*?\}\}\s*", "", error.message).strip().splitlines()  # names of graph nodes
        reason = lines[0] if lines else type(error).__name__
        raise InputError(f"dataset: reading fails after {collector.size:,} images: {reason}") from error
    if not labels:
        raise InputError("dataset: no images; check that it is not empty and that a filter does not remove everything.")
    return collector, np.concatenate(labels)


def _check_elements(dataset: tf.data.Dataset) -> None:
    """Raise InputError unless the dataset is finite and its elements can be (image, label)."""
    import tensorflow as tf

    spec = dataset.element_spec
    if isinstance(spec, dict):
        raise InputError(
            f"dataset: elements are dictionaries of {', '.join(map(str, spec))}; give (image, label), e.g. "
            'dataset.map(lambda example: (example["image"], example["label"])).'
        )
    if not isinstance(spec, (tuple, list)) or len(spec) != 2:
        what = f"have {len(spec)} parts" if isinstance(spec, (tuple, list)) else "are images without labels"
        raise InputError(f"dataset: elements {what}; give (image, label). Pass class weights as class_weight=….")
    if not all(isinstance(part, tf.TensorSpec) for part in spec):
        raise InputError(f"dataset: elements are {spec}; give dense tensors (image, label).")
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise InputError("dataset: it never ends; remove repeat() (training repeats the data itself), or use take(n).")


def _chunks(dataset: tf.data.Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images ``[b, h, w, c]`` and labels ``[b, …]``, in the dataset's order."""
    image, label = dataset.element_spec
    batched = None
    if image.shape.is_fully_defined() and label.shape.is_fully_defined() and not _is_batch(image.shape, label.shape):
        dataset, batched = dataset.batch(AT_ONCE), True
    for images, labels in dataset.as_numpy_iterator():
        images, labels = np.asarray(images), np.asarray(labels)
        batched = _is_batch(images.shape, labels.shape) if batched is None else batched
        if not batched:
            images, labels = images[None], labels[None]
        yield _with_channels(images, 3, "dataset"), labels


def _is_batch(images: Sequence[int], labels: Sequence[int]) -> bool:
    """Whether the shapes are those of a batch: ``[b, h, w, c]``, or ``[b, h, w]`` for grey images without a channel axis."""
    return len(images) == 4 or (len(images) == 3 and len(labels) > 0 and images[-1] not in (1, 3))
