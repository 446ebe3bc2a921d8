"""Find the loader for a source's name. Each kind of source has a load function; this module tells the kinds apart."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

from keras_deepnets.data import arrays, digits
from keras_deepnets.data.image_data import ImageData
from keras_deepnets.data.remote import Folder, RemotePath, is_remote
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
    """Load one split of a labelled image data set.

    `source` is one of these:

    * ``"digits"``, the embedded data set.
    * The TensorFlow Datasets name of a classification data set: ``"cifar10"``, ``"cifar100"``, ``"svhn_cropped"``, ``"mnist"``,
      ``"imagenet2012"``, …. If a folder has the same name, the TFDS data set is used. Write ``./cifar10`` for the folder.
    * A folder ``FOLDER/<class>/*.jpg`` or ``FOLDER/{train,validation,test}/<class>/*.jpg``.
    * A folder of TFRecord shards written by `write_shards`. It may be on another file system that TensorFlow knows, e.g.
      ``"gs://bucket/folder"``.
    * Arrays in memory, ``(images, labels)``.
    * A finite `tf.data.Dataset` of (image, label), batched or not, for example from `keras.utils.image_dataset_from_directory`. It is
      read once, including its shuffling and augmentation.

    Image files are JPEG, PNG, BMP, GIF, WebP, JPEG XL, TIFF, AVIF, JPEG 2000 or PNM. They are turned upright by their EXIF orientation.
    Hidden files and system files (``__MACOSX``, ``._*``, ``Thumbs.db``, ``desktop.ini``, ``@eaDir``) are ignored. Other files are left
    out. One line on stderr counts them by suffix, and so does `ImageData.left_out`.

    Images in memory are ``[h, w, c]`` or ``[h, w]``, uint8 or other numbers 0–255. Their labels are integers, one-hot vectors or
    strings.

    Args:
        source: The data set, as above.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``. A TFDS data set accepts any of its splits.
        seed: Chooses the examples of each split if the source does not define them.
        skip_broken: Whether to leave out image files that cannot be decoded and list them in `ImageData.skipped`, instead of raising.
        validation: Number or fraction of examples to cut out of the train split for validation. The same value for ``split="train"``
            and ``split="validation"`` gives disjoint parts. None: the source's own validation split. A folder of class folders is
            then split into 80 % train, 10 % validation and 10 % test.
        data_dir: Folder of the TFDS data. None: ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.
        labels: Class names for arrays or a dataset. None: its ``.class_names``, the values of string labels, or "0", "1", ….

    Raises:
        NoSuchSplit: An `InputError`: the source has no such split.
        InputError: The source does not exist, has no images or only one class, holds broken files, cannot be downloaded, …. The
            one-line message says what is wrong, why, and how to fix it.
    """
    if arrays.is_loaded(source):
        return arrays.load(source, split, seed=seed, validation=validation, labels=labels)
    if labels is not None:
        raise InputError(f"labels=… is for arrays and datasets; {str(source)!r} names its classes itself.")
    named = cast("str | os.PathLike", source)
    name = os.fspath(named)
    if _is_digits(named):
        return digits.load(split, seed=seed, validation=validation)
    path = _folder(named, data_dir)
    if path is None:
        from keras_deepnets.data import catalogue

        return catalogue.load(name, split, seed=seed, validation=validation, data_dir=data_dir)
    from keras_deepnets.data import folders, shards

    if isinstance(path, RemotePath) or shards.is_shards(path):
        return shards.load(path, split, seed=seed, validation=validation)
    return folders.load(path, split, seed=seed, skip_broken=skip_broken, validation=validation)


def load_splits(source: str | os.PathLike, *, seed: int = 0, skip_broken: bool = False) -> dict[str, ImageData]:
    """All splits that a source has without cutting a validation set out of another split, by name; see `load`."""
    from keras_deepnets.data import folders, shards

    path = None if _is_digits(source) else _folder(source, None)
    if isinstance(path, Path) and not shards.is_shards(path):
        return folders.load_splits(path, seed=seed, skip_broken=skip_broken)
    found = {"train": load(source, "train", seed=seed)}
    for split in ("validation", "test"):
        with contextlib.suppress(NoSuchSplit):
            found[split] = load(source, split, seed=seed)
    return found


def is_cut(source: str | os.PathLike) -> bool:
    """Whether `load` cuts a source into splits because it has no splits: a folder of class folders."""
    from keras_deepnets.data import folders, shards

    path = None if _is_digits(source) else _folder(source, None)
    return isinstance(path, Path) and path.is_dir() and not shards.is_shards(path) and not folders.has_splits(path)


def _is_digits(source: str | os.PathLike) -> bool:
    if not os.fspath(source):
        raise InputError(
            "the data source is empty; give 'digits', a TFDS name such as cifar10, or a folder of class folders."
        )
    return source == digits.NAME


def _folder(source: str | os.PathLike, data_dir: str | os.PathLike | None) -> Folder | None:
    """The folder of a source, or None if TFDS knows its name.

    Raises:
        InputError: The source is neither, or is a folder of another file system without shards.
    """
    from keras_deepnets.data import catalogue, shards

    name = os.fspath(source)
    if is_remote(name):
        if not shards.is_shards(remote := RemotePath(name)):
            raise InputError(
                f"{name} holds no shards ({shards.INDEX}). From other file systems, only shards are read; write them with "
                "`keras-deepnets data shard` and copy them there."
            )
        return remote
    if not isinstance(source, os.PathLike) and catalogue.is_name(name, data_dir):
        return None
    path = Path(name).expanduser()
    if path.exists() or isinstance(source, os.PathLike) or catalogue.looks_like_path(name):
        return path
    raise catalogue.unknown(name)


def training_split(source: str | os.PathLike) -> str:
    """The split of a source to train on: ``"train"``, or ``"train+extra"`` for SVHN, as in the papers."""
    from keras_deepnets.data import catalogue

    return "train" if isinstance(source, os.PathLike) else catalogue.training_split(source)
