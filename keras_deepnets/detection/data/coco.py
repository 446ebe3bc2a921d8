"""Annotations in COCO's JSON: ``annotations/instances_<split>.json`` with an image folder, or a path to one JSON file."""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_deepnets.data import files
from keras_deepnets.detection.data import boxes as box_math
from keras_deepnets.detection.data.annotations import RawAnnotation
from keras_deepnets.detection.data.cleaning import BACKGROUND
from keras_deepnets.detection.data.images import ImageSource
from keras_deepnets.detection.data.layout import Parsed, synonyms
from keras_deepnets.errors import InputError, NoSuchSplit

PLACEHOLDER = "N/A"
"""Name of a label that no category has, as torchvision writes it."""

LABELS = ("contiguous", "category_id")

_YEARS = ("", "2017", "2014")
_KEYS = ("images", "annotations", "categories")
_ROBOFLOW = "_annotations.coco.json"


def jsons(folder: Path, split: str) -> list[Path]:
    """The annotation files that a split may have in a folder, the likeliest first."""
    found = []
    for name in synonyms(split):
        for year in _YEARS:
            found += [folder / "annotations" / f"instances_{name}{year}.json"]
        found += [folder / "annotations" / f"{name}.json", folder / name / _ROBOFLOW]
    return found


def is_coco(folder: Path) -> bool:
    """Whether a folder holds annotations in COCO's JSON."""
    return any(_present(folder))


def _present(folder: Path) -> list[Path]:
    found = [*(folder / "annotations").glob("*.json"), *folder.glob(f"*/{_ROBOFLOW}")]
    return sorted(path for path in found if not files.is_ignored(path.name))


def find(folder: Path, split: str) -> Path:
    """The annotation file of a split.

    Raises:
        NoSuchSplit: There is none.
    """
    for path in jsons(folder, split):
        if path.is_file():
            return path
    present = ", ".join(str(path.relative_to(folder)) for path in _present(folder))
    raise NoSuchSplit(
        f"split {split!r}: {folder} has no annotations/instances_{split}.json, only {present}; choose another split, or give the path "
        "of a JSON file."
    )


def parse(
    path: Path,
    split: str,
    *,
    images: str | os.PathLike | None = None,
    labels: str = "contiguous",
    limit: int | None = None,
) -> Parsed:
    """Read one annotation file.

    Args:
        path: The JSON file.
        split: Name of the split, by which the image folder is found.
        images: Folder of the images. None: the folder of the split next to the annotations.
        labels: ``"contiguous"``: labels from 1 in the order of the category numbers. ``"category_id"``: the category numbers.
        limit: Number of images to read, from the first on.

    Raises:
        InputError: The file is missing or is not in COCO's format, or the images are not found.
    """
    values = _read(path)
    try:
        return _parsed(values, path, split, images, labels, limit)
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path}: an entry has no {error.args[0]!r}; add it, or remove the entry.") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is not in COCO's format ({error}); repair it.") from error


def _parsed(
    values: dict[str, Any], path: Path, split: str, images: str | os.PathLike | None, labels: str, limit: int | None
) -> Parsed:
    """The contents of an annotation file. Values that do not fit raise standard Python errors."""
    entries = values["images"][:limit]
    by_image: dict[Any, list[dict]] = {entry["id"]: [] for entry in entries}
    if len(by_image) < len(entries):
        raise InputError(f"{path}: several images have the same id; number them anew.")
    everything = by_image.keys() if limit is None else {entry["id"] for entry in values["images"]}
    for item in values["annotations"]:
        if item["image_id"] in by_image:
            by_image[item["image_id"]].append(item)
        elif item["image_id"] not in everything:
            raise InputError(
                f"{path}: an annotation belongs to image {item['image_id']!r}, which is not in the file; add the image or remove it."
            )
    folder = _image_folder(path, split, images, entries)
    raws = [_raw(entry, by_image[entry["id"]], folder, path) for entry in entries]
    texts = _categories(values)
    if labels == "category_id":
        names, numbers = by_number(path.name, texts)
        return Parsed(raws, texts, names, numbers)
    return Parsed(raws, texts)


def by_number(name: str, texts: Mapping[Hashable, str]) -> tuple[tuple[str, ...], dict[Hashable, int]]:
    """The class names when each category's number is its label, and the label of each number. Unused labels have a placeholder.

    Raises:
        InputError: A number is below 1: label 0 is the background.
    """
    numbers: dict[Hashable, int] = {key: int(key) for key in texts}  # type: ignore[call-overload]
    if not numbers or min(numbers.values()) < 1:
        raise InputError(
            f"{name}: a category has the number {min(numbers.values(), default=0)}, but label 0 is the background; use "
            "labels='contiguous', which counts from 1."
        )
    names = [PLACEHOLDER] * max(numbers.values())
    for key, number in numbers.items():
        names[number - 1] = texts[key]
    return tuple(names), numbers


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); give the path of a JSON file in COCO's format."
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); copy it again.") from error
    missing = [key for key in _KEYS if not isinstance(values, dict) or not isinstance(values.get(key), list)]
    if missing:
        raise InputError(f"{path} has no list of {', '.join(missing)}; give a JSON file of COCO's object instances.")
    if not values["images"]:
        raise NoSuchSplit(f"{path} lists no images; choose another split.")
    return values


def _categories(values: dict[str, Any]) -> dict[Hashable, str]:
    """The names of the categories by number, sorted. A background category without objects is left out."""
    used = {item["category_id"] for item in values["annotations"]}
    found = sorted(values["categories"], key=lambda category: category["id"])
    return {
        category["id"]: str(category["name"])
        for category in found
        if category["name"] != BACKGROUND or category["id"] in used
    }


def _image_folder(path: Path, split: str, images: str | os.PathLike | None, entries: Sequence[dict]) -> Path:
    """The folder to which the file names are relative."""
    first = entries[0]["file_name"]
    if images is not None:
        places = [Path(images).expanduser()]
    else:
        above = path.parent.parent if path.parent.name == "annotations" else path.parent
        names = [f"{name}{year}" for name in synonyms(split) for year in _YEARS]
        named = path.stem.removeprefix("instances_")
        places = [above / name for name in dict.fromkeys([named, *names])]
        places += [above / "images" / name for name in dict.fromkeys([named, *names])]
        places += [above / "images", above, path.parent]
    for place in places:
        if (place / first).is_file():
            return place
    known = ", ".join(str(place) for place in places if place.is_dir()) or str(places[0])
    raise InputError(f"{path}: image {first} is not in {known}; give the folder of the images with images=….")


def _raw(entry: dict, items: Sequence[dict], folder: Path, path: Path) -> RawAnnotation:
    """The annotation of one image."""
    for item in items:
        if len(item.get("bbox") or ()) != 4:
            raise InputError(
                f"{path}: annotation {item.get('id')} of image {entry['id']} has no bbox of four numbers; add it or remove the annotation."
            )
    return RawAnnotation(
        ImageSource(str(folder / entry["file_name"])),
        str(entry["id"]),
        box_math.to_xyxy(np.array([item["bbox"] for item in items], np.float64), "xywh"),
        tuple(item["category_id"] for item in items),
        (int(entry["width"]), int(entry["height"])) if entry.get("width") and entry.get("height") else None,
        crowd=np.array([bool(item.get("iscrowd", 0)) for item in items], bool),
        difficult=np.array([bool(item.get("difficult", item.get("ignore", 0))) for item in items], bool),
        area=np.array([item.get("area", np.nan) for item in items], np.float64),
        file=str(path),
    )
