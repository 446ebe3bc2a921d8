"""Published errors of named networks, as numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from keras_deepnets.errors import InputError
from keras_deepnets.facts import model_info


@dataclass(frozen=True)
class Published:
    """A point of a paper: test error in percent, with the parameters and multiply-adds of this library's network."""

    network: str
    family: str
    parameters: int
    multiply_adds: int
    test_error: float


def published(name: str) -> Published:
    """Return the published error of a network. With several, it is the one with data augmentation.

    Raises:
        InputError: The paper has no error.
        ValueError: The name is unknown.
    """
    info = model_info(name)
    # Some rows give two errors: "10.41 %, CIFAR-10; 8.81 % with augmentation".
    found = re.search(r"([\d.]+) % with augment", info.error) or re.match(r"([\d.]+) %", info.error)
    if found is None:
        raise InputError(f"{name} has no published error; leave it out.")
    return Published(info.name, info.family, info.parameters, info.flops, float(found[1]))
