"""A labelled image data set and its operations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.data import augmentation, caching, parallel, pipelines, splits, transforms
from keras_deepnets.data.pipelines import Share, View
from keras_deepnets.data.records import RecordStore
from keras_deepnets.data.stores import ArrayPixels, DiskPixels, IndexedStore, PackedPixels, Store, from_arrays
from keras_deepnets.errors import InputError, NoSuchSplit

if TYPE_CHECKING:
    import tensorflow as tf

STATISTICS_SAMPLE = 10_000
"""Number of images used to compute the statistics of a data set that is not in memory."""


@dataclass(frozen=True, eq=False)
class ImageData:
    """One split of a labelled image data set. Immutable; created by `keras_deepnets.data.load`.

    Attributes:
        name: Name of the source: ``"digits"``, a TFDS name or a folder.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
        labels: Class names. The label of an example is an index into them.
        skipped: Files that could not be decoded and were left out (only with ``skip_broken=True``).
        published: Mean and standard deviation of each channel for a known data set, which need not be computed. Otherwise None.
        left_out: Number of files in the folder that are not images, by suffix (``{".txt": 2}``).
    """

    name: str
    split: str
    labels: tuple[str, ...]
    store: Store = field(repr=False)
    skipped: tuple[str, ...] = ()
    published: tuple[tuple[float, ...], tuple[float, ...]] | None = field(default=None, repr=False)
    left_out: Mapping[str, int] = field(default_factory=dict, repr=False)
    _views: dict[View, Store] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def from_arrays(
        cls, images: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], name: str = "arrays", split: str = "all"
    ) -> ImageData:
        """Create a data set from arrays in memory.

        Args:
            images: uint8 ``[n, h, w, c]`` with 1 or 3 channels, or ``[n, h, w]``.
            targets: int ``[n]``, indices into ``labels``.
            labels: Class names.
            name: Name of the data set, for messages.
            split: Name of the split, for messages.

        Raises:
            InputError: The dtype or shape is wrong, or a target has no label.
        """
        images, targets = np.asarray(images), np.asarray(targets)
        images = images[..., None] if images.ndim == 3 else images
        if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
            raise InputError(
                f"{name}: images are {images.dtype} {images.shape}; give uint8 [n, height, width, 1 or 3]."
            )
        if targets.shape != images.shape[:1] or not np.issubdtype(targets.dtype, np.integer):
            raise InputError(f"{name}: targets are {targets.dtype} {targets.shape}; give one integer per image.")
        if len(targets) == 0 or targets.min() < 0 or targets.max() >= len(labels):
            raise InputError(f"{name}: give at least one target; each must be an index into the {len(labels)} labels.")
        return cls(name, split, tuple(labels), from_arrays(images, targets))

    @property
    def size(self) -> int:
        """Number of examples."""
        return self.store.size

    def __len__(self) -> int:
        return self.size

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int | None, int | None, int]:
        """Height and width (None where they differ between images), and channels."""
        return self.store.image_shape

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """Number of examples in each class, in the order of `labels`."""
        if isinstance(self.store, RecordStore) and self.store.class_counts is not None:
            return self.store.class_counts
        if isinstance(self.store, IndexedStore):
            targets = self.store.labels
        else:
            targets = np.fromiter(self.store.read().map(lambda _, label: label).as_numpy_iterator(), np.int64)
        return tuple(int(count) for count in np.bincount(targets, minlength=self.classes))

    def examples(self) -> tf.data.Dataset:
        """The examples one by one in a fixed order: (image uint8 ``[h, w, c]``, label int64), neither shuffled nor batched."""
        import tensorflow as tf

        dataset = self.store.read().map(lambda payload, label: (self.store.open(payload), label), parallel.calls())
        return dataset.apply(tf.data.experimental.assert_cardinality(self.size)).prefetch(parallel.READY)

    def pick(self, positions: Sequence[int]) -> list[np.ndarray]:
        """The images at the given positions of `examples`, uint8 ``[h, w, c]`` each. Other images are not decoded.

        The images come in the order of `positions`.

        Raises:
            InputError: A position is not in the data.
        """
        import tensorflow as tf

        wanted = np.unique(np.asarray(positions, np.int64))
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self.size:
            raise InputError(f"positions must be from 0 to {self.size - 1}; they are {wanted[0]} to {wanted[-1]}.")
        if isinstance(self.store, IndexedStore):
            payloads = self.store.take(np.isin(np.arange(self.size), wanted)).read()
        else:
            numbered = self.store.read().enumerate().filter(lambda at, _: tf.reduce_any(at == wanted))
            payloads = numbered.map(lambda _, example: example).take(len(wanted))
        images = payloads.map(lambda payload, _: self.store.open(payload)).as_numpy_iterator()
        found = dict(zip(wanted.tolist(), images, strict=True))
        return [found[int(position)] for position in positions]

    def batches(
        self,
        batch_size: int,
        image_size: int | tuple[int, int] | None = None,
        channels: int | None = None,
        training: bool = False,
        augment: str | augmentation.Policy | None = None,
        seed: int = 0,
        crop_fraction: float = 1.0,
        interpolation: str = "bilinear",
        drop_remainder: bool = False,
        *,
        first_epoch: int = 0,
        repeat: bool = False,
        copies: int = 1,
        first_step: int = 0,
        share: Share | None = None,
    ) -> tf.data.Dataset:
        """Batches of equal-sized images: (uint8 ``[b, h, w, c]``, int64 ``[b]``). Mixed images have labels float32 ``[b, classes]``.

        Without ``training`` the order is fixed and every image goes through `transforms.evaluation_view`. With it, each epoch is shuffled
        anew and augmented. Epoch k depends on ``seed`` and k alone, so an interrupted run can resume with ``first_epoch=k`` and get the
        same batches.

        Each iteration over the dataset gives the next epoch. With ``repeat``, one endless dataset holds all epochs; pass
        ``steps_per_epoch=data.steps(batch_size)`` to Keras' ``fit``. There is then no gap between epochs. An extra iterator elsewhere
        cannot shift the epochs.

        Args:
            batch_size: Examples per batch.
            image_size: Size in pixels: one number for a square, or (height, width). None: the images' own size.
            channels: 1 or 3. None: the images' own channels.
            training: Whether to shuffle and augment.
            augment: Augmentation policy: a name from `augmentation.policies`, several names joined by ``+`` (`augmentation.get`), or an
                `augmentation.Policy`.
            seed: Seed for order and augmentation.
            crop_fraction: See `transforms.evaluation_view`. Policies that choose their own window do not use it.
            interpolation: Resizing method, one of those of `tf.image.resize`.
            drop_remainder: Whether to drop a last, smaller batch.
            first_epoch: The epoch that training starts with.
            repeat: Return one endless dataset of epochs instead of one epoch per iteration.
            copies: Repeated augmentation: an epoch shows a part of the images, each of them ``copies`` times.
            first_step: With ``repeat``: the batch of the first epoch that training starts with. Earlier ones are not read.
            share: The part of each batch that this worker reads. None: all of it. It needs training=True and drop_remainder=True.

        Raises:
            InputError: The images differ in size and ``image_size`` is missing, the policy is unknown, or a value is out of range.
        """
        policy = augmentation.get(augment)
        if policy.name != "none" and not training:
            raise InputError(f"augment={policy.name!r} needs training=True: evaluation does not augment images.")
        if repeat and not training:
            raise InputError("repeat=True needs training=True: evaluation is one pass.")
        if isinstance(copies, bool) or copies != int(copies) or copies < 1 or (copies > 1 and not training):
            raise InputError(f"copies={copies!r} must be a positive whole number, and needs training=True.")
        if first_step and not repeat:
            raise InputError(f"first_step={first_step!r} needs repeat=True.")
        if share is not None and (not (training and drop_remainder) or batch_size % share.count):
            raise InputError(
                f"batch_size={batch_size} must be divisible by the {share.count} workers that share each batch, with training=True and "
                "drop_remainder=True."
            )
        steps = self.steps(batch_size, drop_remainder)
        if steps == 0:
            raise InputError(f"batch_size={batch_size} with drop_remainder leaves no batch of {self.size} examples.")
        if policy.of_mean is not None:
            policy = policy.of_mean(self.statistics()[0])
        view = self._view(image_size, channels, crop_fraction, interpolation)
        store = self.store if policy.window is not None else self._viewed(view, training)
        if not training:
            return pipelines.evaluation(store, view, batch_size, drop_remainder)
        return pipelines.training(
            store,
            view,
            policy,
            batch_size,
            drop_remainder,
            seed,
            first_epoch,
            repeat,
            self.classes,
            int(copies),
            first_step,
            share,
        )

    def steps(self, batch_size: int, drop_remainder: bool = False) -> int:
        """Number of batches in an epoch."""
        if isinstance(batch_size, bool) or int(batch_size) != batch_size or batch_size < 1:
            raise InputError(f"batch_size={batch_size!r} must be a positive whole number.")
        return pipelines.steps_of(self.size, batch_size, drop_remainder)

    def divide(self, size: int | float, seed: int = 0) -> tuple[ImageData, ImageData]:
        """Cut out a validation set and return (the rest, the cut-out part). The parts are disjoint, and each class is in proportion.

        Args:
            size: Number of examples, or a fraction.
            seed: Chooses the examples.

        Raises:
            InputError: Either part would be empty.
        """
        count = splits.cut_size(size, self.size)
        if count == 0:
            raise InputError(f"validation={size!r}: at least one example must be cut out of {self.name}.")
        rest, cut = self.store.divide(count, seed)
        return replace(self, store=rest), replace(self, store=cut, split="validation")

    def part(self, share: Share) -> ImageData:
        """One worker's part of the examples. The parts of all workers are disjoint and hold every example.

        Raises:
            InputError: There are fewer examples than workers.
        """
        if share.count > self.size:
            raise InputError(
                f"{self.name}: {self.size} {self.split} examples cannot be shared by {share.count} workers."
            )
        return replace(self, store=self.store.part(share.index, share.count))

    def take(self, size: int, seed: int = 0) -> ImageData:
        """At most ``size`` examples, chosen by ``seed``: each class in proportion, with at least one example each if possible.

        Raises:
            InputError: The size is not a whole number of at least 1.
        """
        if isinstance(size, bool) or int(size) != size or size < 1:
            raise InputError(f"size={size!r} must be a whole number of examples, at least 1.")
        if size >= self.size:
            return self
        store, size = self.store, int(size)
        part = store.sample(size, seed) if isinstance(store, IndexedStore) else store.divide(size, seed)[1]
        return replace(self, store=part)

    def statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation of each channel over all pixels, in 0–255 units, for `keras_deepnets.Scaling`.

        A known TFDS data set (`catalogue.KNOWN`) has published values. Otherwise the values are exact for data in memory, and come from
        10,000 examples for other data. They are computed once. A channel that never varies gets a standard deviation of 1, so that it can
        be used as a divisor.
        """
        return self.published or self._statistics

    @cached_property
    def _statistics(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        # Counts of the 256 values are exact for any number of pixels and need no second pass.
        channels = self.image_shape[-1]
        counts = np.zeros((channels, 256), np.int64)
        for pixels in self._pixels():
            for channel in range(channels):
                counts[channel] += np.bincount(pixels[:, channel], minlength=256)
        values, total = np.arange(256, dtype=np.float64), counts.sum(axis=1)
        mean = counts @ values / total
        variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / total
        std = np.where(variance > 0, np.sqrt(variance), 1.0)
        return tuple(mean.tolist()), tuple(std.tolist())

    def _pixels(self) -> Iterator[np.ndarray]:
        """The pixels in chunks, uint8 ``[n, channels]``."""
        channels = self.image_shape[-1]
        store = self.store
        if isinstance(store, IndexedStore) and isinstance(store.pixels, ArrayPixels):
            for start in range(0, store.size, 1024):
                yield store.pixels.images[store.rows[start : start + 1024]].reshape(-1, channels)
        elif isinstance(store, IndexedStore) and isinstance(store.pixels, PackedPixels):
            yield from store.pixels.chunks(store.rows)
        else:
            for image, _ in self.examples().take(STATISTICS_SAMPLE).as_numpy_iterator():
                yield image.reshape(-1, channels)

    def _view(
        self,
        image_size: int | tuple[int, int] | None,
        channels: int | None,
        crop_fraction: float,
        interpolation: str,
    ) -> View:
        height, width, own_channels = self.image_shape
        if image_size is not None:
            height, width = (image_size, image_size) if isinstance(image_size, (int, np.integer)) else image_size
        if height is None or width is None:
            raise InputError(f"{self.name}: its images differ in size; give image_size, e.g. image_size=224.")
        channels = own_channels if channels is None else channels
        transforms.check_view(height, width, channels, crop_fraction, interpolation)
        return View(int(height), int(width), channels, float(crop_fraction), interpolation)

    def _viewed(self, view: View, training: bool) -> Store:
        """The images at the view's size, resized once. They are cached in memory if they fit, otherwise on disk.

        Data streamed from record files and data read only once stay unchanged.
        """
        store = self.store
        decoded = store.in_memory or (isinstance(store, IndexedStore) and isinstance(store.pixels, DiskPixels))
        if (self.image_shape == view.shape and decoded) or not (training or store.in_memory):
            return store
        if view not in self._views:
            if view.fits(store):
                self._views[view] = pipelines.materialise(store, view)
            elif training and isinstance(store, IndexedStore):
                self._views[view] = caching.on_disk(store, view)
            else:
                return store
        return self._views[view]


def cut_out(train: ImageData, split: str, validation: int | float | None, seed: int) -> ImageData:
    """The train or validation split of a source that has no separate validation split.

    Raises:
        InputError: The size is invalid.
        NoSuchSplit: See `check_split`.
    """
    check_split(train.name, split, validation)
    size = 0 if validation is None else splits.cut_size(validation, train.size)
    if split != "validation":
        return train.divide(size, seed)[0] if size else train
    return train.divide(size, seed)[1]


def check_split(name: str, split: str, validation: int | float | None) -> None:
    """Raise `NoSuchSplit` for a validation split without a size, which would overlap with the train split.

    Args:
        name: Name of a source that has no separate validation split.
        split: The requested split.
        validation: The size.
    """
    if split == "validation" and not validation:
        raise NoSuchSplit(
            f"{name} has no validation split of its own: give validation=0.1 (a fraction or a number of examples "
            "to cut out of train). Use the same value for the train split."
        )
