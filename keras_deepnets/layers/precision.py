"""The dtype of sums, statistics and outputs, whatever the dtype of the maps."""

from __future__ import annotations

from typing import Any

import keras


def at_least_float32(dtype: Any) -> str:
    """float64 for float64, otherwise float32. `dtype` is a name or a dtype of the backend."""
    return "float64" if keras.backend.standardize_dtype(dtype) == "float64" else "float32"
