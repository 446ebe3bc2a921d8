"""Pictures, forms, detection and fine-tuning under JAX and PyTorch: the numbers of TensorFlow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from tests.backends import program

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


def run(backend, folder):
    environment = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tests.backends.program", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == backend
    return dict(np.load(folder / f"{backend}.npz"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The folder of weights, and TensorFlow's numbers."""
    folder = tmp_path_factory.mktemp("backends")
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(1)
    for name, model in program.models().items():
        if name == "detector":  # scores and boxes that differ
            for weight in (
                model.get_layer("head").trainable_weights[-4:] + model.get_layer("rpn").trainable_weights[-4:]
            ):
                weight.assign(rng.normal(0, 0.05, weight.shape))
        kd.save_weights(model, folder / f"{name}.safetensors")
    return folder, run("tensorflow", folder)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_numbers_are_those_of_tensorflow(expected, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed (pip install {backend})")
    folder, numbers = expected
    found = run(backend, folder)
    assert sorted(found) == sorted(numbers) and len(found) > 20
    assert len(numbers["detected boxes"]) > 3 and numbers["trainable"] > 0
    for name, values in numbers.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-3, atol=1e-4 * np.abs(values).max(), err_msg=name)
