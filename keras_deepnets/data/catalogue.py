"""TensorFlow Datasets as a source: any classification data set of its catalogue, by name."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from keras_deepnets.data import memory
from keras_deepnets.data.image_data import ImageData, check_split, cut_out
from keras_deepnets.data.records import SHUFFLE_BYTES, Piece, RecordStore
from keras_deepnets.data.stores import IndexedStore, Store, from_arrays, from_images
from keras_deepnets.errors import InputError, NoSuchSplit

MEMORY_BUDGET = memory.share(8, 1 << 30, 16 << 30)
"""Bytes of decoded images up to which a data set of equal-sized images stays in memory; holds SVHN's 1.86 GB on a 16 GB machine."""


@dataclass(frozen=True)
class KnownSet:
    """Published facts about a data set of the papers.

    Attributes:
        train: The split that the papers train on.
        sizes: Number of examples in each split.
        mean: Mean of each channel of the training images, 0–255.
        std: Standard deviation of each channel, in the same units.
    """

    train: str
    sizes: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


KNOWN = {
    "cifar10": KnownSet(
        "train", {"train": 50_000, "test": 10_000}, (125.307, 122.950, 113.865), (62.993, 62.089, 66.705)
    ),
    "cifar100": KnownSet(
        "train", {"train": 50_000, "test": 10_000}, (129.304, 124.070, 112.434), (68.170, 65.392, 70.418)
    ),
    # The statistics come from the authors' code for wide residual networks.
    "svhn_cropped": KnownSet(
        "train+extra",
        {"train": 73_257, "extra": 531_131, "test": 26_032, "train+extra": 604_388},
        (109.9, 109.7, 113.8),
        (50.1, 50.6, 50.8),
    ),
    "mnist": KnownSet("train", {"train": 60_000, "test": 10_000}, (33.318,), (78.567,)),
    "imagenet2012": KnownSet(
        "train", {"train": 1_281_167, "validation": 50_000}, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    ),
}
"""Known data sets by TFDS name. Their statistics need not be computed. If the size differs, e.g. for a subset, they are computed."""

_PATIENCE = 10  # seconds to wait for a server's first answer
# Modules that TFDS imports only after it has downloaded gigabytes.
_PACKAGES = {"svhn_cropped": ("scipy",)}


def is_name(name: str, data_dir: str | os.PathLike | None = None) -> bool:
    """Whether TFDS knows ``name``, or ``data_dir`` holds a prepared data set of that name."""
    base = _base(name)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", base):
        return False
    return base in _names() or (data_dir is not None and Path(data_dir, base).is_dir())


def looks_like_path(name: str) -> bool:
    """Whether the caller meant a path rather than a name."""
    return "/" in name or os.sep in name or name.startswith((".", "~")) or not name


def unknown(name: str) -> InputError:
    """The error for a source that is neither a data set nor a folder, with the nearest names of both."""
    nearest = difflib.get_close_matches(_base(name).lower(), ["digits", *_names()], n=3, cutoff=0.6)
    folders = [entry.name for entry in os.scandir() if entry.is_dir() and not entry.name.startswith(".")]
    folders = [f"./{folder}" for folder in difflib.get_close_matches(name, folders, n=2, cutoff=0.6)]
    hint = f"; the nearest are {', '.join(nearest + folders)}" if nearest + folders else ""
    return InputError(
        f"unknown data set {name!r}{hint}; give 'digits', a TFDS name such as cifar10, or an existing folder of class folders."
    )


def load(
    name: str,
    split: str = "train",
    *,
    seed: int = 0,
    validation: int | float | None = None,
    data_dir: str | os.PathLike | None = None,
) -> ImageData:
    """Load one split of a TFDS data set; see `keras_deepnets.data.load`.

    Images of equal size stay in memory up to one eighth of the machine's memory (1 to 16 GiB). Larger data sets are streamed from
    their record files.

    Raises:
        InputError: The configuration, version or split does not exist. The examples are not single images with one class each, or
            have no labels. The download fails, or TFDS requires a manual download. The validation size is invalid.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, **({} if data_dir is None else {"data_dir": os.fspath(data_dir)}))
    except Exception as error:
        raise InputError(f"{name}: TFDS cannot open it ({_line(error)}).") from error
    image_key, label_key = _keys(name, builder.info.features)
    if not builder.is_prepared():
        _prepare(name, builder)
    splits = list(builder.info.splits)
    train_only = split == "validation" and (validation is not None or (splits and "validation" not in splits))
    wanted = training_split(name) if train_only else split
    available = splits + ["validation"] * ("train" in splits and "validation" not in splits) + ["all"]
    if splits and re.split(r"[\[+]", wanted)[0] not in (*splits, "all"):  # TFDS knows "train[:10%]" and "train+test"
        raise NoSuchSplit(f"split {split!r}: {name} has {', '.join(available)}.")
    if train_only:
        check_split(name, split, validation)  # before reading anything
    store = _store(name, builder, wanted, image_key, label_key)
    feature = builder.info.features[label_key]
    labels = tuple(feature.names or map(str, range(feature.num_classes)))
    known = KNOWN.get(_base(name))
    published = None
    if known is not None and known.train == wanted and known.sizes[wanted] == store.size:
        published = (known.mean, known.std)
    data = ImageData(name, wanted, labels, store, published=published)
    return cut_out(data, split, validation, seed) if train_only or wanted in ("train", training_split(name)) else data


def training_split(name: str) -> str:
    """The split that the papers train on: ``"train"``, or ``"train+extra"`` for SVHN."""
    known = KNOWN.get(_base(name))
    return known.train if known else "train"


def _base(name: str) -> str:
    """The name of the data set without configuration and version: ``"mnist:3.0.1"`` becomes ``"mnist"``."""
    return re.split("[/:]", name)[0]


def _names() -> list[str]:
    import tensorflow_datasets as tfds

    return tfds.list_builders(with_community_datasets=False)


def _line(error: BaseException, limit: int = 200) -> str:
    """Format an error as part of one line."""
    told = str(error) if type(error) in (AssertionError, ConnectionError) else f"{type(error).__name__}: {error}"
    text = " ".join(told.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _keys(name: str, features: Any) -> tuple[str, str]:
    """The keys of the image feature and of the class feature."""
    import tensorflow_datasets as tfds

    items = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    images = [key for key, item in items.items() if isinstance(item, tfds.features.Image)]
    labels = [key for key, item in items.items() if isinstance(item, tfds.features.ClassLabel)]
    images = ["image"] if "image" in images else images
    labels = ["label"] if "label" in labels else labels
    if len(images) != 1 or len(labels) != 1:
        raise InputError(f"{name}: its examples are not one image and one class each (features: {', '.join(items)}).")
    feature = items[images[0]]
    if np.dtype(feature.np_dtype) != np.uint8:
        raise InputError(f"{name}: its images are {np.dtype(feature.np_dtype)}; only 8-bit images (uint8) can be used.")
    return images[0], labels[0]


def _prepare(name: str, builder: Any) -> None:
    """Download and prepare a data set; remove partial files on failure."""
    parts = len(Path(builder.info.full_name).parts)
    root = Path(builder.data_dir).parents[parts - 1]
    remedy = f"prepare it with TFDS on a machine with network and copy {builder.name}/ into {root}, or pass its location as data_dir."
    with _swept(root, builder.name):
        try:
            _check_download(builder, root)
            # TFDS prints progress on standard output, which is reserved for the caller's results.
            with contextlib.redirect_stdout(sys.stderr):
                builder.download_and_prepare()
        except AssertionError as error:  # TFDS raises it if the licence requires a manual download
            raise InputError(f"{name}: {_line(error, 600)}") from error
        except ModuleNotFoundError as error:
            raise InputError(f"{name}: TFDS needs {error.name} to read it; pip install {error.name}.") from error
        except Exception as error:
            raise InputError(f"{name} is not in {root} and cannot be downloaded ({_line(error)}); {remedy}") from error


def _check_download(builder: Any, root: Path) -> None:
    """Raise predictable errors before the download starts, and at once if TFDS would take minutes to report them.

    Nothing is checked under `tfds.testing.mock_data`, which replaces the preparation.
    """
    import requests

    if not type(builder).download_and_prepare.__module__.startswith("tensorflow_datasets.core"):
        return
    for package in _PACKAGES.get(builder.name, ()):
        if importlib.util.find_spec(package) is None:
            raise ModuleNotFoundError(package, name=package)
    downloaded = root / "downloads" / builder.name
    urls = [url for url in builder.url_infos or () if url.startswith("http")]
    if builder.MANUAL_DOWNLOAD_INSTRUCTIONS or not urls or (downloaded.is_dir() and any(downloaded.iterdir())):
        return
    try:
        requests.get(urls[0], stream=True, timeout=_PATIENCE).close()
    except requests.RequestException as error:
        raise ConnectionError(f"no connection to {urlsplit(urls[0]).hostname}") from error


@contextlib.contextmanager
def _swept(root: Path, name: str) -> Iterator[None]:
    """Remove what a failed preparation of ``name`` wrote below ``root``: partial files and folders that became empty.

    Complete downloads stay for the next attempt. Files that existed before are not touched.
    """

    def present() -> set[Path]:
        return {
            path for place in (root / name, root / "downloads") for path in (place, *place.rglob("*")) if path.exists()
        }

    before = present()
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]  # innermost first
    try:
        yield
    except BaseException:
        for path in present() - before:
            if re.search(r"\.tmp\.|incomplete", path.name):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
        created = sorted((path for path in present() - before if path.is_dir()), reverse=True)
        for folder in [*created, *missing]:
            with contextlib.suppress(OSError):  # not empty: it holds a complete download
                folder.rmdir()
        raise


def _store(name: str, builder: Any, split: str, image_key: str, label_key: str) -> Store:
    """The split's examples: in memory if they are small and of equal size, otherwise streamed."""
    shape = tuple(builder.info.features[image_key].shape)
    try:
        # A mocked builder knows no splits; its data is small.
        info = builder.info.splits[split] if builder.info.splits else None
    except (ValueError, KeyError, AssertionError) as error:
        raise InputError(f"split {split!r} of {name}: TFDS cannot read it ({_line(error)}).") from error
    if info is not None and info.num_examples == 0:
        raise NoSuchSplit(f"split {split!r} of {name} has no examples; choose another split.")
    store: IndexedStore | RecordStore
    if info is None or (None not in shape and info.num_examples * prod(shape) <= MEMORY_BUDGET):
        store = _in_memory(name, builder, split, image_key, label_key)
        labelled = store.labels.min() >= 0
    else:
        store = _streamed(name, builder, info, image_key, label_key)
        labelled = int(next(iter(store.read()))[1]) >= 0
    if not labelled:
        raise NoSuchSplit(f"split {split!r} of {name} has no labels; choose another split.")
    return store


def _in_memory(name: str, builder: Any, split: str, image_key: str, label_key: str) -> IndexedStore:
    try:
        dataset = builder.as_dataset(split=split, shuffle_files=False)
    except (ValueError, KeyError, AssertionError) as error:
        raise InputError(f"split {split!r} of {name}: TFDS cannot read it ({_line(error)}).") from error
    dataset = dataset.map(lambda example: (example[image_key], example[label_key]))
    if None in dataset.element_spec[0].shape:
        several, classes = zip(*dataset.as_numpy_iterator(), strict=True)
        return from_images(several, np.asarray(classes))
    images, targets = (np.concatenate(part) for part in zip(*dataset.batch(1024).as_numpy_iterator(), strict=True))
    channels = images.shape[-1]
    return from_arrays(images[..., : channels - (channels % 2 == 0)], targets)  # 2 and 4 channels include alpha


def _streamed(name: str, builder: Any, info: Any, image_key: str, label_key: str) -> RecordStore:
    import tensorflow_datasets as tfds

    features = builder.info.features
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise InputError(
            f"{name} was prepared as {builder.info.file_format.value}; prepare it with file_format='tfrecord' to stream it."
        )
    encoded = {image_key: tfds.decode.SkipDecoding()}

    def parse(record):
        example = features.deserialize_example(record, decoders=encoded)
        return example[image_key], example[label_key]

    pieces = tuple(Piece(os.fspath(run.filename), run.skip, _taken(run)) for run in info.file_instructions)
    chunk = SHUFFLE_BYTES * info.num_examples // max(info.num_bytes, 1)
    channels = 1 if features[image_key].shape[-1] == 1 else 3
    return RecordStore(pieces, parse, channels, max(1, min(chunk, info.num_examples)))


def _taken(run: Any) -> int:
    """The number of records that TFDS reads from a file; ``take=-1`` means all."""
    return run.examples_in_shard - run.skip if run.take < 0 else run.take
