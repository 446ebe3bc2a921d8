"""A folder of class folders as a source.

Two layouts are supported: ``FOLDER/<class>/<images>``, split by a hash of seed and file name, and
``FOLDER/<split>/<class>/<images>``.
"""

from __future__ import annotations

import os
import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from keras_deepnets.data import files, splits, verification
from keras_deepnets.data.image_data import ImageData, check_split, cut_out
from keras_deepnets.data.stores import IndexedStore, Pixels, indexed
from keras_deepnets.errors import InputError, NoSuchSplit

_SPLIT_NAMES = {
    "train": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
}
_TEST_SHARE = 0.1
_VALIDATION_SHARE = 0.1
_SHOWN = 5


@dataclass(frozen=True)
class Listing:
    """Image files with their classes.

    Attributes:
        paths: Paths of the files.
        names: Paths relative to the folder, with forward slashes. Hashes and messages use these names.
        sizes: Sizes in bytes.
        changed: Modification times in ns.
        targets: Class index of each file.
    """

    paths: tuple[str, ...]
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    changed: tuple[int, ...]
    targets: tuple[int, ...]


# Pixels that an ImageData still uses. The splits of a folder share them, so each file is decoded once.
_in_use: weakref.WeakValueDictionary[Listing, Pixels] = weakref.WeakValueDictionary()
_broken: weakref.WeakKeyDictionary[Pixels, np.ndarray] = weakref.WeakKeyDictionary()


def _read(listing: Listing) -> tuple[Pixels, np.ndarray]:
    """Call `verification.read` once for each listing in use."""
    pixels = _in_use.get(listing)
    if pixels is None:
        pixels, broken = verification.read(listing.paths, listing.sizes)
        _in_use[listing], _broken[pixels] = pixels, broken
    return pixels, _broken[pixels]


def load(
    folder: Path,
    split: str = "train",
    *,
    seed: int = 0,
    skip_broken: bool = False,
    validation: int | float | None = None,
) -> ImageData:
    """Load one split of a folder of class folders; see `keras_deepnets.data.load`.

    Raises:
        InputError: The folder does not exist or is not a folder. It has fewer than two class folders, an empty class folder, or no
            images. Images are broken and ``skip_broken`` is False. The split does not exist, or the validation size is invalid.
    """
    _check(folder)
    by_split = _split_folders(folder)
    if by_split:
        return _load_split_folders(folder, by_split, split, seed, skip_broken, validation)
    if split not in splits.SPLITS:
        raise NoSuchSplit(f"split {split!r}: {folder} has {', '.join(splits.SPLITS)}.")
    labels = _labels([folder], folder)
    data = _load_files(folder, [folder], labels, "all", skip_broken)
    if split == "all":
        return data
    return _part(data, split, seed, validation)


def load_splits(folder: Path, *, seed: int = 0, skip_broken: bool = False) -> dict[str, ImageData]:
    """All splits that a folder has without a ``validation`` size, as `load` returns them, by split name.

    Splits with too few images are omitted. Raises `InputError` as `load` does.
    """
    _check(folder)
    by_split = _split_folders(folder)
    if by_split:
        labels = _labels([child for group in by_split.values() for child in group], folder)
        present = [split for split in splits.SPLITS if split in by_split]
        return {split: _load_files(folder, by_split[split], labels, split, skip_broken) for split in present}
    data = _load_files(folder, [folder], _labels([folder], folder), "all", skip_broken)
    store = indexed(data.store)
    parts = _parts(store.labels, store.names, seed)
    present = [split for split in splits.SPLITS if (parts == split).any()]
    return {split: replace(data, split=split, store=store.take(parts == split)) for split in present}


def has_splits(folder: Path) -> bool:
    """Whether a folder holds split folders, ``FOLDER/<split>/<class>``."""
    return bool(_split_folders(folder))


def _check(folder: Path) -> None:
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; give a folder of class folders, 'digits', or a TFDS name.")
    if not folder.is_dir():
        raise InputError(f"{folder} is a file; give a folder of class folders (FOLDER/<class>/*.jpg).")


def _load_split_folders(folder, by_split, split, seed, skip_broken, validation) -> ImageData:
    """Load from ``FOLDER/<split>/<class>``. The classes are those of all splits, so that labels mean the same in each."""
    labels = _labels([child for group in by_split.values() for child in group], folder)
    has_validation = "validation" in by_split and validation is None
    available = [name for name in splits.SPLITS if name in by_split or (name == "validation" and "train" in by_split)]
    if split != "all" and split not in available:
        raise NoSuchSplit(f"split {split!r}: {folder} has {', '.join([*available, 'all'])}.")
    if split == "all":
        roots = [root for name in splits.SPLITS for root in by_split.get(name, [])]
        return _load_files(folder, roots, labels, split, skip_broken)
    if split == "test" or (split == "validation" and has_validation):
        return _load_files(folder, by_split[split], labels, split, skip_broken)
    if split == "validation":
        check_split(str(folder), split, validation)  # before reading anything
    train = _load_files(folder, by_split["train"], labels, "train", skip_broken)
    return cut_out(train, split, validation, seed)


def _split_folders(folder: Path) -> dict[str, list[Path]]:
    """The folders of each split. Empty if the folders are classes; a class may be called ``train`` too."""
    found: dict[str, list[Path]] = {}
    for child in files.folders(folder):
        found.setdefault(_SPLIT_NAMES.get(child.name.lower(), ""), []).append(child)
    others = found.pop("", [])
    return found if not others or any(files.folders(child) for child in found.get("train", [])) else {}


def _labels(roots: list[Path], folder: Path) -> tuple[str, ...]:
    """The class names: the names of the subfolders of ``roots``."""
    names = {child.name for root in roots for child in files.folders(root)}
    if not names:
        loose = any(files.images(root, Counter(), deep=False) for root in roots)
        found = "images but no class folders" if loose else "no images"
        raise InputError(
            f"{folder}: {found}; put the images of each class into their own folder, FOLDER/<class>/*.jpg."
        )
    return tuple(sorted(names, key=files.natural))


def _list(folder: Path, roots: list[Path], labels: tuple[str, ...], beside: set[Path]) -> tuple[Listing, Counter[str]]:
    """List the image files of every class below ``roots``, class by class in natural order, and count other files by suffix.

    Args:
        folder: The folder to which names are relative.
        roots: The folders that hold class folders.
        labels: The names of the class folders.
        beside: The folders in which to count files next to the class folders.
    """
    rows: list[tuple] = []
    left_out: Counter[str] = Counter()
    for target, label in enumerate(labels):
        for root in roots:
            entries = files.images(root / label, left_out) if (root / label).is_dir() else []
            for entry in entries:
                name = os.path.relpath(entry.path, folder).replace(os.sep, "/")
                rows.append((entry.path, name, *_size_and_time(entry), target))
    for root in beside:
        for entry in files.images(root, left_out, deep=False):
            left_out[f"{Path(entry.name).suffix.lower()} {files.LOOSE}"] += 1
    return Listing(*zip(*rows, strict=True)) if rows else Listing((), (), (), (), ()), left_out


def _size_and_time(entry: os.DirEntry) -> tuple[int, int]:
    """Size in bytes and modification time in ns. Both are zero for a broken link, which reading reports as broken."""
    try:
        stat = entry.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _load_files(folder: Path, roots: list[Path], labels: tuple[str, ...], split: str, skip_broken: bool) -> ImageData:
    """Load and verify every image below ``roots``."""
    # Files next to the split folders are counted with the splits 'train' and 'all'.
    listing, left_out = _list(folder, roots, labels, {*roots, *([folder] if split in ("train", "all") else [])})
    where = ", ".join(str(root) for root in roots)
    if not listing.paths:
        raise InputError(f"{where}: no images ({' '.join(files.EXTENSIONS)}) in its class folders.")
    if len(labels) == 1:
        raise InputError(f"{where}: only one class ({labels[0]!r}); a classifier needs at least two class folders.")
    targets = np.asarray(listing.targets, np.int64)
    counts = np.bincount(targets, minlength=len(labels))
    present = [any((root / label).is_dir() for root in roots) for label in labels]
    empty = [label for label, count, exists in zip(labels, counts, present, strict=True) if exists and not count]
    if split == "train":  # a class without training images cannot be learned
        empty = [label for label, count in zip(labels, counts, strict=True) if not count]
    if empty:
        raise InputError(f"{where}: no images of class {_some(empty)}; add images or remove the folder.")
    pixels, broken = _read(listing)
    skipped = tuple(name for name, bad in zip(listing.names, broken, strict=True) if bad)
    if skipped and not skip_broken:
        raise InputError(
            f"{where}: {len(skipped)} of {len(listing.names)} images cannot be decoded ({_some(skipped)}); repair or remove "
            "them, or skip them with skip_broken=True (--skip-broken)."
        )
    good = ~broken
    left = np.bincount(targets[good], minlength=len(labels))
    lost = [label for label, before, after in zip(labels, counts, left, strict=True) if before and not after]
    if lost:
        raise InputError(f"{where}: no image of class {_some(lost)} can be decoded; repair or replace them.")
    store = IndexedStore(pixels, np.arange(len(targets), dtype=np.int64), targets, listing.names).take(good)
    files.say_left_out(folder, left_out)
    return ImageData(str(folder), split, labels, store, skipped, left_out=dict(left_out))


def _part(data: ImageData, split: str, seed: int, validation: int | float | None) -> ImageData:
    """One split of a folder without split folders. Within each class, 10 % are test, 10 % validation and the rest train."""
    store = indexed(data.store)
    parts = _parts(store.labels, store.names, seed)
    if split != "test" and validation is not None:
        rest = replace(data, split="train", store=store.take(parts != "test"))
        return cut_out(rest, split, validation, seed)
    chosen = parts == split
    if not chosen.any():
        raise NoSuchSplit(
            f"{data.name}: too few images for a {split} split ({data.size}); add images or use split 'all'."
        )
    return replace(data, split=split, store=store.take(chosen))


def _parts(targets: np.ndarray, names: tuple[str, ...], seed: int) -> np.ndarray:
    """Assign each file to a split by a hash of seed and name. Small classes fill train first, then test, then validation."""
    parts = np.full(len(targets), "train", object)
    order = np.asarray(splits.shuffled(names, seed), np.int64)
    for target in range(targets.max() + 1):
        files = order[targets[order] == target]
        test = max(1, round(_TEST_SHARE * len(files))) if len(files) > 1 else 0
        validation = max(1, round(_VALIDATION_SHARE * len(files))) if len(files) > 2 else 0
        parts[files[:test]] = "test"
        parts[files[test : test + validation]] = "validation"
    return parts


def _some(names: Iterable[str]) -> str:
    """The first few names, for a one-line message."""
    names = list(names)
    more = f", … {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
