"""Parameters and multiply-adds of every variant, so that they can be listed without building a network.

`counts.json` is computed from the models, never typed: ``python -m tools.count_networks`` writes it, a test compares it.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path

PATH = Path(__file__).with_name("counts.json")


@functools.cache
def recorded() -> dict[str, dict[str, int]]:
    """Constructor name to ``{"parameters": …, "flops": …}``."""
    return json.loads(PATH.read_text()) if PATH.exists() else {}
