"""Measure the images per second of the input pipeline alone, without a network."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from keras_deepnets.benchmark.load import Bystander
from keras_deepnets.benchmark.results import threads
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_deepnets.data import ImageData

WINDOWS = 5
"""Number of time windows for the median."""

_SMALL, _LARGE = 32, 224
_CROP = 0.875  # 224 of 256 pixels
_PHOTOGRAPH = (375, 500)
_FILES = 256
_REPEATED = 32  # repeats of the files, to imitate a data set that does not fit in memory


@dataclass(frozen=True)
class Case:
    """One pipeline.

    Attributes:
        name: Name of the pipeline.
        images: Images that it reads.
        arguments: Arguments for `ImageData.batches`.
    """

    name: str
    images: ImageData
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Rate:
    """Throughput of one pipeline.

    Attributes:
        name: Name of the pipeline.
        place: Location of its images: ``memory``, ``files`` or ``shards``.
        augment: Augmentation policy. ``view`` means the evaluation view.
        height: Image height of the batches in pixels.
        width: Image width of the batches in pixels.
        batch: Batch size.
        images_per_second: Median over the time windows.
        low: Images per second of the slowest window.
        high: Images per second of the fastest window.
        windows: Number of windows.
        threads: Number of processors that the pipeline could use.
        others_busy: Number of processors busy with other processes meanwhile. 0 on an idle machine.
    """

    name: str
    place: str
    augment: str
    height: int
    width: int
    batch: int
    images_per_second: float
    low: float
    high: float
    windows: int
    threads: int
    others_busy: float | None


def measure(case: Case, seconds: float) -> Rate:
    """Take batches for `WINDOWS` windows that last ``seconds`` in total, after one more window of warm-up."""
    window = seconds / WINDOWS
    batches = _batches(case)
    (height, width), _ = _run(batches, window)  # warm-up: tf.data tunes its number of threads
    bystander = Bystander()
    rates = [_run(batches, window)[1] for _ in range(WINDOWS)]
    return Rate(
        case.name,
        place_of(case.images),
        case.arguments.get("augment") or ("none" if case.arguments.get("training") else "view"),
        height,
        width,
        case.arguments["batch_size"],
        statistics.median(rates),
        min(rates),
        max(rates),
        WINDOWS,
        threads(),
        bystander.others(),
    )


def _run(batches: Iterator[tf.Tensor], seconds: float, clock: Callable[[], float] = time.perf_counter):
    """Take batches for `seconds`, at least one. Return their height and width, and the images per second."""
    count, begin = 0, clock()
    while True:
        images = next(batches)
        count += images.shape[0]
        if (elapsed := clock() - begin) >= seconds and elapsed > 0:
            return images.shape[1:3], count / elapsed


def _batches(case: Case) -> Iterator[tf.Tensor]:
    """Endless image batches."""
    if case.arguments.get("training"):
        dataset = case.images.batches(**case.arguments, repeat=True)
    else:
        dataset = _large(case).batches(**case.arguments).repeat()
    return (images for images, _ in dataset)


def _large(case: Case) -> ImageData:
    """Repeat the images of an evaluation until their views exceed the cache, so that no pass reuses them.

    Images that are already in memory stay unchanged.
    """
    from keras_deepnets.data import pipelines

    images, size = case.images, case.arguments["image_size"]
    if images.store.in_memory:
        return images
    height, width = size if isinstance(size, tuple) else (size, size)
    wanted = pipelines.VIEW_BUDGET // (height * width * images.image_shape[-1]) + 1
    return _repeated(images, -(-wanted // images.size))


def _repeated(images: ImageData, times: int) -> ImageData:
    """A data set that repeats each example ``times`` times."""
    from keras_deepnets.data import ImageData
    from keras_deepnets.data.records import SHUFFLE_BYTES, RecordStore
    from keras_deepnets.data.stores import IndexedStore

    store = images.store
    if isinstance(store, RecordStore):
        chunk = SHUFFLE_BYTES * images.size // sum(Path(piece.path).stat().st_size for piece in store.pieces)
        store = dataclasses.replace(
            store, pieces=store.pieces * times, chunk=max(1, min(chunk, images.size * times)), class_counts=None
        )
    else:
        indexed = cast(IndexedStore, store)  # the only other kind
        store = IndexedStore(indexed.pixels, np.tile(indexed.rows, times), np.tile(indexed.labels, times))
    return ImageData(images.name, images.split, images.labels, store)


def place_of(images: ImageData) -> str:
    """Location of a data set's images: ``shards``, ``memory`` or ``files``."""
    from keras_deepnets.data.records import RecordStore

    if isinstance(images.store, RecordStore):
        return "shards"
    return "memory" if images.store.in_memory else "files"


def of_source(images: ImageData, augment: str | None, image_size: int | None, batch: int | None) -> list[Case]:
    """The pipelines of a user's images: training with a policy, and evaluation.

    Args:
        images: The data set.
        augment: Augmentation policy. None chooses one by the image size.
        image_size: Image side in pixels. None for the images' own size, or 224 if they differ in size.
        batch: Batch size. None for 128 small images, or 64 otherwise.

    Raises:
        InputError: The policy is unknown.
    """
    from keras_deepnets.data import augmentation

    height, width, _ = images.image_shape
    size = image_size or (_LARGE if height is None or width is None else (height, width))
    small = max(size if isinstance(size, tuple) else (size, size)) <= 2 * _SMALL
    policy = augmentation.get(augment or ("pad_crop_flip" if small else "random_resized_crop_flip")).name
    arguments = {"batch_size": batch or (128 if small else 64), "image_size": size}
    return [
        Case("training", images, arguments | {"training": True, "augment": None if policy == "none" else policy}),
        Case("evaluation", images, arguments | {"crop_fraction": 1.0 if small else _CROP}),
    ]


def synthetic(folder: Path) -> list[Case]:
    """Pipelines like those of CIFAR and ImageNet, on synthetic images.

    Args:
        folder: An empty folder for JPEG files and their shards.
    """
    files, sharded = _photographs(folder)
    train = {"batch_size": 64, "image_size": _LARGE, "training": True, "augment": "random_resized_crop_flip"}
    view = {"batch_size": 64, "image_size": _LARGE, "crop_fraction": _CROP}
    small = {"batch_size": 128, "training": True, "augment": "pad_crop_flip"}
    return [
        Case("like CIFAR, training", _small_images(), small),
        Case("like ImageNet, training", files, train),
        Case("like ImageNet, training", sharded, train),
        Case("like ImageNet, evaluation", files, view),
        Case("like ImageNet, evaluation", sharded, view),
    ]


def _small_images(count: int = 50_000) -> ImageData:
    from keras_deepnets.data import ImageData

    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, _SMALL, _SMALL, 3), np.uint8)
    return ImageData.from_arrays(images, np.arange(count) % 10, tuple("0123456789"), "noise")


def _photographs(folder: Path) -> tuple[ImageData, ImageData]:
    """Synthetic JPEG files as in an epoch of a large data set, and shards of them. Few files are on disk, each is read many times."""
    from keras_deepnets.data import ImageData, shard_writing, shards
    from keras_deepnets.data.stores import FilePixels, IndexedStore

    paths = []
    for number in range(_FILES):
        path = folder / "photographs" / ("even", "odd")[number % 2] / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(photograph(number))
        paths.append(str(path))
    rows = np.arange(_FILES)
    store = IndexedStore(FilePixels(np.asarray(paths, object)), rows, rows % 2)
    files = ImageData(str(folder), "train", ("even", "odd"), store)
    shard_writing.write(folder / "photographs", folder / "shards", 4, split="all")
    return _repeated(files, _REPEATED), _repeated(shards.load(folder / "shards", "all"), _REPEATED)


def photograph(number: int, size: tuple[int, int] = _PHOTOGRAPH) -> bytes:
    """A JPEG file of ``size`` (height, width): smooth patches and grain. Its bytes and decoding time resemble those of a photograph."""
    import tensorflow as tf

    height, width = size
    seed = tf.constant([0, number])
    patches = tf.random.stateless_uniform([1, 12, 16, 3], seed, 0.0, 255.0)
    smooth = tf.image.resize(patches, [height, width], "bicubic")[0]
    grain = tf.random.stateless_normal([height, width, 1], seed, 0.0, 12.0)
    return tf.io.encode_jpeg(tf.saturate_cast(smooth + grain, tf.uint8), quality=90).numpy()


def check_source(source: str | None, augment: str | None, image_size: int | None) -> None:
    """Check the arguments before TensorFlow is loaded.

    Raises:
        InputError: The policy is unknown, or an option needs a source and none is given.
    """
    from keras_deepnets.data import augmentation

    augmentation.get(augment)
    if source is None and (augment is not None or image_size is not None):
        raise InputError("--augment and --image-size are for a SOURCE; name one: benchmark --data SOURCE.")
