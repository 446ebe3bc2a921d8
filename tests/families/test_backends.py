"""The same networks on the other Keras backends: each in its own process, all three with the same numbers."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BACKENDS = ("tensorflow", "jax", "torch")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Backend to what `backend_run.py` measured there."""
    folder = tmp_path_factory.mktemp("backends")
    found = {}
    for backend in BACKENDS:
        if importlib.util.find_spec(backend) is None:
            continue
        path = folder / f"{backend}.npz"
        environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, str(Path(__file__).with_name("backend_run.py")), str(path)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        found[backend] = dict(np.load(path))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_agrees_with_tensorflow(results, backend):
    if backend not in results:
        pytest.skip(f"{backend} is not installed (pip install {backend})")
    ours, theirs = results["tensorflow"], results[backend]
    assert sorted(ours) == sorted(theirs) and len(ours) >= 20
    differences = {}
    for name, expected in ours.items():
        scale = max(np.abs(expected).max(), 1e-3)
        # The step goes through batch norm on maps of four pixels, which makes more of rounding errors.
        tolerance = 1e-3 if name.endswith("after") else 1e-4
        difference = np.abs(theirs[name] - expected).max() / scale
        if not difference < tolerance:
            differences[name] = difference
    assert not differences
