"""Weights, inputs and samples that are a function of names and shapes, the same on every machine.

They come from the raw bits of NumPy's Philox, whose stream is fixed for good, and from single float32 operations.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import numpy as np

SAMPLES = 36
STATISTICS = ("max abs", "mean", "std", "signed mean")


def _bits(name: str, count: int) -> np.ndarray:
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    words = np.random.Philox(key=key).random_raw(-(-count // 2))
    return np.stack([words & 0xFFFFFFFF, words >> np.uint64(32)], -1).reshape(-1)[:count].astype(np.uint32)


def uniform(name: str, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Float32 numbers in [low, high) that depend on `name` and the count alone."""
    unit = (_bits(name, int(np.prod(shape))) >> 8).astype(np.float32) * np.float32(2**-24)
    return (unit * np.float32(high - low) + np.float32(low)).reshape(shape)


def golden_weights(
    name: str, shape: tuple[int, ...], branch_end: str | None = None, branch_scale: float = 0.25
) -> np.ndarray:
    """The tensor of that name and shape, float32: He's variance for kernels, BN far from its neutral values.

    Args:
        name: the tensor's name in the peer's naming.
        shape: its shape there.
        branch_end: pattern of the names of what ends a residual branch. These tensors are smaller, so that activations do not
            grow without bounds from block to block.
        branch_scale: how much smaller.
    """
    scale = branch_scale if branch_end and re.search(branch_end, name) else 1.0
    if len(shape) > 1:
        bound = scale * (6 / np.prod(shape[1:])) ** 0.5
        return uniform(name, shape, -bound, bound)
    part = name.rpartition(".")[2]
    if part in ("bias", "running_mean"):
        return uniform(name, shape, -0.2 * scale, 0.2 * scale)
    return uniform(name, shape, 0.5, 1.5) * np.float32(scale)


def golden_input(height: int, width: int) -> np.ndarray:
    """An image batch ``[1, height, width, 3]`` of mean 0 and variance 1."""
    return uniform(f"input {height}x{width}", (1, height, width, 3), -(3**0.5), 3**0.5)


def positions(shape: tuple[int, ...]) -> np.ndarray:
    """Which numbers of a tensor, as indices into it flattened, stand in the goldens: all of a short one.

    Of ``[n, h, w, c]`` a channel of every corner, some on every side, where wrong padding shows, and the rest anywhere.
    """
    count = int(np.prod(shape))
    if count <= SAMPLES:
        return np.resize(np.arange(count), SAMPLES)
    draws = _bits(f"positions {shape}", 4 * SAMPLES).reshape(SAMPLES, 4).astype(np.int64) % np.array(
        (1,) * (4 - len(shape)) + shape
    )
    if len(shape) == 4:
        _, height, width, _ = shape
        draws[:4, 1:3] = [(y, x) for y in (0, height - 1) for x in (0, width - 1)]
        draws[4:12:4, 1], draws[5:12:4, 1] = 0, height - 1
        draws[6:12:4, 2], draws[7:12:4, 2] = 0, width - 1
    return np.ravel_multi_index(tuple(draws.T), (1,) * (4 - len(shape)) + shape)


def summary(tensor: np.ndarray) -> np.ndarray:
    """What the goldens keep of a tensor ``[n, h, w, c]`` or ``[n, c]``: `STATISTICS`, then the numbers at `positions`, float64.

    The signed mean is the sum over random signs divided by the square root of the count: it moves with every number.
    """
    values = np.asarray(tensor, np.float64).reshape(-1)
    signs = (_bits(f"signs {tensor.shape}", values.size) & 1).astype(np.float64) * 2 - 1
    statistics = [np.abs(values).max(), values.mean(), values.std(), values @ signs / values.size**0.5]
    return np.concatenate([statistics, values[positions(tensor.shape)]])


def difference(ours: np.ndarray, golden: np.ndarray) -> float:
    """The largest difference of two summaries, relative to the golden tensor's largest number."""
    return float(np.abs(np.asarray(ours, np.float64) - golden).max() / golden[0])


def digest(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> str:
    """A fingerprint of tensors' names and shapes, in any order."""
    lines = sorted(f"{name} {tuple(map(int, shape))}" for name, shape in tensors)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
