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


ROUNDING = 3
"""Two backends in mixed_bfloat16 differ by at most this times the difference of TensorFlow from itself in float32. Weights are random."""


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


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet20", "allcnn_c"])
def test_the_backends_agree_within_the_rounding_of_bfloat16(name):
    backends = installed()
    if not backends:
        pytest.skip("needs jax or torch")
    found = parity.measure(name, "mixed_bfloat16", backends)
    own = found.pop("float32")
    assert own.outputs > 1e-4  # it is not float32
    for backend, differences in found.items():
        assert all(value < ROUNDING * most for value, most in zip(differences, own, strict=True)), (backend, own, found)


def documented(heading):
    """Return the rows of the table below a heading: network to numbers."""
    text = (ROOT / "docs/howto/backends.md").read_text(encoding="utf-8")
    part = text[text.index(heading) + len(heading) :].partition("\n#")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^`]*) \|$", part, re.MULTILINE))
    return {name: [float(value) for value in values.split(" | ")] for name, values in rows.items()}


def test_the_documentation_has_the_tables():
    rows = documented("## Parity")
    assert list(rows) == list(parity.NETWORKS)
    for values in rows.values():
        assert all(value < most for value, most in zip(values, (*BOUNDS, *BOUNDS), strict=True))
    rows = documented("### In mixed bfloat16")
    assert list(rows) == list(parity.NETWORKS)
    for jax_and_torch, own in ((values[:6], values[6:]) for values in rows.values()):
        assert all(value < ROUNDING * most for value, most in zip(jax_and_torch, own * 2, strict=True))


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
