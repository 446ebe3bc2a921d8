"""The images of a run of a detector: training and validation sets, and batches that resume."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.data.pipelines import Share
from keras_deepnets.detection.data import Annotation, DetectionData, load
from keras_deepnets.detection.resizing import STRIDE
from keras_deepnets.errors import InputError, NoSuchSplit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import tensorflow as tf

    from keras_deepnets.detection.detector import Detector
    from keras_deepnets.detection.training.recipe import DetectionRecipe

HELD_SHARE = 0.1
"""Share of the images that is held out for validation if the source has no validation split."""

_HELD_SPLITS = ("validation", "val", "test")


def sets(data: Any, validation: Any, seed: int, limit: int | None) -> tuple[DetectionData, DetectionData | None]:
    """The training set and the validation set of a run.

    Args:
        data: source of `load`, or its result.
        validation: source, set, number or fraction of images, False, or None for the source's own split.
        seed: seed of a random cut.
        limit: largest number of training images.
    """
    train = data if isinstance(data, DetectionData) else load(os.fspath(data), "train")
    held: DetectionData | None = None
    if isinstance(validation, DetectionData):
        held = validation
    elif isinstance(validation, (str, os.PathLike)):
        held = held_out(os.fspath(validation), train.classes[1:])
    elif validation is None or validation is True:
        held = None if isinstance(data, DetectionData) else _own_split(os.fspath(data), train.classes[1:])
        if held is None:
            train, held = train.split_off(HELD_SHARE, seed=seed)
    elif validation is not False:
        train, held = train.split_off(validation, seed=seed)
    if limit is not None:
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InputError(f"limit={limit!r} must be a whole number of at least 1.")
        train = train.subset(range(min(limit, len(train))))
    return train, held


def heading(train: DetectionData, held: DetectionData | None) -> str:
    """One or two lines about the images of a run and the boxes that were left out."""
    objects = sum(len(record.labels) for record in train.annotations)
    parts = [f"{train.name}: {len(train):,} images with {objects:,} objects of {len(train.classes) - 1} classes"]
    if held is not None:
        parts.append(f"{len(held):,} for validation ({held.split} split)")
    lines = [f"Training on {', '.join(parts)}."]
    if train.dropped.total or train.dropped.clipped:
        lines.append(train.report())
    return "\n".join(lines)


def _own_split(source: str, classes: Sequence[str] | None) -> DetectionData | None:
    """The validation or test split of a source, or None."""
    for split in _HELD_SPLITS:
        try:
            return load(source, split, classes=classes)
        except NoSuchSplit:
            continue
    return None


def held_out(source: str, classes: Sequence[str] | None = None) -> DetectionData:
    """The validation or test split of a source; its training split if it has neither."""
    return _own_split(source, classes) or load(source, "train", classes=classes)


def identity(data: DetectionData | None) -> dict[str, Any] | None:
    """The values that identify a set, as plain JSON values. `digests` covers the names and sizes of the images and the objects."""
    if data is None:
        return None
    found = hashlib.blake2b(digest_size=16)
    for record in data.annotations:
        found.update(f"{record.image_id} {record.width} {record.height}".encode("utf-8", "surrogateescape"))
        for values in (record.boxes, record.labels, record.crowd, record.difficult):
            found.update(np.ascontiguousarray(values).tobytes())
    return {
        "name": str(data.name),
        "split": data.split,
        "size": len(data),
        "labels": list(data.classes),
        "digests": {"objects": found.hexdigest()},
    }


def batches(
    data: DetectionData,
    model: Detector,
    recipe: DetectionRecipe,
    resolved: Mapping[str, Any],
    seed: int,
    first_epoch: int,
    end: int,
    first_step: int = 0,
    share: Share | None = None,
) -> tf.data.Dataset:
    """The training batches from step `first_step` of `first_epoch` to before epoch `end`: dictionaries, as `TrainingDetector` takes them.

    An epoch depends on the seed and its number only, so that a resumed run sees the same batches. `share` is the part of each batch that
    this worker reads.
    """
    return (
        trainable(data)
        .batches(
            resolved["batch_size"],
            seed=seed,
            epoch=first_epoch,
            epochs=end - first_epoch,
            shuffle=True,
            augmentation=recipe.augmentation,
            min_size=recipe.min_sizes or model.min_size,
            max_size=recipe.max_size or model.max_size,
            divisor=STRIDE,
            drop_remainder=True,
            start=first_step * resolved["batch_size"],
            share=share,
            aspect_groups=recipe.aspect_groups,
        )
        .map(_inputs)
        .prefetch(1)  # the batches before the map wait already
    )


def trainable(data: DetectionData) -> DetectionData:
    """The same images without crowds and difficult objects, which training does not use (as the authors' code and torchvision's)."""

    def kept(record: Annotation) -> Annotation:
        keep = ~(record.crowd | record.difficult)
        if keep.all():
            return record
        names = ("boxes", "labels", "crowd", "difficult", "area")
        return dataclasses.replace(record, **{name: getattr(record, name)[keep] for name in names})

    return dataclasses.replace(data, annotations=tuple(map(kept, data.annotations)))


def _inputs(batch: dict[str, Any]) -> dict[str, Any]:
    import tensorflow as tf

    places = tf.stack([batch["epoch"], batch["index"]], axis=1)
    return {name: batch[name] for name in ("images", "sizes", "boxes", "labels", "count")} | {"places": places}
