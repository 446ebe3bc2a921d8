"""Which images of a source a trained model is evaluated on if the caller names no split."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError, NoSuchSplit

if TYPE_CHECKING:
    from keras_deepnets.data import ImageData

RULE = (
    "the data's test split, otherwise its validation split. For a folder of class folders without splits: the test part that "
    "`train` held out, if it did so, otherwise all images"
)
"""Text of the rule, for help texts."""


@dataclass(frozen=True)
class RunRecord:
    """What is known about the training of a model, from `config.json` in its run folder or the card of an export.

    Attributes:
        seed: Seed that selected the images of each split. None: unknown.
        source: Name of the training data: a folder, or a named set.
        cut: Number or fraction of the training images that were split off for validation. None: the source's own splits,
            or another source. 0: the run had no validation.
        names: Digest of the file names of the training images. None: the images are not files.
        split: Split of the source that was trained on.
    """

    seed: int | None
    source: str
    cut: int | float | None = None
    names: str | None = None
    split: str = "train"

    @classmethod
    def beside(cls, model: Path) -> RunRecord | None:
        """Return the record next to a model's file; None if the file is not in a run folder."""
        try:
            config = json.loads((model.parent / "config.json").read_text(encoding="utf-8"))
            data, held = config["data"], config["validation"] or {"cut": 0}
            names = (data.get("digests") or {}).get("names")
            return cls(
                int(config["seed"]), str(data["name"]), held.get("cut"), names, str(data.get("split") or "train")
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    @property
    def data(self) -> str:
        """Return the name of the training data. For a folder, this is the name without the path."""
        return Path(self.source).name

    def has_name_of(self, source: str | os.PathLike) -> bool:
        """Return whether the training data has the name of `source`."""
        return self.data == Path(source).name

    def is_of(self, source: str | os.PathLike) -> bool:
        """Return whether the run was trained on a folder, as far as this can be determined.

        The folder must be the same place or contain the same file names. If the folder of the run no longer exists, a
        folder of the same name is accepted.
        """
        mine, theirs = Path(self.source).expanduser(), Path(source).expanduser()
        with contextlib.suppress(OSError):
            if mine.samefile(theirs):
                return True
        if not mine.exists() and self.has_name_of(source):
            return True
        return self.names is not None and self.names == self._names_in(source)

    def _names_in(self, source: str | os.PathLike) -> str | None:
        from keras_deepnets.data import load
        from keras_deepnets.training.identity import identity

        if self.seed is None:  # the images of the split are unknown
            return None
        try:
            cut = None if self.split == "all" else self.cut
            train = load(source, self.split, seed=self.seed, validation=cut, skip_broken=True)
        except InputError:  # too few images for this split: another folder
            return None
        return identity(train)["digests"].get("names")


@dataclass(frozen=True)
class Measured:
    """Images to evaluate a model on.

    Attributes:
        images: Images.
        split: ``"test"``, ``"validation"``, ``"all"``, ….
        of: Number of images in the folder that was divided into splits. None: the folder was not divided.
        reason: Why these images, in a few words.
    """

    images: ImageData
    split: str
    of: int | None
    reason: str

    def __str__(self) -> str:
        count = f"{self.images.size:,}" if self.of is None else f"{self.images.size:,} of {self.of:,}"
        what = "all" if self.split == "all" else f"{self.split} split:"
        images = f"{what} {count} images"
        return f"{images}, {self.reason}" if self.reason else images


def images_to_measure(
    source: str | os.PathLike,
    split: str | None,
    record: RunRecord | None,
    *,
    seed: int | None = None,
    skip_broken: bool = False,
) -> Measured:
    """Load the images of a source to evaluate a trained model on.

    Args:
        source: As for `keras_deepnets.data.load`.
        split: Split of the source. None: selected by `RULE`.
        record: Record of the model's run, or None if it is unknown.
        seed: Seed that divides a folder into splits. None: that of the run, otherwise 0.
        skip_broken: Whether to skip image files that cannot be decoded.

    Raises:
        InputError: As for `keras_deepnets.data.load`.
    """
    from keras_deepnets import data as datasets

    seed = (record.seed or 0 if record else 0) if seed is None else seed
    options: dict[str, Any] = {"seed": seed, "skip_broken": skip_broken}
    if not datasets.is_cut(source):
        return _own(
            source,
            split,
            options | {"validation": (record.cut or None) if record and record.has_name_of(source) else None},
        )
    whole = datasets.load(source, "all", **options)  # the splits share its pixels
    if split == "all":
        return Measured(whole, "all", None, "")
    own = record if record is not None and record.is_of(source) else None
    if split is None and (own is None or own.seed is None):
        return Measured(whole, "all", None, _why_all(record, own is not None))
    if own is not None and own.split == "all" and split is None:
        return Measured(whole, "all", None, _PARTS["train"])
    if own is not None and own.cut == 0 and split == "validation":
        raise NoSuchSplit("split 'validation': the run was trained without validation images; give test, train or all.")
    split = split or "test"
    cut = None if own is None or own.split == "all" else own.cut
    images = datasets.load(source, split, **options, validation=cut)
    return Measured(images, split, whole.size, _reason(split, seed, own))


def _own(source: str | os.PathLike, split: str | None, options: Mapping[str, Any]) -> Measured:
    """Load the images of a source that has its own splits."""
    from keras_deepnets import data as datasets

    if split is not None:
        return Measured(datasets.load(source, split, **options), split, None, "")
    try:
        return Measured(datasets.load(source, "test", **options), "test", None, "")
    except NoSuchSplit:
        with contextlib.suppress(NoSuchSplit):
            return Measured(
                datasets.load(source, "validation", **options), "validation", None, "the data has no test split"
            )
        raise


def _why_all(record: RunRecord | None, known: bool) -> str:
    """Return why all images of a folder are used."""
    if record is None:
        return "no run record says what the model was trained on"
    if known:
        return "the model was trained on data of this name, so some may be its training images"
    return f"the model was trained on {record.data}"


def _reason(split: str, seed: int, record: RunRecord | None) -> str:
    """Describe images from a divided folder; `record` is that of a run trained on it."""
    if record is None or record.seed is None:
        return f"split off with seed {seed}"
    if seed != record.seed:
        return f"split off with seed {seed}; the run was trained with seed {record.seed} and has seen some of these"
    return _PARTS["train" if record.split == "all" else split]


_PARTS = {
    "train": "the run was trained on these",
    "validation": "the run was not trained on these",
    "test": "the rest was used for training and validation",
}
