"""Which images of a source a trained model is measured on, where nobody says which split."""

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
    "the data's own test split, else its own validation split. Of a folder of class folders without splits: the test part that "
    "`train` left out, if the model's run was trained on this folder; else all images"
)
"""The rule in words, for help texts."""


@dataclass(frozen=True)
class RunRecord:
    """What is known of the training of a model: what `config.json` in the folder of its run says, or an export's card.

    Attributes:
        seed: which chose the images of each split; None: it is not known.
        source: the training data's name: a folder, or a named set.
        cut: how many, or which fraction, of the training images were cut out to measure on; None: none were.
        names: digest of the names of the training images, or None where they are no files.
    """

    seed: int | None
    source: str
    cut: int | float | None = None
    names: str | None = None

    @classmethod
    def beside(cls, model: Path) -> RunRecord | None:
        """The record of a model's file; None where it lies in no run folder."""
        try:
            config = json.loads((model.parent / "config.json").read_text(encoding="utf-8"))
            data, held = config["data"], config["validation"] or {}
            names = (data.get("digests") or {}).get("names")
            return cls(int(config["seed"]), str(data["name"]), held.get("cut"), names)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    @property
    def data(self) -> str:
        """The training data's name; of a folder without the path to it."""
        return Path(self.source).name

    def has_name_of(self, source: str | os.PathLike) -> bool:
        """Whether the training data was called as `source` is."""
        return self.data == Path(source).name

    def is_of(self, source: str | os.PathLike) -> bool:
        """Whether the run was trained on a folder, as far as that can be told: the same place, or the same names of files.

        A folder of the same name counts where the one of the run is not to be found.
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

        try:
            train = load(source, "train", seed=self.seed, validation=self.cut, skip_broken=True)
        except InputError:  # too few images for such a cut: of another folder
            return None
        return identity(train)["digests"].get("names")


@dataclass(frozen=True)
class Measured:
    """Images to measure a model on.

    Attributes:
        images: the images.
        split: ``"test"``, ``"validation"``, ``"all"``, ….
        of: number of images in the folder that they were cut out of; None: nothing was cut.
        reason: why these, in a few words.
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
    """Loads the images of a source that a trained model is measured on.

    Args:
        source: as for `keras_deepnets.data.load`.
        split: a split of it; None: by `RULE`.
        record: of the model's run, or None where it is not known.
        seed: of what belongs to which split; None: the run's, else 0.
        skip_broken: leave out image files that cannot be decoded.

    Raises:
        InputError: as `keras_deepnets.data.load`.
    """
    from keras_deepnets import data as datasets

    seed = (record.seed or 0 if record else 0) if seed is None else seed
    options = {"seed": seed, "skip_broken": skip_broken}
    if not datasets.is_cut(source):
        return _own(
            source, split, options | {"validation": record.cut if record and record.has_name_of(source) else None}
        )
    whole = datasets.load(source, "all", **options)  # its pixels are shared with what is cut out of it
    if split == "all":
        return Measured(whole, "all", None, "")
    known = record is not None and record.is_of(source)
    if split is None and (not known or record.seed is None):
        return Measured(whole, "all", None, _why_all(record, known))
    split = split or "test"
    images = datasets.load(source, split, **options, validation=record.cut if known else None)
    return Measured(images, split, whole.size, _reason(split, seed, record if known else None))


def _own(source: str | os.PathLike, split: str | None, options: Mapping[str, Any]) -> Measured:
    """Images of a source that has splits of its own."""
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
    """Why all images of a folder are measured."""
    if record is None:
        return "no run record says what the model was trained on"
    if known:
        return "the model was trained on data of this name, so some may be its training images"
    return f"the model was trained on {record.data}"


def _reason(split: str, seed: int, record: RunRecord | None) -> str:
    """What is said of images that were cut out of a folder; `record` of a run that was trained on it."""
    if record is None or record.seed is None:
        return f"cut out by seed {seed}"
    if seed != record.seed:
        return f"cut out by seed {seed}; the run was trained with seed {record.seed} and has seen some of these"
    return _PARTS[split]


_PARTS = {
    "train": "the run was trained on these",
    "validation": "the run was not trained on these",
    "test": "the rest was for training and validation",
}
