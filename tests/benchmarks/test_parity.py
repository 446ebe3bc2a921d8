"""The table of parity in docs/howto/backends.md: JAX and PyTorch against TensorFlow."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import parity

ROOT = Path(__file__).parents[2]
EXACT = 1e-11
"""In float64, the backends compute the same, and the rounding errors of 20 steps stay below this."""
FLOORS = parity.Differences(1e-5, 5e-3, 1e-4)
"""The gradient jumps if a ReLU passes an activation on one side only."""
ROUNDING = 3
"""Two backends differ by at most this times what rounding does in TensorFlow, or by the floors. Weights are random."""


def bounds(precision, own):
    """The largest differences of a backend, for a difference `own` of TensorFlow from itself in the next wider precision."""
    if precision == "float64":
        return (EXACT,) * 3
    floors = FLOORS if precision == "float32" else (0, 0, 0)
    return tuple(max(ROUNDING * value, floor) for value, floor in zip(own, floors, strict=True))


def installed():
    return tuple(backend for backend in parity.BACKENDS if importlib.util.find_spec(backend))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "name"),
    [
        *(("float64", name) for name in parity.NETWORKS),
        ("float32", "resnet20"),
        ("float32", "plainnet20"),
        ("mixed_bfloat16", "resnet20"),
        ("mixed_bfloat16", "allcnn_c"),
    ],
)
def test_the_backends_agree(precision, name):
    backends = installed()
    if not backends:
        pytest.skip("needs jax or torch")
    found = parity.measure(name, precision, backends)
    own = found.pop(parity.WIDER[precision], None)
    if own:
        assert own.outputs > (1e-4 if precision == "mixed_bfloat16" else 1e-8)  # rounded more than the wider one
    for backend, differences in found.items():
        most = bounds(precision, own)
        assert all(value < bound for value, bound in zip(differences, most, strict=True)), (backend, own, found)
        assert max(differences) > 0  # other numbers of other programs


def documented(heading):
    """Return the rows of the table below a heading: network to numbers."""
    text = (ROOT / "docs/howto/backends.md").read_text(encoding="utf-8")
    part = text[text.index(heading) + len(heading) :].partition("\n#")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^`]*) \|$", part, re.MULTILINE))
    return {name: [float(value) for value in values.split(" | ")] for name, values in rows.items()}


@pytest.mark.parametrize(
    ("precision", "heading"),
    [("float64", "### In float64"), ("float32", "### In float32"), ("mixed_bfloat16", "### In mixed bfloat16")],
)
def test_the_documentation_has_the_tables(precision, heading):
    rows = documented(heading)
    assert list(rows) == list(parity.NETWORKS)
    for values in rows.values():
        assert len(values) == (6 if precision == "float64" else 9)
        most = bounds(precision, values[6:])
        assert all(value < bound for value, bound in zip(values[:6], most * 2, strict=True))


def test_differences():
    rng = np.random.default_rng(0)
    reference = {
        "outputs": rng.normal(size=(2, 3)),
        "gradients": rng.normal(size=(5, 7)),
        "losses": np.array([2.0, 1.0]),
    }
    assert parity.compare(reference, reference) == (0, 0, 0)
    other = {name: values.copy() for name, values in reference.items()}
    other["outputs"][0, 0] += 0.01 * np.abs(reference["outputs"]).max()
    other["gradients"][:3] *= 1.1  # three of five batches
    other["losses"][1] = 1.04
    assert parity.compare(reference, other) == pytest.approx((0.01, 0.1, 0.02))


def test_wrong_names():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.parity", "resnet19"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "resnet19: choose from resnet20" in done.stderr
