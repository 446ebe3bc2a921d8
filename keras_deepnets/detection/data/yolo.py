"""Folders in the format of YOLO: one text file per image with lines ``class cx cy w h``, as fractions of the upright image.

A line with more numbers is a polygon ``class x1 y1 x2 y2 …``; its box is used. An image without a text file has no objects.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_deepnets.data import files
from keras_deepnets.detection.data import boxes as box_math
from keras_deepnets.detection.data.annotations import RawAnnotation
from keras_deepnets.detection.data.images import ImageSource
from keras_deepnets.detection.data.layout import Parsed, split_name, synonyms
from keras_deepnets.errors import InputError, NoSuchSplit

LARGEST = 1.01
"""Largest number of a file of fractions. Rounding may exceed 1 a little."""

_SPLITS = ("train", "val", "test")
_LISTS = ("classes.txt", "obj.names", "labels.txt")


def config(folder: Path) -> Path | None:
    """The YAML file of a folder that names classes, or None."""
    import yaml

    for path in sorted(path for path in folder.glob("*.y*ml") if not files.is_ignored(path.name)):
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
        if isinstance(values, dict) and "names" in values:
            return path
    return None


def is_yolo(folder: Path) -> bool:
    """Whether a folder has YOLO's layout."""
    if config(folder) is not None:
        return True
    return any(
        (place / "labels").is_dir() and (place / "images").is_dir() for place in (folder, *files.folders(folder))
    )


def parse(path: Path, split: str, *, classes: Sequence[str] | None = None, limit: int | None = None) -> Parsed:
    """Read one split.

    Args:
        path: The folder, or its YAML file with ``names`` and the places of the splits.
        split: ``"train"``, ``"val"``, ``"test"``, or ``"all"`` for all of them.
        classes: Class names, if the folder does not give them.
        limit: Number of images to read, from the first on.

    Raises:
        NoSuchSplit: The folder has no such split.
        InputError: No class names, no label files, a number above 1, or a damaged line.
    """
    folder = path if path.is_dir() else path.parent
    found = config(path) if path.is_dir() else path
    values = _values(found) if found is not None else {}
    names = _class_names(folder, values, classes)
    pictures = _pictures(folder, values, split)[:limit]
    labels = [_label_file(Path(picture)) for picture in pictures]
    if not any(label.is_file() for label in labels):
        raise InputError(
            f"{labels[0]} is missing, and so is the text file of every image; put them into labels/ beside images/."
        )
    raws = [_raw(picture, label) for picture, label in zip(pictures, labels, strict=True)]
    _check_numbering(folder, raws, names)
    return Parsed(raws, dict(enumerate(names)))


def _values(path: Path) -> dict[str, Any]:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path} cannot be read ({' '.join(str(error).split())}); repair it.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is not a YOLO configuration; it needs names: and the folders of the splits.")
    return values


def _class_names(folder: Path, values: dict[str, Any], classes: Sequence[str] | None) -> list[str]:
    names = values.get("names")
    if isinstance(names, dict):
        if not all(isinstance(number, int) and number >= 0 for number in names):
            raise InputError(
                f"{folder}: names: must map the class numbers 0, 1, … to names; it has {', '.join(map(str, names))}."
            )
        return [str(names.get(number, f"class {number}")) for number in range(max(names, default=-1) + 1)]
    if isinstance(names, list):
        return [str(name) for name in names]
    for name in _LISTS:
        if (folder / name).is_file():
            lines = (folder / name).read_text(encoding="utf-8").splitlines()
            return [line.strip() for line in lines if line.strip()]
    if classes is None:
        raise InputError(
            f"{folder} does not name its classes; add data.yaml with names:, or give classes=[…] in the order of the numbers."
        )
    names = [str(each) for each in classes]
    return names[1:] if names[:1] == ["background"] else names


def _pictures(folder: Path, values: dict[str, Any], split: str) -> list[str]:
    """The paths of the images of a split."""
    places = _places(folder, values)
    if split == "all":
        chosen = [place for some in places.values() for place in some]
    else:
        name = split_name(split, places)
        if name is None:
            raise NoSuchSplit(f"split {split!r}: {folder} has {', '.join([*places, 'all'])}; choose one of them.")
        chosen = places[name]
    found = [picture for place in chosen for picture in _listed(place)]
    if not found:
        raise NoSuchSplit(f"split {split!r} of {folder} has no images; choose another split.")
    return list(dict.fromkeys(found))


def _places(folder: Path, values: dict[str, Any]) -> dict[str, list[Path]]:
    """The existing folders or lists of images of each split."""
    root = folder / str(values.get("path") or ".")
    bases = [base for base in (root, folder) if base.is_dir()]
    found: dict[str, list[Path]] = {}
    for split in _SPLITS:
        given = [values[name] for name in synonyms(split) if values.get(name)]
        entries = given[0] if given and isinstance(given[0], list) else given[:1]
        options = [str(entry) for entry in entries] or [
            text for name in synonyms(split) for text in (f"images/{name}", f"images/{name}2017", f"{name}/images")
        ]
        some = [place for text in options if (place := _resolve(bases, text)) is not None]
        if some:
            found[split] = some
    if not found and (folder / "images").is_dir():
        found["train"] = [folder / "images"]
    return found


def _resolve(bases: Sequence[Path], text: str) -> Path | None:
    """The existing place of a path in a configuration. Some exports write ``../train`` for a folder next to the file."""
    texts = [text, text.removeprefix("../")]
    return next((base / each for base in bases for each in texts if (base / each).exists()), None)


def _listed(place: Path) -> list[str]:
    """The images in a folder, or in a text file with one path per line."""
    if place.is_dir():
        return [entry.path for entry in files.images(place, Counter())]
    lines = [line.strip() for line in place.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [str(place.parent / line) for line in lines]


def _label_file(picture: Path) -> Path:
    """The text file of an image: the last folder ``images`` in its path becomes ``labels``."""
    parts = list(picture.with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts)


def _raw(picture: str, label: Path) -> RawAnnotation:
    """The annotation in one text file."""
    lines = label.read_text(encoding="utf-8").splitlines() if label.is_file() else []
    rows = [_row(line, f"{label}, line {number}") for number, line in enumerate(lines, start=1) if line.strip()]
    corners = np.array([box for _, box in rows], np.float64).reshape(-1, 4)
    numbers = tuple(number for number, _ in rows)
    return RawAnnotation(ImageSource(picture), Path(picture).stem, corners, numbers, relative=True, file=str(label))


def _row(line: str, where: str) -> tuple[int, np.ndarray]:
    """The class number and the box of one line, x1, y1, x2, y2 as fractions."""
    try:
        values = np.array(line.split(), np.float64)
    except ValueError:
        raise InputError(f"{where}: {line.strip()!r} is not a row of numbers; write: class cx cy w h.") from None
    if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
        raise InputError(f"{where}: {len(values)} numbers; write: class cx cy w h, or a class and a polygon.")
    if values[0] != int(np.nan_to_num(values[0], nan=-0.5)) or values[0] < 0:
        raise InputError(f"{where}: class {values[0]:g}; class numbers are whole and count from 0.")
    if (values[1:] > LARGEST).any():
        raise InputError(
            f"{where}: {values[1:].max():g} looks like pixels; this format gives fractions of the image's width and height, at most 1."
        )
    if len(values) == 5:
        return int(values[0]), box_math.to_xyxy(values[1:], "center_xywh")[0]
    points = values[1:].reshape(-1, 2)
    return int(values[0]), np.concatenate([points.min(axis=0), points.max(axis=0)])


def _check_numbering(folder: Path, raws: Sequence[RawAnnotation], names: Sequence[str]) -> None:
    """Raise `InputError` if the class numbers run from 1 to the number of classes: label 0 would then be shifted."""
    used = {int(str(key)) for raw in raws for key in raw.classes}
    if used and min(used) >= 1 and max(used) == len(names):
        raise InputError(
            f"{folder}: class numbers run from {min(used)} to {max(used)} for {len(names)} classes, but YOLO counts from 0; subtract 1."
        )
