"""Versions of this package and of other packages, installed or only on the path."""

from __future__ import annotations

import sys
from importlib import metadata

__version__ = "0.1.0"

DISTRIBUTION = "keras-deepnets"


def version(package: str) -> str | None:
    """The version of a distribution, or None if unknown.

    This package knows its own version. Other versions are those of the installed distribution or of the loaded module.
    """
    if package == DISTRIBUTION:
        return __version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return getattr(sys.modules.get(package.replace("-", "_")), "__version__", None)
