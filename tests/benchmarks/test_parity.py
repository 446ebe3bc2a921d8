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
BOUNDS = parity.Differences(1e-5, 2e-3, 5e-3)
"""One activation that a ReLU passes on one side only changes the gradient by up to 1e-3. The steps make rounding errors grow."""


def installed():
    return tuple(backend for backend in parity.BACKENDS if importlib.util.find_spec(backend))


@pytest.mark.slow
@pytest.mark.parametrize("name", parity.NETWORKS)
def test_the_backends_agree(name):
    backends = installed()
    if not backends:
        pytest.skip("needs jax or torch")
    for backend, found in parity.measure(name, "float32", backends).items():
        assert all(value < most for value, most in zip(found, BOUNDS, strict=True)), (backend, found)
        assert max(found) > 0  # other numbers of other programs


def test_the_documentation_has_the_table():
    text = (ROOT / "docs/howto/backends.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^`]*) \|$", text[text.index("## Parity") :], re.MULTILINE))
    assert list(rows) == list(parity.NETWORKS)
    for values in rows.values():
        for value, most in zip(map(float, values.split(" | ")), (*BOUNDS, *BOUNDS), strict=True):
            assert value < most


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
