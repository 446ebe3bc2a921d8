"""How much a DenseNet depends on the features of earlier layers: Huang et al. 2016, section 5 and figure 5."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from keras_deepnets.insight import feature_reuse

if TYPE_CHECKING:
    import keras

_FIRST = re.compile(r"(?:^|/|_)conv(\d+)_block(\d+)_1_conv/kernel$")


def reuse_maps(model: keras.Model) -> dict[str, np.ndarray]:
    """Return the strengths of `insight.feature_reuse`, divided by the largest of each reader.

    Args:
        model: A DenseNet of this library.

    Returns:
        ``{"block 1": [sources, readers], …}``. Elements without a connection are NaN.

    Raises:
        InputError: The network has no dense blocks.
    """
    blocks = feature_reuse(model)
    return {
        f"block {place}": block.strengths / np.nanmax(block.strengths, axis=0) for place, block in enumerate(blocks, 1)
    }


def reuse(maps: dict[str, np.ndarray]) -> float:
    """Return the mean strength of all sources but the nearest, relative to the nearest. It is about 1 before training."""
    ratios = []
    for block in maps.values():
        for reader in range(2, block.shape[1]):
            column = block[:, reader]
            known = column[~np.isnan(column)]
            ratios.append(known[:-1].mean() / known[-1])
    return float(np.mean(ratios))


@contextlib.contextmanager
def cut(model: keras.Model) -> Iterator[None]:
    """Scope in which every layer of a dense block reads only the features of its nearest source.

    The weights on all other sources are 0. The classifier and the transitions still read all features.
    """
    kernels = {}
    for weight in model.weights:
        if (found := _FIRST.search(weight.path)) and int(found[2]) > 1:
            kernels[weight.path] = np.asarray(weight)
            growth = _growth(model, int(found[1]))
            kept = np.zeros_like(kernels[weight.path])
            kept[:, :, -growth:] = kernels[weight.path][:, :, -growth:]
            weight.assign(kept)
    try:
        yield
    finally:
        for weight in model.weights:
            if weight.path in kernels:
                weight.assign(kernels[weight.path])


def _growth(model: keras.Model, stage: int) -> int:
    """Return the number of feature maps that each layer of a block adds."""
    widths = {
        int(found[2]): weight.shape[2]
        for weight in model.weights
        if (found := _FIRST.search(weight.path)) and int(found[1]) == stage
    }
    return widths[2] - widths[1]
