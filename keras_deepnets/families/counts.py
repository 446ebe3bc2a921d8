"""Parameters and multiply-adds of every variant. They can be listed without building a network.

``python -m tools.count_networks`` computes `counts.json` from the models. A test checks the file. Never edit it by hand.
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
