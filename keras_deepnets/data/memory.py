"""Memory budget for the images of a data set."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_UNKNOWN = 8 << 30  # if the system does not report it
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # limits of a container


def total() -> int:
    """Bytes of main memory of the machine, or of the container that this process runs in.

    Free memory does not count. A streamed data set has a different order, so the choice between memory and streaming must not vary
    over time.
    """
    found = [limit for limit in map(_limit, _LIMITS) if limit]
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no such function
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((size for size in found if size > 0), default=_UNKNOWN)


def _limit(path: str) -> int | None:
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() else None  # "max" means no limit


def share(part: int, least: int, most: int) -> int:
    """The memory divided by `part`, in bytes, limited to the range from `least` to `most`."""
    return max(least, min(most, total() // part))
