"""The record that models and weight files carry: architecture, labels, input scaling; and the version of its form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_deepnets.errors import InputError

FORMAT_VERSION = 1
"""Of the record that `save_weights` and models' configs carry; a reader refuses later ones."""


def check_format(record: Mapping[str, Any], origin: str) -> None:
    """Raises InputError where a later version wrote the record; without a format it is of the first."""
    version = record.get("format", 1)
    if version > FORMAT_VERSION:
        raise InputError(
            f"{origin} has format {version} and this version of keras_deepnets reads up to {FORMAT_VERSION}; upgrade it."
        )
