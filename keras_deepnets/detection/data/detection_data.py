"""A data set of images with boxes and its operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.data import foreign, splits
from keras_deepnets.data.pipelines import Share
from keras_deepnets.detection.data import augmentation, pipelines
from keras_deepnets.detection.data.annotations import Annotation, Dropped, some
from keras_deepnets.detection.data.reading import Images
from keras_deepnets.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

MIN_SIZE, MAX_SIZE = 800, 1333
"""Length of the shorter side, and limit of the longer one, in Faster R-CNN's experiments on COCO."""


def check_groups(aspect_groups: Any) -> None:
    """Raise InputError unless `aspect_groups` is None or a whole number from 0."""
    if aspect_groups is not None and (
        isinstance(aspect_groups, bool) or not isinstance(aspect_groups, int) or aspect_groups < 0
    ):
        raise InputError(f"aspect_groups={aspect_groups!r} must be a whole number of at least 0, e.g. 3, or None.")


@dataclass(frozen=True, eq=False)
class DetectionData:
    """One split of a detection data set. Immutable; created by `keras_deepnets.detection.data.load`.

    Attributes:
        name: The source: a folder, a file or a TFDS name.
        split: The split.
        classes: Class names; label k means ``classes[k]``. The name of label 0 is ``"background"``, which no object has.
        annotations: One per image. Images without objects are included.
        dropped: The boxes that were left out. A part of a data set keeps the record of the whole.
        cached: Whether to keep decoded images in memory or on disk.
    """

    name: str
    split: str
    classes: tuple[str, ...]
    annotations: tuple[Annotation, ...] = field(repr=False)
    dropped: Dropped = field(default_factory=Dropped, repr=False)
    cached: bool = field(default=True, repr=False)

    @property
    def size(self) -> int:
        """Number of images."""
        return len(self.annotations)

    def __len__(self) -> int:
        return self.size

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """Number of objects of each class, in the order of `classes`; crowds and difficult objects included."""
        labels = np.concatenate([np.zeros(0, np.int64), *(each.labels for each in self.annotations)])
        return tuple(np.bincount(labels, minlength=len(self.classes)).tolist())

    def report(self) -> str:
        """One line about the boxes that were left out."""
        return f"{self.name}, {self.split}: {self.dropped.report()}"

    def image(self, index: int) -> np.ndarray:
        """Image number ``index``, uint8 ``[h, w, 3]``, upright.

        Raises:
            InputError: The file cannot be decoded, or the index is out of range.
        """
        import tensorflow as tf

        (index,) = self._checked([index])
        source = self.annotations[index].image
        try:
            return foreign.decode(source.read()).numpy()
        except (OSError, tf.errors.InvalidArgumentError) as error:
            raise InputError(f"{source.path} cannot be decoded as an image; repair or replace it.") from error

    def check(self) -> None:
        """Decode every image once. Images that fit the cache are then in it.

        Loading reads only the headers, so a truncated file would otherwise stop the first epoch.

        Raises:
            InputError: Images cannot be decoded.
        """
        good = set(self._images.decodable())
        bad = [each.image.path for index, each in enumerate(self.annotations) if index not in good]
        if bad:
            raise InputError(
                f"{self.name}: {len(bad):,} of {self.size:,} images cannot be decoded ({some(bad)}); repair or replace them."
            )

    def subset(self, indices: Sequence[int] | np.ndarray) -> DetectionData:
        """The images with the given numbers, in this order.

        Raises:
            InputError: A number is out of range, or there are none.
        """
        chosen = self._checked(indices)
        if not chosen:
            raise InputError(f"{self.name}: a subset needs at least one image.")
        return replace(self, annotations=tuple(self.annotations[index] for index in chosen))

    def split_off(self, size: int | float, seed: int = 0) -> tuple[DetectionData, DetectionData]:
        """Cut out a validation set and return (the rest, the cut-out part). Both keep the order of the images.

        Images are chosen by a hash of the seed and their identity, so images added later do not move the others.

        Args:
            size: Number of images, or a fraction.
            seed: Chooses the images.

        Raises:
            InputError: Either part would be empty.
        """
        count = splits.cut_size(size, self.size)
        if count == 0:
            raise InputError(f"split_off({size!r}): at least one image must be cut out of {self.name}.")
        cut = set(splits.shuffled([each.image_id for each in self.annotations], seed)[:count])
        rest = self.subset([index for index in range(self.size) if index not in cut])
        return rest, replace(self.subset(sorted(cut)), split="validation")

    def examples(self) -> tf.data.Dataset:
        """The examples one by one in their order, neither resized nor batched.

        Each is a dictionary of ``image`` uint8 ``[h, w, 3]``, ``boxes`` float32 ``[n, 4]``, ``labels`` int64 ``[n]``, ``crowd`` and
        ``difficult`` bool ``[n]``, and ``image_id``, a string.
        """
        return pipelines.examples(self.annotations, self._images)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        epochs: int = 1,
        shuffle: bool = False,
        augmentation: str | augmentation.Policy | None = None,
        min_size: int | Sequence[int] | None = MIN_SIZE,
        max_size: int | None = MAX_SIZE,
        size: int | tuple[int, int] | None = None,
        divisor: int = 1,
        dtype: str = "float32",
        drop_remainder: bool = False,
        start: int = 0,
        share: Share | None = None,
        aspect_groups: int | None = None,
    ) -> tf.data.Dataset:
        """The batches of an epoch, or of several.

        Each batch is a dictionary:

        * ``images``: ``[n, H, W, 3]``, 0 to 255, padded with zeros at the right and bottom.
        * ``sizes``: height and width of each image without the padding, int32 ``[n, 2]``.
        * ``boxes``: float32 ``[n, m, 4]``, and ``labels``: int64 ``[n, m]``, padded with zeros.
        * ``crowd`` and ``difficult``: bool ``[n, m]``.
        * ``count``: number of objects of each image, int32 ``[n]``.
        * ``index``: number of each image in `annotations`, int64 ``[n]``.
        * ``epoch``: number of the epoch, int64 ``[n]``.

        The images are resized with their aspect ratio kept, and the boxes with them. Order and augmentation depend on ``seed``, ``epoch``
        and the position in the epoch alone.

        Args:
            batch_size: Images per batch.
            seed: Seed of order and augmentation.
            epoch: Number of the epoch, or of the first.
            epochs: Number of epochs. More than one need ``drop_remainder``.
            shuffle: Whether to shuffle.
            augmentation: A text such as ``"flip+scale_jitter(0.8, 1.25)"``; see `augmentation.get`.
            min_size: Length of the shorter side, or several from which one is drawn for each image. None: limited by ``max_size`` alone;
                if that is None too, images are not resized.
            max_size: Largest length of the longer side. Scale jitter multiplies both limits.
            size: Pad every image to this height and width: one number, or both. None: to the largest image of the batch.
            divisor: Pad height and width to multiples of this number.
            dtype: ``"float32"``, or ``"uint8"``, which is rounded.
            drop_remainder: Whether to drop a last, smaller batch.
            start: Number of examples of the first epoch that were used already.
            share: Part of each batch that this worker reads. Its number of workers must divide ``batch_size``. An incomplete last batch
                is then left out. None: all of it.
            aspect_groups: Images of a batch have similar aspect ratios, which saves padding. The ratios from 1/2 to 2 are divided into
                twice this number of groups, as in torchvision's references. 0: portrait and landscape. None: any images. Images that
                fill no batch of their group are last in the epoch.

        Raises:
            InputError: A value is out of range, or an image may exceed ``size``.
        """
        policy = _policy(augmentation)
        view = pipelines.view_of(min_size, max_size, size, divisor, dtype, policy)
        pipelines.check_fit(view, policy, self.annotations)
        if isinstance(start, bool) or int(start) != start or not 0 <= start <= self.size:
            raise InputError(f"start={start!r} must be a whole number of examples from 0 to {self.size:,}.")
        if isinstance(epochs, bool) or int(epochs) != epochs or epochs < 1:
            raise InputError(f"epochs={epochs!r} must be a positive whole number.")
        if epochs > 1 and not drop_remainder:
            raise InputError(
                f"epochs={epochs} with drop_remainder=False would mix epochs in a batch; set drop_remainder=True."
            )
        check_groups(aspect_groups)
        if self.steps(batch_size, drop_remainder) == 0:
            raise InputError(f"batch_size={batch_size} with drop_remainder leaves no batch of {self.size} images.")
        return pipelines.batches(
            self.annotations,
            self._images,
            view,
            policy,
            int(batch_size),
            seed=seed,
            epochs=range(epoch, epoch + int(epochs)),
            shuffle=shuffle,
            drop_remainder=drop_remainder,
            start=int(start),
            share=share or Share(),
            aspect_groups=aspect_groups,
        )

    def steps(self, batch_size: int, drop_remainder: bool = False) -> int:
        """Number of batches in an epoch."""
        if isinstance(batch_size, bool) or int(batch_size) != batch_size or batch_size < 1:
            raise InputError(f"batch_size={batch_size!r} must be a positive whole number.")
        return self.size // int(batch_size) if drop_remainder else -(-self.size // int(batch_size))

    @cached_property
    def _images(self) -> Images:
        shapes = np.array([(each.height, each.width) for each in self.annotations], np.int64)
        return Images(tuple(each.image for each in self.annotations), shapes, self.cached)

    def _checked(self, indices: Sequence[int] | np.ndarray) -> list[int]:
        chosen = [int(index) for index in indices]
        for index in chosen:
            if not 0 <= index < self.size:
                raise InputError(f"index {index} is out of range: {self.name} has images 0 to {self.size - 1}.")
        return chosen


def _policy(given: str | augmentation.Policy | None) -> augmentation.Policy:
    """The policy of an argument that hides the module's name."""
    return augmentation.get(given)
