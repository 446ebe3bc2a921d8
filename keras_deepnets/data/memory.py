"""How much memory the images of a set may take."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_UNKNOWN = 8 << 30  # where the system does not say
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container


def total() -> int:
    """Bytes of main memory that the machine, or the container that this process is in, has.

    Not what is free: whether a set is held in memory must not depend on the moment, since a streamed set comes in another order.
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
    return int(text) if text.isdecimal() else None  # "max": none


def share(part: int, least: int, most: int) -> int:
    """One `part`-th of the memory, in bytes, but at least `least` and at most `most`."""
    return max(least, min(most, total() // part))
