"""Versions of this package and of those that it works with, whether they are installed or only on the path."""

from __future__ import annotations

import sys
from importlib import metadata

__version__ = "0.1.0"

DISTRIBUTION = "keras-deepnets"


def version(package: str) -> str | None:
    """The version of a distribution: ours as the package itself says, another's as installed, or as its loaded module says; else None."""
    if package == DISTRIBUTION:
        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return getattr(sys.modules.get(package.replace("-", "_")), "__version__", None)
