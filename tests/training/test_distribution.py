"""The pieces of training under `tf.distribute.MirroredStrategy`, as `examples/train_imagenet.py` uses them."""

import subprocess
import sys
from pathlib import Path

import pytest

from keras_deepnets.training import read_metrics

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


def test_two_devices_train_as_one(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.training.two_devices", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    one, two = (read_metrics(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    assert [row["step"] for row in two] == [3, 6, 9]
    for name in ("loss", "accuracy", "learning_rate"):
        assert [row[name] for row in two] == pytest.approx([row[name] for row in one], rel=1e-5)
