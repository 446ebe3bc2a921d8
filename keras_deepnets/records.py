"""The record in models and weight files (architecture, labels, input scaling) and its format version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_deepnets.errors import InputError

FORMAT_VERSION = 1
"""Version of the record that `save_weights` and model configs contain. Readers reject later versions."""


def check_format(record: Mapping[str, Any], origin: str) -> None:
    """Raises InputError if a later version wrote the record. A record without a format has version 1."""
    version = record.get("format", 1)
    if version > FORMAT_VERSION:
        raise InputError(
            f"{origin} has format {version} and this version of keras_deepnets reads up to {FORMAT_VERSION}; upgrade keras_deepnets."
        )
