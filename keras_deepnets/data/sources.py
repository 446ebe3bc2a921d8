"""From a source's name to its images. A source is a function; what tells them apart is here."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_deepnets.data import arrays, digits
from keras_deepnets.data.image_data import ImageData
from keras_deepnets.errors import InputError, NoSuchSplit

if TYPE_CHECKING:
    import tensorflow as tf


def load(
    source: str | os.PathLike | tuple | tf.data.Dataset,
    split: str = "train",
    *,
    seed: int = 0,
    skip_broken: bool = False,
    validation: int | float | None = None,
    data_dir: str | os.PathLike | None = None,
    labels: Sequence[str] | None = None,
) -> ImageData:
    """Loads one split of a labelled set of images.

    Args:
        source: ``"digits"`` (embedded); the TensorFlow Datasets name of a classification set (``"cifar10"``, ``"cifar100"``,
            ``"svhn_cropped"``, ``"mnist"``, ``"imagenet2012"``, …); a folder: ``FOLDER/<class>/*.jpg``, or
            ``FOLDER/{train,validation,test}/<class>/*.jpg``; or a folder of TFRecord shards that `write_shards` wrote. A name
            that is both is the dataset; write ``./cifar10`` for the folder. Image files are JPEG, PNG, BMP, GIF, WebP, JPEG XL, TIFF,
            AVIF, JPEG 2000 or PNM; they are turned upright as their EXIF orientation says. Hidden files and what systems leave in
            folders (``__MACOSX``, ``._*``, ``Thumbs.db``, ``desktop.ini``, ``@eaDir``) are ignored. Other files are left out: one
            line on stderr counts them by ending, and so does `ImageData.left_out`. Or images that are loaded already: arrays
            ``(images, labels)``, or a finite `tf.data.Dataset` of (image, label), in batches or not, such as
            `keras.utils.image_dataset_from_directory` gives. Images are ``[h, w, c]`` or ``[h, w]``, uint8 or other numbers 0–255;
            labels are whole numbers, one-hot vectors or texts. A dataset is read once, with what it shuffles and augments.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``; of a TFDS set any of its splits.
        seed: chooses what belongs to which split where the source does not say.
        skip_broken: leave out image files that cannot be decoded, and list them in `ImageData.skipped`, instead of raising.
        validation: how many examples, or which fraction, to cut out of the train split for validation; the same value for
            ``split="train"`` and ``split="validation"`` gives disjoint sets. None: the source's own validation split; of a
            folder of class folders 80 % are train, 10 % validation, 10 % test.
        data_dir: where TFDS keeps its data; None: ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.
        labels: class names of arrays or a dataset; None: its ``.class_names``, the values of text labels, or "0", "1", ….

    Raises:
        NoSuchSplit: an `InputError`: the source has no such split.
        InputError: nothing of that name, no images, one class only, broken files, a download that failed, …
            One line: what, why, and the way out.
    """
    if arrays.is_loaded(source):
        return arrays.load(source, split, seed=seed, validation=validation, labels=labels)
    if labels is not None:
        raise InputError(f"labels=… is for arrays and datasets; {str(source)!r} names its classes itself.")
    name = os.fspath(source)
    if _is_digits(source):
        return digits.load(split, seed=seed, validation=validation)
    path = _folder(source, data_dir)
    if path is None:
        from keras_deepnets.data import catalogue

        return catalogue.load(name, split, seed=seed, validation=validation, data_dir=data_dir)
    from keras_deepnets.data import folders, shards

    if shards.is_shards(path):
        return shards.load(path, split, seed=seed, validation=validation)
    return folders.load(path, split, seed=seed, skip_broken=skip_broken, validation=validation)


def load_splits(source: str | os.PathLike, *, seed: int = 0, skip_broken: bool = False) -> dict[str, ImageData]:
    """Every split that a source has without cutting a validation set out of another, by the split's name; see `load`."""
    from keras_deepnets.data import folders, shards

    path = None if _is_digits(source) else _folder(source, None)
    if path is not None and not shards.is_shards(path):
        return folders.load_splits(path, seed=seed, skip_broken=skip_broken)
    found = {"train": load(source, "train", seed=seed)}
    for split in ("validation", "test"):
        with contextlib.suppress(NoSuchSplit):
            found[split] = load(source, split, seed=seed)
    return found


def is_cut(source: str | os.PathLike) -> bool:
    """Whether `load` cuts a source into splits because it has none of its own: a folder of class folders."""
    from keras_deepnets.data import folders, shards

    path = None if _is_digits(source) else _folder(source, None)
    return path is not None and path.is_dir() and not shards.is_shards(path) and not folders.has_splits(path)


def _is_digits(source: str | os.PathLike) -> bool:
    if not os.fspath(source):
        raise InputError(
            "the data source is empty; give 'digits', a TFDS name such as cifar10, or a folder of class folders."
        )
    return source == digits.NAME


def _folder(source: str | os.PathLike, data_dir: str | os.PathLike | None) -> Path | None:
    """The folder that a source is; None: it is a name that TFDS knows.

    Raises:
        InputError: neither.
    """
    from keras_deepnets.data import catalogue

    name = os.fspath(source)
    if not isinstance(source, os.PathLike) and catalogue.is_name(name, data_dir):
        return None
    path = Path(name).expanduser()
    if path.exists() or isinstance(source, os.PathLike) or catalogue.looks_like_path(name):
        return path
    raise catalogue.unknown(name)


def training_split(source: str | os.PathLike) -> str:
    """The split of a source to train on: ``"train"``; of SVHN ``"train+extra"``, as in the papers."""
    from keras_deepnets.data import catalogue

    return "train" if isinstance(source, os.PathLike) else catalogue.training_split(source)
