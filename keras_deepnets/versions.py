"""Versions of this package and of those that it works with, whether they are installed or only on the path."""

from __future__ import annotations

import sys
from importlib import metadata

import keras_deepnets

DISTRIBUTION = "keras-deepnets"


def version(package: str) -> str | None:
    """The version of a distribution: ours as the package itself says, another's as installed, or as its loaded module says; else None."""
    if package == DISTRIBUTION:
        return keras_deepnets.__version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return getattr(sys.modules.get(package.replace("-", "_")), "__version__", None)
