"""Input pipelines of images with boxes: one by one in order, or in batches of a seeded epoch.

All randomness is a pure function of (seed, epoch, position), computed with stateless operations, as for classification. A run that used
the first k examples of an epoch gets the others with ``start=k``, bit for bit.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.data import parallel
from keras_deepnets.data.channels import to_dtype
from keras_deepnets.data.pipelines import Share
from keras_deepnets.detection.data import geometry
from keras_deepnets.detection.data.annotations import Annotation
from keras_deepnets.detection.data.augmentation import Policy
from keras_deepnets.detection.data.geometry import Sample
from keras_deepnets.detection.data.reading import Images
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass(frozen=True)
class View:
    """The size of the images in a batch.

    Attributes:
        min_sizes: Lengths of the shorter side, one of which is drawn for each image. Empty: no resizing.
        max_size: Largest length of the longer side. None: no limit.
        size: Height and width to which every image is padded. None: the largest of the batch.
        divisor: The padded height and width are multiples of it.
        dtype: ``"float32"`` or ``"uint8"``; both hold values from 0 to 255.
    """

    min_sizes: tuple[int, ...] = ()
    max_size: int | None = None
    size: tuple[int, int] | None = None
    divisor: int = 1
    dtype: str = "float32"


def view_of(
    min_size: int | Sequence[int] | None,
    max_size: int | None,
    size: int | tuple[int, int] | None,
    divisor: int,
    dtype: str,
    policy: Policy,
) -> View:
    """Check the arguments of `DetectionData.batches` that describe the images.

    Raises:
        InputError: A value is out of range.
    """
    chosen = () if min_size is None else (min_size,) if isinstance(min_size, (int, np.integer)) else tuple(min_size)
    if size is None and policy.size is not None:
        size = policy.size
    fixed = (size, size) if isinstance(size, (int, np.integer)) else size
    for name, value in [
        *(("min_size", each) for each in chosen),
        ("max_size", 1 if max_size is None else max_size),
        *(("size", each) for each in fixed or ()),
        ("divisor", divisor),
    ]:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise InputError(f"{name}={value!r} must be a positive whole number.")
    if dtype not in ("float32", "uint8"):
        raise InputError(f"dtype={dtype!r}: choose float32 or uint8.")
    if fixed is not None and any(side % divisor for side in fixed):
        raise InputError(f"size={fixed} is not a multiple of divisor={divisor}; give multiples.")
    return View(tuple(map(int, chosen)), max_size, fixed and (int(fixed[0]), int(fixed[1])), int(divisor), dtype)


def check_fit(view: View, policy: Policy, annotations: Sequence[Annotation]) -> None:
    """Raise `InputError` if an image may become larger than the fixed size of the view."""
    if view.size is None:
        return
    if policy.size is not None:
        largest = np.array([policy.size, policy.size], float)
    elif policy.crops and view.max_size is not None:  # any aspect ratio
        largest = np.full(2, view.max_size * policy.factor)
    else:
        sides = np.array([(each.height, each.width) for each in annotations], float)
        ratios = np.full(len(sides), np.inf)
        if view.min_sizes:
            ratios = max(view.min_sizes) / sides.min(axis=1)
        if view.max_size is not None:
            ratios = np.minimum(ratios, view.max_size / sides.max(axis=1))
        ratios = np.where(np.isfinite(ratios), ratios, 1.0)
        largest = np.floor(sides * ratios[:, None] * policy.factor).max(axis=0)
    if (largest > view.size).any():
        height, width = (int(side) for side in largest)
        raise InputError(
            f"size={view.size} is smaller than images may become ({height}x{width}); enlarge size or lower max_size."
        )


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of all images as flat tensors, sliced by image."""

    values: dict[str, tf.Tensor]
    ends: tf.Tensor

    def of(self, row: tf.Tensor) -> dict[str, tf.Tensor]:
        """The objects of image number ``row``."""
        start, stop = self.ends[row], self.ends[row + 1]
        return {key: value[start:stop] for key, value in self.values.items()}


def objects_of(annotations: Sequence[Annotation]) -> Objects:
    """The objects of annotations."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        flat = {
            key: tf.constant(np.concatenate([getattr(each, key) for each in annotations])) for key in geometry.OBJECTS
        }
        counts = [len(each) for each in annotations]
        return Objects(flat, tf.constant(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)))


def examples(annotations: Sequence[Annotation], images: Images) -> tf.data.Dataset:
    """The examples one by one in their order."""
    import tensorflow as tf

    objects = objects_of(annotations)
    names = tf.constant([each.image_id for each in annotations])

    def single(row: tf.Tensor) -> Sample:
        return {"image": images.load(row), **objects.of(row), "image_id": names[row]}

    dataset = tf.data.Dataset.range(len(annotations)).map(single, parallel.calls(), deterministic=True)
    return _finish(dataset)


def batches(
    annotations: Sequence[Annotation],
    images: Images,
    view: View,
    policy: Policy,
    batch_size: int,
    *,
    seed: int,
    epochs: range,
    shuffle: bool,
    drop_remainder: bool,
    start: int,
    share: Share,
    aspect_groups: int | None,
) -> tf.data.Dataset:
    """The batches of one or more epochs; see `DetectionData.batches`. More than one need ``drop_remainder``."""
    import tensorflow as tf

    objects = objects_of(annotations)
    size, groups = len(annotations), None if aspect_groups is None else groups_of(images.shapes, aspect_groups)

    def rows(epoch: tf.Tensor) -> tf.data.Dataset:
        order, draws = plan(size, policy.draws + 1, seed, epoch, shuffle)
        if groups is not None:
            arrange = functools.partial(grouped, groups=groups, batch_size=batch_size)
            order = tf.numpy_function(arrange, [order], tf.int64)
            order = tf.ensure_shape(order, [size])
        first = tf.where(epoch == epochs.start, tf.constant(start, tf.int64), 0)
        last = first + (size - first) // batch_size * batch_size if drop_remainder else size
        values = (share.rows(each[first:last], batch_size) for each in (order, draws, tf.repeat(epoch, size)))
        return tf.data.Dataset.from_tensor_slices(tuple(values))

    def single(row: tf.Tensor, numbers: tf.Tensor, epoch: tf.Tensor) -> Sample:
        sample = {"image": images.load(row), **objects.of(row), "factor": tf.constant(1.0, tf.float64)}
        sample = policy.apply(sample, numbers[1:])
        if policy.size is None:
            sample = _resized(sample, view, numbers[0])
        return _finished(sample, view) | {"index": row, "epoch": epoch}

    dataset = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(rows)
    dataset = dataset.map(single, parallel.calls(), deterministic=True)
    shapes = {key: spec.shape for key, spec in dataset.element_spec.items()}
    if view.size is not None:
        shapes["images"] = tf.TensorShape([*view.size, 3])
    dataset = dataset.padded_batch(batch_size // share.count, shapes, drop_remainder=drop_remainder)
    if view.divisor > 1 and view.size is None:
        dataset = dataset.map(
            lambda batch: batch | {"images": padded(batch["images"], view.divisor)},
            parallel.calls(),
            deterministic=True,
        )
    return _finish(dataset)


def plan(size: int, draws: int, seed: int, epoch: int | tf.Tensor, shuffle: bool) -> tuple[tf.Tensor, tf.Tensor]:
    """The order of an epoch int64 ``[size]``, and its uniform numbers float32 ``[size, draws]`` by position in the epoch."""
    import tensorflow as tf

    with tf.device("CPU:0"):
        base = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
        order = tf.range(size, dtype=tf.int64)
        if shuffle:
            order = tf.random.experimental.stateless_shuffle(order, base, alg="philox")
        of_draws = tf.random.experimental.stateless_fold_in(base, 1, alg="philox")
        return order, tf.random.stateless_uniform([size, draws], of_draws, alg="philox")


def groups_of(shapes: np.ndarray, factor: int) -> np.ndarray:
    """The group of each image by its aspect ratio, int64 ``[n]``, as in torchvision's references for detection.

    Args:
        shapes: heights and widths ``[n, 2]``.
        factor: the ratios from 1/2 to 2 are divided into ``2 * factor`` intervals, equal on a logarithmic scale. 0: portrait and landscape.
    """
    edges = 2.0 ** np.linspace(-1, 1, 2 * factor + 1) if factor else np.ones(1)
    return np.searchsorted(edges, shapes[:, 1] / shapes[:, 0], side="right")


def grouped(order: np.ndarray, groups: np.ndarray, batch_size: int) -> np.ndarray:
    """The same images in an order in which those of a batch belong to one group.

    A batch comes when its last image comes. Images that fill no batch of their group follow at the end, group after group.
    """
    waiting: dict[int, list[int]] = {}
    found: list[int] = []
    for row in order.tolist():
        batch = waiting.setdefault(int(groups[row]), [])
        batch.append(row)
        if len(batch) == batch_size:
            found += batch
            batch.clear()
    rest = [row for group in sorted(waiting) for row in waiting[group]]
    return np.array(found + rest, order.dtype)


def _resized(sample: Sample, view: View, draw: tf.Tensor) -> Sample:
    """The sample at the view's size."""
    import tensorflow as tf

    shorter = None
    if view.min_sizes:
        shorter = tf.gather(tf.constant(view.min_sizes), tf.cast(draw * len(view.min_sizes), tf.int32))
    return geometry.resize(sample, geometry.target_size(sample, shorter, view.max_size))


def _finished(sample: Sample, view: View) -> Sample:
    """The values of one example in a batch."""
    import tensorflow as tf

    image = tf.cast(sample["image"], tf.float32)
    return {
        "images": tf.ensure_shape(to_dtype(image, tf.as_dtype(view.dtype)), [None, None, 3]),
        "sizes": tf.shape(image)[:2],
        **{key: sample[key] for key in geometry.OBJECTS},
        "count": tf.size(sample["labels"]),
    }


def padded(images: Any, divisor: int) -> tf.Tensor:
    """Pad images ``[n, h, w, c]`` with zeros at the bottom and right to multiples of ``divisor``."""
    import tensorflow as tf

    rest = -tf.shape(images)[1:3] % divisor
    return tf.pad(images, [[0, 0], [0, rest[0]], [0, rest[1]], [0, 0]])


def _finish(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Set the final options and prefetching of every pipeline."""
    import tensorflow as tf

    options = parallel.options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.prefetch(parallel.READY).with_options(options)
