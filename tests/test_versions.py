"""Versions where the package is on the path and not installed."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import keras_deepnets as kd
from keras_deepnets.benchmark import keras_side
from keras_deepnets.export import model_card
from keras_deepnets.training import run
from keras_deepnets.versions import version

ROOT = Path(kd.__file__).parents[1]


@pytest.fixture
def not_installed(monkeypatch):
    """No distribution is found, as in a checkout on PYTHONPATH whose dependencies come from elsewhere."""

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setattr(metadata, "distribution", missing)


def test_all_who_ask_get_versions(not_installed):
    import keras
    import tensorflow as tf

    assert version("keras-deepnets") == kd.__version__
    assert version("tensorflow") == tf.__version__  # as the module says
    assert version("no-such-package") is None
    assert model_card.software()["keras_deepnets"] == kd.__version__
    assert keras_side._versions() == {
        "keras-deepnets": kd.__version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
    }
    assert run.software()["versions"]["keras-deepnets"] == kd.__version__


@pytest.mark.slow
def test_a_checkout_on_the_path(tmp_path):
    """A process that sees this checkout and its dependencies, and no metadata of ours, exports with a card."""
    program = f"""
import importlib.metadata as metadata, json, sys
real = metadata.distribution
def distribution(name):
    if name.replace("_", "-").lower() == "keras-deepnets":
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.distribution = distribution
try:
    metadata.version("keras-deepnets")
    sys.exit("it is installed here")
except metadata.PackageNotFoundError:
    pass
import keras_deepnets as kd
model = kd.HighwayMLP(depth=2, width=4, input_shape=(8, 8, 1), include_preprocessing=True)
path = kd.export.saved_model(model, {str(tmp_path / "served")!r})
print(json.loads((path / "model_card.json").read_text())["software"]["keras_deepnets"])
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == kd.__version__


def test_setup_takes_the_packages_version():
    """One place says it: what pip installs has the version that the package says."""
    assert "version = attr: keras_deepnets.versions.__version__" in (ROOT / "setup.cfg").read_text()
