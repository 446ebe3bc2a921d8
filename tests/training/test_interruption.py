"""Killed in an epoch and in the writing of a checkpoint, a run ends with the very weights of one that was left alone."""

import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from keras_deepnets.training import read_metrics
from tests.training.interrupted import CASES, MOMENTS

ROOT = Path(__file__).parents[2]


def go(folder, moment, case="plain"):
    return subprocess.run(
        [sys.executable, "-m", "tests.training.interrupted", str(folder), moment, case],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def arrays(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return {name: value for name, value in found.items() if not name.startswith("optimizer")}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_killed_twice(tmp_path, case):
    run = tmp_path / "run"
    assert go(tmp_path, "in an epoch", case).returncode == -9
    assert len(read_metrics(run / "metrics.csv")) == 1
    assert go(tmp_path, "in a checkpoint", case).returncode == -9
    # The metrics are ahead of the checkpoint that was being written; a resume takes them back to it.
    assert len(read_metrics(run / "metrics.csv")) == 3
    assert sorted(path.name for path in run.glob("checkpoints/epoch*")) == ["epoch-00001", "epoch-00002"]
    last = go(tmp_path, "no more", case)
    assert last.returncode == 0, last.stderr
    assert "after epoch 2 of 5" in last.stdout
    assert_the_same(tmp_path)


def assert_the_same(tmp_path):
    """The run that was resumed and the one that was left alone: weights to the bit, metrics, no leftovers."""
    resumed, whole = arrays(tmp_path / "resumed.weights.h5"), arrays(tmp_path / "whole.weights.h5")
    assert len(whole) >= 8 and resumed.keys() == whole.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
    ours, theirs = (read_metrics(tmp_path / name / "metrics.csv") for name in ("run", "whole"))
    for row, other in zip(ours, theirs, strict=True):
        timing = ("seconds", "images_per_second")
        assert {name: row[name] for name in row if name not in timing} == {
            name: other[name] for name in other if name not in timing
        }
    leftovers = [path.name for path in (tmp_path / "run").rglob(".partial*")]
    assert leftovers == []


@pytest.mark.slow
def test_killed_around_files(tmp_path):
    """Before and after each of the renames that an epoch's end is made of, and halfway through a removal."""
    run = tmp_path / "run"

    def state():
        metrics, found = run / "metrics.csv", {}
        found["metrics"] = len(read_metrics(metrics)) if metrics.exists() else 0
        found["checkpoints"] = [int(path.name[-5:]) for path in sorted(run.glob("checkpoints/epoch-*"))]
        return found | {"model": (run / "model.keras").exists()}

    expected = {
        "before the first metrics": {"metrics": 0, "checkpoints": [0]},
        "after metrics": {"metrics": 1, "checkpoints": [0]},
        "before the rename": {"metrics": 1, "checkpoints": [0]},
        "after the rename": {"metrics": 1, "checkpoints": [0, 1]},
        "removing": {"metrics": 2, "checkpoints": [0, 1, 2]},
        "before the model": {"metrics": 5, "checkpoints": [4, 5]},
    }
    assert list(expected) == list(MOMENTS)
    for moment, found in expected.items():
        done = go(tmp_path, moment)
        assert done.returncode == -9, (moment, done.stderr)
        assert state() == found | {"model": False}, moment
        if moment == "removing":
            assert len(list((run / "checkpoints" / "epoch-00000").iterdir())) == 1
    last = go(tmp_path, "no more")
    assert last.returncode == 0, last.stderr
    assert_the_same(tmp_path)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path):
    """From the first step of a process to some epochs after it, however long they take, in steps, checkpoints and epochs' ends alike."""
    rng = np.random.default_rng(0)
    begun = []
    for _ in range(20):
        command = [sys.executable, "-u", "-m", "tests.training.interrupted", str(tmp_path), "at any moment"]
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
        ) as process:
            left = int(rng.integers(1, 5))  # lines: that training begins, then one an epoch
            for line in process.stdout:
                left -= line.startswith(("begun", "epoch"))
                if left == 0:
                    time.sleep(rng.uniform(0, 0.2))
                    process.kill()
                    break
        metrics = tmp_path / "run" / "metrics.csv"
        begun.append(len(read_metrics(metrics)) if metrics.exists() else 0)
        assert process.returncode in (-9, 0)
    assert len(set(begun)) > 5, f"the epochs that were reached: {begun}"
    last = go(tmp_path, "at no moment")
    assert last.returncode == 0, last.stderr
    assert_the_same(tmp_path)
