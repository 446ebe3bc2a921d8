"""The processor: its name, its instruction sets and its cores. Other systems than Linux do not say which instructions exist."""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

_LINUX = Path("/proc/cpuinfo")

_SETS = {
    "AVX2": "avx2",
    "AVX-512": "avx512f",
    "AVX-512 VNNI": "avx512_vnni",
    "AVX-512 BF16": "avx512_bf16",
    "AMX": "amx_tile",
    "NEON": "asimd",
    "SVE": "sve",
}


@functools.cache
def _first_processor() -> dict[str, str]:
    """The fields of the first processor."""
    try:
        text = _LINUX.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def name() -> str:
    """The processor's name."""
    return _first_processor().get("model name") or platform.processor() or platform.machine()


def instructions() -> frozenset[str]:
    """Instruction sets by the names of the Linux kernel, for example ``avx512f``. Empty if they are not known."""
    fields = _first_processor()
    return frozenset((fields.get("flags") or fields.get("Features") or "").split())


def instruction_sets() -> list[str]:
    """The instruction sets that matter for speed here, for example ``["AVX2", "AVX-512"]``."""
    there = instructions()
    return [label for label, flag in _SETS.items() if flag in there]


def has_bfloat16() -> bool:
    """Whether an x86 processor computes with bfloat16 numbers. False if that is not known."""
    return bool(instructions() & {"avx512_bf16", "amx_bf16"})


def usable() -> list[int]:
    """Numbers of the processors that this process may use, in ascending order."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
