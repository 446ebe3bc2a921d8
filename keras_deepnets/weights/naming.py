"""Translation of weight names. Each naming is one table of rules, which is read in both directions. `naming_tables` has the tables.

A rule is a pair of layer names: the other library's and this library's. ``{name}`` means a number. ``{name+1}`` and ``{name-1}`` mean
one more and one less than the number that both sides share. A rule without numbers applies before those with numbers, and otherwise the
first that matches. A tensor's name consists of the layer's name and the tensor's role in that layer. Torch uses ``weight`` and ``bias``
for convolutions, norms and classifiers.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Rules = tuple[tuple[str, str], ...]

_NUMBER = re.compile(r"\{(\w+)([+-]\d+)?\}")
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_OTHER = {"weight": "kernel", "bias": "bias"}
_THEIRS = {ours: theirs for table in (_NORM, _OTHER) for theirs, ours in table.items()}

_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.|model\.|state_dict\.)+")
_OLD_DENSE = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.(\d)")

BOOKKEEPING = "num_batches_tracked"
"""A tensor of torch's batch normalisation that no forward pass reads."""


@dataclass(frozen=True)
class Naming:
    """Another library's names and layout of the same weights.

    Attributes:
        name: Name of the naming for users.
        rules: Pairs of layer names, the other library's and this library's. Empty if they are the same.
        families: Names of this library's families with such networks.
        layout: ``"torch"`` or ``"keras"``.
        convolutions: Fully connected layers of this library that the other one has as convolutions, with the side of their kernels.
        flattened: Fully connected layers that read a flattened square map, with its side. Torch flattens the channels first.
        needs: Options that a network of this library needs to compute the same. Shapes do not show them.
        has: A tensor that all networks of this naming have, if names alone do not identify the naming.
        moving: Whether the norms have moving statistics. Group normalisation has none.
        epsilon: Epsilon of the other library's batch normalisation, if it differs and files do not store it.
    """

    name: str
    rules: Rules
    families: tuple[str, ...] = ()
    layout: str = "torch"
    convolutions: Mapping[str, int] = field(default_factory=dict)
    flattened: Mapping[str, int] = field(default_factory=dict)
    needs: Mapping[str, Any] = field(default_factory=dict)
    has: str | None = None
    moving: bool = True
    epsilon: float | None = None

    def ours(self, tensor: str) -> str | None:
        """Translate ``"layer1.0.conv1.weight"`` to ``"conv2_block1_1_conv/kernel"``. None if no rule matches the name."""
        if self.layout == "keras":
            layer, _, part = tensor.rpartition("/")
            found = self._to_ours(layer) if self.rules else layer
            return None if found is None or part not in _THEIRS else f"{found}/{part}"
        layer, _, part = tensor.rpartition(".")
        found = self._to_ours(layer)
        if found is None:
            return None
        table = _NORM if found.endswith(("bn", "gn")) else _OTHER
        return f"{found}/{table[part]}" if part in table else None

    def theirs(self, weight: str) -> str | None:
        """Translate ``"conv2_block1_1_conv/kernel"`` to ``"layer1.0.conv1.weight"``. None if no rule matches the name."""
        layer, _, part = weight.rpartition("/")
        found = self._to_theirs(layer)
        if found is None or part not in _THEIRS:
            return None
        return f"{found}/{part}" if self.layout == "keras" else f"{found}.{_THEIRS[part]}"

    @functools.cached_property
    def _to_ours(self) -> Callable[[str], str | None]:
        return _translation(self.rules)

    @functools.cached_property
    def _to_theirs(self) -> Callable[[str], str | None]:
        return _translation(tuple((ours, theirs) for theirs, ours in self.rules))

    def their_shape(self, shape: tuple[int, ...], layer: str) -> tuple[int, ...]:
        """The other library's shape for a weight of this library's `layer`."""
        if self.layout == "keras":
            return shape
        if len(shape) == 4:
            return (shape[3], shape[2], shape[0], shape[1])
        if len(shape) == 2 and layer in self.convolutions:
            side = self.convolutions[layer]
            return (shape[1], shape[0] // side**2, side, side)
        return tuple(reversed(shape))

    def our_array(self, array: np.ndarray, dimensions: int, layer: str) -> np.ndarray:
        """Convert a tensor of the other library to this library's layout, for a weight of `layer` with `dimensions` dimensions."""
        if self.layout == "keras":
            return array
        side = self.flattened.get(layer, 1)
        if side > 1 and array.ndim == 2 and array.shape[1] % side**2 == 0:
            array = array.reshape(len(array), -1, side, side)
        return our_array(array, dimensions)


def our_array(array: np.ndarray, dimensions: int) -> np.ndarray:
    """Convert a torch tensor to this library's layout, for a weight with `dimensions` dimensions.

    * Convolutions, grouped ones too: ``[out, in, h, w]`` to ``[h, w, in, out]``.
    * Convolutions along one axis: ``[out, in, k]`` to ``[k, in, out]``.
    * Fully connected layers: ``[out, in]`` to ``[in, out]``.
    * Convolutions over a whole map as fully connected layers: ``[out, in, h, w]`` to ``[h·w·in, out]``.
    * Vectors: unchanged.
    """
    if array.ndim != 4:
        return array.transpose()
    array = array.transpose(2, 3, 1, 0)
    return array.reshape(-1, array.shape[-1]) if dimensions == 2 else array


def _translation(rules: Rules) -> Callable[[str], str | None]:
    """The function from a layer's name to its translation. Names without numbers are looked up, because some tables have only these."""
    exact = {source: target for source, target in reversed(rules) if not _NUMBER.search(source)}
    patterns = [(source, target) for source, target in rules if _NUMBER.search(source)]

    def translated(name: str) -> str | None:
        if name in exact:
            return exact[name]
        for source, target in patterns:
            match = _pattern(source).fullmatch(name)
            if match:
                numbers = {key: int(text) - _offset(source, key) for key, text in match.groupdict().items()}
                return _filled(target, numbers)
        return None

    return translated


def _filled(template: str, numbers: dict[str, int]) -> str:
    return _NUMBER.sub(lambda found: str(numbers[found[1]] + int(found[2] or 0)), template)


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
    literals = _NUMBER.split(template)
    pattern = re.escape(literals[0])
    for number, literal in zip(literals[1::3], literals[3::3], strict=True):
        again = f"(?P<{number}>" in pattern
        pattern += (f"(?P={number})" if again else rf"(?P<{number}>\d+)") + re.escape(literal)
    return re.compile(pattern)


@functools.cache
def _offset(template: str, field: str) -> int:
    return next(int(offset or 0) for name, offset in _NUMBER.findall(template) if name == field)


def plain_name(name: str) -> str:
    """Remove wrapper prefixes from a tensor's name, and update old torchvision DenseNet names."""
    return _OLD_DENSE.sub(r"\1\2", _WRAPPERS.sub("", name))
