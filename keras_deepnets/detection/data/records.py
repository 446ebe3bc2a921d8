"""TensorFlow Datasets as a source of images with boxes: ``"voc/2007"``, ``"coco/2017"`` and others with the same features.

The images stay in TFDS's record files. Their places are noted, so that they are read at random like files.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_deepnets.data import catalogue, parallel
from keras_deepnets.detection.data import boxes as box_math
from keras_deepnets.detection.data.annotations import RawAnnotation
from keras_deepnets.detection.data.coco import by_number
from keras_deepnets.detection.data.images import ImageSource
from keras_deepnets.detection.data.layout import Parsed, split_name
from keras_deepnets.errors import InputError, NoSuchSplit

_HEAD, _TAIL = 12, 4  # bytes around a record: its length and checksums
_UNUSED = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
COCO_NUMBERS = tuple(number for number in range(1, 91) if number not in _UNUSED)
"""COCO's category numbers of the 80 classes, in the order in which TFDS counts them."""


def parse(
    name: str,
    split: str,
    *,
    labels: str = "contiguous",
    voc_offset: int = 1,
    limit: int | None = None,
    data_dir: str | os.PathLike | None = None,
) -> Parsed:
    """Read the boxes of one split.

    Args:
        name: TFDS name.
        split: A split of the data set.
        labels: ``"category_id"`` gives COCO's numbers; only for ``coco``.
        voc_offset: See `voc`. Only for ``voc``, whose fractions TFDS computes from VOC's numbers.
        limit: Number of images to read, from the first on.
        data_dir: Folder of the TFDS data.

    Raises:
        NoSuchSplit: The data set has no such split.
        InputError: TFDS cannot open the data set, or its examples are not images with boxes.
    """
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, **({} if data_dir is None else {"data_dir": os.fspath(data_dir)}))
    except Exception as error:
        raise InputError(f"{name}: TFDS cannot open it ({' '.join(str(error).split())[:200]}).") from error
    feature = _label_feature(name, builder.info.features)
    if not builder.is_prepared():
        catalogue._prepare(name, builder)
    found = split_name(split, builder.info.splits)
    if found is None and split.partition("[")[0] not in builder.info.splits:
        raise NoSuchSplit(f"split {split!r}: {name} has {', '.join(builder.info.splits)}.")
    try:
        info = builder.info.splits[found or split]
    except (ValueError, KeyError, AssertionError) as error:
        raise InputError(
            f"split {split!r} of {name}: TFDS cannot read it ({' '.join(str(error).split())[:200]})."
        ) from error
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise InputError(
            f"{name} was prepared as {builder.info.file_format.value}; prepare it with file_format='tfrecord' to read its boxes."
        )
    offset = voc_offset if builder.name == "voc" else 0
    raws = [_raw(source, example, offset) for source, example in _examples(builder.info.features, info, limit)]
    if not raws:
        raise NoSuchSplit(f"split {split!r} of {name} has no images; choose another split.")
    texts: dict[Hashable, str] = dict(enumerate(feature.names or map(str, range(feature.num_classes))))
    if labels == "category_id":
        return _numbered(name, builder.name, raws, texts)
    return Parsed(raws, texts)


def _numbered(name: str, base: str, raws: list[RawAnnotation], texts: dict[Hashable, str]) -> Parsed:
    """The result with COCO's category numbers as labels."""
    if base != "coco" or len(texts) != len(COCO_NUMBERS):
        raise InputError(f"labels='category_id': {name} has no category numbers; use labels='contiguous'.")
    names, _ = by_number(name, dict(zip(COCO_NUMBERS, texts.values(), strict=True)))
    return Parsed(raws, texts, names, dict(zip(texts, COCO_NUMBERS, strict=True)))


def _label_feature(name: str, features: Any) -> Any:
    """The class feature of the objects."""
    try:
        objects = features["objects"].feature
        _ = features["image"], objects["bbox"]
        return objects["label"]
    except (KeyError, AttributeError, TypeError) as error:
        raise InputError(
            f"{name}: its examples have no image and objects with bbox and label; give a detection data set such as voc/2007."
        ) from error


def _examples(features: Any, info: Any, limit: int | None) -> Iterator[tuple[ImageSource, dict[str, Any]]]:
    """The place of each image, and its example without the decoded image."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    encoded = {"image": tfds.decode.SkipDecoding()}

    def read(record: tf.Tensor) -> tuple[tf.Tensor, Any]:
        return record, features.deserialize_example(record, decoders=encoded)

    count = 0
    for run in info.file_instructions:
        path, begin = os.fspath(run.filename), 0
        dataset = tf.data.TFRecordDataset(path).map(read, parallel.calls()).with_options(parallel.options())
        stop = None if run.take < 0 else run.skip + run.take
        for number, (record, example) in enumerate(dataset.as_numpy_iterator()):
            if count == limit or number == stop:
                break
            contents = example.pop("image")
            if number >= run.skip:
                yield ImageSource(path, begin + _HEAD + record.index(contents), len(contents)), _named(example, count)
                count += 1
            begin += _HEAD + len(record) + _TAIL


def _named(example: dict[str, Any], number: int) -> dict[str, Any]:
    """The example with an identity of the image under the key ``name``."""
    if "image/id" in example:
        return example | {"name": str(int(example["image/id"]))}
    if "image/filename" in example:
        return example | {"name": Path(example["image/filename"].decode()).stem}
    return example | {"name": str(number)}


def _raw(source: ImageSource, example: dict[str, Any], offset: int) -> RawAnnotation:
    """The annotation of one example."""
    objects = example["objects"]
    return RawAnnotation(
        source,
        example["name"],
        box_math.to_xyxy(objects["bbox"], "yxyx"),
        tuple(np.asarray(objects["label"]).tolist()),
        relative=True,
        crowd=objects.get("is_crowd"),
        difficult=objects.get("is_difficult"),
        # A mask's area in pixels, which some data sets count in whole numbers.
        area=np.asarray(objects["area"], np.float64) if "area" in objects else None,
        offset=offset,
    )
