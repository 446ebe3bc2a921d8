"""Folders in the format of Pascal VOC: ``Annotations/*.xml``, ``JPEGImages/`` and ``ImageSets/Main/<split>.txt``.

VOC counts pixels from 1, and a box includes its last pixel. So the box from xmin to xmax covers x1 = xmin - 1 to x2 = xmax. The
authors of Faster R-CNN and Detectron2 convert this way; torchvision's references and TensorFlow Datasets keep the numbers. A box with
xmin = xmax has no area here, although VOC could mean one column of pixels: such boxes are slips of the mouse.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from keras_deepnets.data import files
from keras_deepnets.detection.data.annotations import RawAnnotation
from keras_deepnets.detection.data.images import ImageSource
from keras_deepnets.detection.data.layout import Parsed, split_name
from keras_deepnets.errors import InputError, NoSuchSplit

CLASSES = (
    *(
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
    ),
    *("motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The classes of VOC2007 and VOC2012 in their official order, which is alphabetical."""

OFFSET = 1
"""Default of ``voc_offset``: the number of the first pixel."""

_ANNOTATIONS, _IMAGES, _SETS = "Annotations", "JPEGImages", "ImageSets/Main"
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def roots(folder: Path) -> list[Path]:
    """The folders in VOC's format: the folder itself, or its ``VOC<year>``, also below ``VOCdevkit``."""
    if (folder / _ANNOTATIONS).is_dir() and any((folder / _ANNOTATIONS).glob("*.xml")):
        return [folder]
    places = [folder, folder / "VOCdevkit"]
    return [
        child
        for place in places
        if place.is_dir()
        for child in files.folders(place)
        if child.name.startswith("VOC") and (child / _ANNOTATIONS).is_dir()
    ]


def parse(folder: Path, split: str, *, voc_offset: int = OFFSET, limit: int | None = None) -> Parsed:
    """Read one split.

    The classes are the names in all files of ``Annotations/``, sorted. All splits therefore agree.

    Args:
        folder: One of `roots`.
        split: A list in ``ImageSets/Main``, or ``"all"`` for all files of ``Annotations/``.
        voc_offset: The number of the first pixel: 1 in VOC, 0 in files of tools that count from 0 and exclude the last pixel.
        limit: Number of images to read, from the first on.

    Raises:
        NoSuchSplit: The folder has no such list.
        InputError: A file is missing or damaged.
    """
    if voc_offset not in (0, 1):
        raise InputError(f"voc_offset={voc_offset!r}: give 1 if the first pixel has number 1, as in VOC, or 0.")
    names = _names(folder, split)[:limit]
    trees = {path.stem: path for path in (folder / _ANNOTATIONS).glob("*.xml") if not files.is_ignored(path.name)}
    for name in names:
        if name not in trees:
            raise InputError(
                f"{folder / _ANNOTATIONS / name}.xml is missing, but split {split!r} lists {name}; add it or remove the name."
            )
    read = {name: _read(path) for name, path in trees.items()}
    classes = sorted(
        {_text(item, "name", trees[name]) for name, tree in read.items() for item in tree.findall("object")}
    )
    pictures = _pictures(folder)
    raws = [_raw(name, read[name], trees[name], pictures, folder, voc_offset) for name in names]
    return Parsed(raws, {each: each for each in classes})


def _names(folder: Path, split: str) -> list[str]:
    """The names of the images of a split, without suffix."""
    lists = {path.stem: path for path in sorted((folder / _SETS).glob("*.txt")) if not files.is_ignored(path.name)}
    found = split_name(split, lists)
    if found is not None:
        lines = lists[found].read_text(encoding="utf-8").splitlines()
        names = [line.split()[0] for line in lines if line.strip()]
    elif split == "all":
        paths = (folder / _ANNOTATIONS).glob("*.xml")
        names = sorted((path.stem for path in paths if not files.is_ignored(path.name)), key=files.natural)
    else:
        raise NoSuchSplit(
            f"split {split!r}: {folder} has {', '.join([*(name for name in lists if '_' not in name), 'all'])}; write the names of the "
            f"images to {_SETS}/{split}.txt, or cut a part out of 'all' with split_off."
        )
    if not names:
        raise NoSuchSplit(f"split {split!r} of {folder} has no images; choose another split.")
    return names


def _read(path: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise InputError(f"{path} is not XML ({error}); repair or replace it.") from error


def _text(item: ElementTree.Element, key: str, path: Path) -> str:
    found = (item.findtext(key) or "").strip()
    if not found:
        raise InputError(f"{path}: an {item.tag} has no <{key}>; add it, or remove the {item.tag}.")
    return found


def _number(item: ElementTree.Element, key: str, path: Path) -> float:
    text = _text(item, key, path)
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}: {key} is {text!r}; write a number of pixels.") from None


def _pictures(folder: Path) -> dict[str, str]:
    """The paths of the images by name without suffix."""
    if not (folder / _IMAGES).is_dir():
        raise InputError(
            f"{folder / _IMAGES} is missing; put the images there, or name the folder that holds {_IMAGES}/."
        )
    return {Path(entry.name).stem: entry.path for entry in files.images(folder / _IMAGES, Counter(), deep=False)}


def _raw(
    name: str, tree: ElementTree.Element, path: Path, pictures: dict[str, str], folder: Path, voc_offset: int
) -> RawAnnotation:
    """The annotation in one XML file."""
    if name not in pictures:
        raise InputError(
            f"{folder / _IMAGES / name}.jpg is missing, but {path} describes it; add it or remove the name."
        )
    items = tree.findall("object")
    for item in items:
        if item.find("bndbox") is None:
            raise InputError(f"{path}: an object has no <bndbox>; add it, or remove the object.")
    corners = np.array([_corners(item, path) for item in items], np.float64).reshape(-1, 4)
    stated = tree.find("size")
    size = [] if stated is None else [int(_number(stated, side, path)) for side in ("width", "height")]
    return RawAnnotation(
        ImageSource(pictures[name]),
        name,
        corners,
        tuple(_text(item, "name", path) for item in items),
        (size[0], size[1]) if size and min(size) > 0 else None,  # some tools write zeros
        difficult=_flags(items, "difficult"),
        offset=voc_offset,
        file=str(path),
    )


def _corners(item: ElementTree.Element, path: Path) -> list[float]:
    box = item.find("bndbox")
    assert box is not None  # the caller has checked it
    return [_number(box, key, path) for key in _CORNERS]


def _flags(items: Sequence[ElementTree.Element], key: str) -> np.ndarray:
    return np.array([(item.findtext(key) or "0").strip() in ("1", "true", "True") for item in items], bool)
