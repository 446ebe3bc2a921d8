"""Find the reader for a detection data set. Each format has a module with a parse function; this module tells the formats apart."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from pathlib import Path

from keras_deepnets.data import catalogue
from keras_deepnets.detection.data import cleaning, coco, shards, voc, yolo
from keras_deepnets.detection.data.detection_data import DetectionData
from keras_deepnets.detection.data.layout import Parsed
from keras_deepnets.errors import InputError

_FORMATS = "VOC (Annotations/, JPEGImages/), COCO (annotations/instances_<split>.json), YOLO (data.yaml, images/, labels/) or shards"


def load(
    source: str | os.PathLike,
    split: str = "train",
    *,
    classes: Sequence[str] | None = None,
    on_bad_boxes: str = "drop",
    labels: str = "contiguous",
    limit: int | None = None,
    images: str | os.PathLike | None = None,
    voc_offset: int | None = None,
    data_dir: str | os.PathLike | None = None,
    cached: bool = True,
) -> DetectionData:
    """Load one split of a detection data set.

    `source` is one of these:

    * A folder in Pascal VOC's format, also below ``VOCdevkit/VOC<year>``. Its splits are the lists in ``ImageSets/Main``.
    * A folder with COCO's ``annotations/instances_<split>.json``, or the path of such a file.
    * A folder in YOLO's format with ``images/``, ``labels/`` and a YAML file, or the path of that file.
    * The TensorFlow Datasets name of a detection data set: ``"voc/2007"``, ``"coco/2017"``, …. If a folder has the same name, the TFDS
      data set is used. Write ``./coco`` for the folder.
    * A folder of TFRecord shards written by `write_shards`.

    All give the same objects: boxes in pixels (x1, y1, x2, y2) of the upright image, and labels from 1. Images without boxes are kept.
    Boxes that reach beyond their image are clipped to it. Boxes without area, outside the image or of an unknown class are dropped,
    and `DetectionData.dropped` names and counts them. Hidden files and system files are ignored.

    Args:
        source: The data set, as above.
        split: Name of the split. ``val``, ``valid`` and ``validation`` mean the same. VOC and YOLO folders also have ``"all"``.
        classes: The classes to use, in the order of their labels. Objects of other classes are dropped as unknown. None: all classes of
            the source. For a YOLO folder that names no classes, the names in the order of its numbers.
        on_bad_boxes: ``"drop"``, or ``"error"`` to raise if there is any.
        labels: ``"contiguous"``, or ``"category_id"`` for COCO's own numbers, which torchvision's weights use. Unused labels are named
            "N/A".
        limit: Largest number of images, from the first on.
        images: Folder of the images of a JSON file in COCO's format. None: the folder of the split next to it.
        voc_offset: The number of the first pixel in VOC's format; see `voc`. None: 1, as in VOC.
        data_dir: Folder of the TFDS data. None: ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.
        cached: Whether to keep decoded images: in memory if they fit, otherwise in a file that disappears with the process.

    Raises:
        NoSuchSplit: An `InputError`: the source has no such split.
        InputError: The source does not exist or is of an unknown format. A file is missing or damaged. Pixels and fractions are mixed up.
            The sizes of an image and its annotation differ.
    """
    _check(labels, limit)
    name = os.fspath(source)
    path = _path(source, data_dir)
    if path is not None and shards.is_shards(path):
        _refuse(path, "shards", classes=classes, labels=None if labels == "contiguous" else labels)
        return shards.load(path, split, limit=limit, cached=cached)
    parsed = _parse(name, path, split, classes, labels, limit, images, voc_offset, data_dir)
    if parsed.names is not None and parsed.labels is not None:
        names: tuple[str, ...] = (cleaning.BACKGROUND, *parsed.names)
        label_of = dict(parsed.labels)
    else:
        names, label_of = cleaning.label_map(name, parsed.texts, classes)
    annotations, dropped = cleaning.clean(name, parsed.raws, label_of, parsed.texts, on_bad_boxes)
    return DetectionData(name, split, names, annotations, dropped, cached)


def _check(labels: str, limit: int | None) -> None:
    if labels not in coco.LABELS:
        raise InputError(f"labels={labels!r}: choose one of {', '.join(coco.LABELS)}.")
    if limit is not None and (isinstance(limit, bool) or int(limit) != limit or limit < 1):
        raise InputError(f"limit={limit!r} must be a positive whole number of images.")


def _path(source: str | os.PathLike, data_dir: str | os.PathLike | None) -> Path | None:
    """The path of a source, or None if TFDS knows its name."""
    name = os.fspath(source)
    is_file = Path(name).suffix.lower() in (".json", ".yaml", ".yml")
    if not isinstance(source, os.PathLike) and not is_file and catalogue.is_name(name, data_dir):
        return None
    path = Path(name).expanduser()
    if not path.exists():
        raise InputError(
            f"detection data {name!r} does not exist; give a folder ({_FORMATS}) or a TFDS name such as voc/2007."
        )
    return path


def _parse(
    name: str,
    path: Path | None,
    split: str,
    classes: Sequence[str] | None,
    labels: str,
    limit: int | None,
    images: str | os.PathLike | None,
    voc_offset: int | None,
    data_dir: str | os.PathLike | None,
) -> Parsed:
    """Read the source with the reader of its format."""
    offset = voc.OFFSET if voc_offset is None else voc_offset
    own_labels = labels if labels != "contiguous" else None
    if path is None:
        from keras_deepnets.detection.data import records

        _refuse(name, "TFDS", images=images)
        return records.parse(name, split, labels=labels, voc_offset=offset, limit=limit, data_dir=data_dir)
    if path.suffix.lower() == ".json" or (path.is_dir() and not voc.roots(path) and coco.is_coco(path)):
        _refuse(path, "COCO's format", voc_offset=voc_offset)
        if own_labels and classes is not None:
            raise InputError("labels='category_id' keeps the numbers of all categories; leave classes out.")
        file = path if path.is_file() else coco.find(path, split)
        return coco.parse(file, split, images=images, labels=labels, limit=limit)
    _refuse(path, "VOC's and YOLO's format", images=images, labels=own_labels)
    if path.is_dir() and (found := voc.roots(path)):
        if len(found) > 1:
            raise InputError(f"{path} holds {', '.join(each.name for each in found)}; give the path of one of them.")
        return voc.parse(found[0], split, voc_offset=offset, limit=limit)
    if path.is_file() or yolo.is_yolo(path):
        _refuse(path, "YOLO's format", voc_offset=voc_offset)
        return yolo.parse(path, split, classes=classes, limit=limit)
    raise InputError(f"{path} is in no known format; give a folder of {_FORMATS}.")


def _refuse(source: Hashable, kind: str, **arguments: object) -> None:
    """Raise `InputError` for an argument that a format does not have."""
    for name, value in arguments.items():
        if value is not None:
            raise InputError(f"{source}: {name}={value!r} is not for {kind}; leave it out.")
