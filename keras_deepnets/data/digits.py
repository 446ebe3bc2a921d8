"""The embedded digits: 1,797 real handwritten digits, 8×8, grey (see digits.md beside this file)."""

from __future__ import annotations

from importlib import resources

import numpy as np

from keras_deepnets.data.image_data import ImageData, cut_out
from keras_deepnets.data.splits import SPLITS
from keras_deepnets.data.stores import from_arrays
from keras_deepnets.errors import NoSuchSplit

NAME = "digits"


def load(split: str = "train", *, seed: int = 0, validation: int | float | None = None) -> ImageData:
    """The digits: train 1,437, test 360, all 1,797; uint8 ``[8, 8, 1]``, 0 paper to 255 ink.

    The test split is part of the file and the same for every seed; ``seed`` chooses what is cut out of train.

    Raises:
        InputError: an unknown split, or a validation size out of range or missing.
    """
    if split not in SPLITS:
        raise NoSuchSplit(f"split {split!r}: {NAME} has {', '.join(SPLITS)}.")
    with resources.files("keras_deepnets.data").joinpath("digits.npz").open("rb") as file, np.load(file) as arrays:
        images, targets, test = arrays["images"][..., None], arrays["labels"], arrays["test"]
    labels = tuple(str(digit) for digit in range(10))
    store = from_arrays(images, targets)
    if split == "all":
        return ImageData(NAME, split, labels, store)
    if split == "test":
        return ImageData(NAME, split, labels, store.take(test))
    return cut_out(ImageData(NAME, "train", labels, store.take(~test)), split, validation, seed)
