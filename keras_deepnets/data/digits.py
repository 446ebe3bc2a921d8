"""The embedded digits: 1,797 real handwritten digits, 8×8, grey. See digits.md in this folder."""

from __future__ import annotations

from importlib import resources

import numpy as np

from keras_deepnets.data.image_data import ImageData, cut_out
from keras_deepnets.data.splits import SPLITS
from keras_deepnets.data.stores import from_arrays
from keras_deepnets.errors import NoSuchSplit

NAME = "digits"


def load(split: str = "train", *, seed: int = 0, validation: int | float | None = None) -> ImageData:
    """Load the digits: uint8 ``[8, 8, 1]``, from 0 (paper) to 255 (ink). Train has 1,437 images, test 360, all 1,797.

    The test split is stored in the file and is the same for every seed. ``seed`` chooses the examples that are cut out of train.

    Raises:
        InputError: The split is unknown, or the validation size is missing or out of range.
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
