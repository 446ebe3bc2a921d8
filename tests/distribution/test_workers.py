"""Several processes train as one process does: real processes on this machine."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.distribution.common import (
    check_kill_and_resume,
    check_signal_and_resume,
    finished,
    free_ports,
    log,
    started,
)

pytestmark = pytest.mark.integration

SHORT = {
    "model": "resnet20",
    "data": "digits",
    "limit": 480,
    "validation": 0.1,
    "epochs": 2,
    "batch_size": 48,
    "precision": "float32",
}


METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


def lines(folder, count):
    return [log(folder, index) for index in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_workers_train_as_one_process(tmp_path, count):
    """float64, because rounding errors grow a thousandfold within a few steps."""
    options = SHORT | {"precision": "float64", "batch_norm": "synchronized", "learning_rate": 0.02, "momentum": 0.9}
    (alone,) = finished(1, tmp_path / "one", options)
    workers = finished(count, tmp_path / "several", options)
    losses = np.mean([worker["losses"] for worker in workers], axis=0)
    assert len(losses) == 20
    np.testing.assert_allclose(losses, alone["losses"], rtol=1e-5)
    assert len({worker["weights"] for worker in workers}) == 1
    for worker in workers:
        for name in METRICS:
            np.testing.assert_allclose(worker["history"][name], alone["history"][name], rtol=1e-4, err_msg=name)


def test_two_workers_without_normalisation_train_as_one_process(tmp_path):
    options = {"model": "highwaymlp10", "data": "digits", "limit": 96, "validation": 25, "epochs": 2, "batch_size": 24}
    options |= {"precision": "float64", "learning_rate": 0.05, "weight_decay": 1e-4}
    (alone,) = finished(1, tmp_path / "one", options)
    first, second = finished(2, tmp_path / "two", options)
    assert first["weights"] == second["weights"] and len(alone["losses"]) == 8
    losses = np.mean([first["losses"], second["losses"]], axis=0)
    np.testing.assert_allclose(losses, alone["losses"], rtol=1e-9)
    for name in METRICS:  # 13 and 12 validation images
        np.testing.assert_allclose(first["history"][name], alone["history"][name], rtol=1e-9, err_msg=name)
        assert first["history"][name] == second["history"][name]
    assert first["evaluation"] == second["evaluation"]
    ours, theirs = (dict(each["evaluation"], images_per_second=0) for each in (first, alone))
    assert ours.pop("loss") == pytest.approx(theirs.pop("loss"), rel=1e-9)
    assert ours["size"] == 25 and len(ours["worst"]) > 5
    for mine, other in zip(ours.pop("worst"), theirs.pop("worst"), strict=True):
        numbers = [[each.pop(name) for name in ("probability", "loss")] for each in (mine, other)]
        assert mine == other and numbers[0] == pytest.approx(numbers[1], rel=1e-9)
    assert ours == theirs


@pytest.mark.slow
def test_a_slow_worker_is_named(tmp_path):
    finished(2, tmp_path, SHORT | {"epochs": 1, "limit": 240}, {1: {"delay": 0.2}})
    (line,) = [line for line in log(tmp_path, 0).splitlines() if "is slow" in line]
    assert line.startswith("Worker 1 (localhost:") and "s per step without the exchange" in line
    assert "is slow" not in log(tmp_path, 1)


@pytest.mark.slow
def test_workers_of_other_runs_are_refused(tmp_path):
    (tmp_path / "a").mkdir()
    processes = started(2, tmp_path / "a", SHORT, {1: {"learning_rate": 0.7}})
    assert [process.wait(120) for process in processes] == [1, 1]
    for text in lines(tmp_path / "a", 2):
        assert "Worker 1 (localhost:" in text and "learning_rate" in text and "0.7" in text
    assert not (tmp_path / "a" / "run").exists()


@pytest.mark.slow
def test_a_killed_worker_stops_the_others_and_the_run_resumes(tmp_path):
    check_kill_and_resume(tmp_path, SHORT)


@pytest.mark.slow
def test_a_signal_to_one_worker_stops_all_and_the_run_resumes_with_another_number(tmp_path):
    check_signal_and_resume(tmp_path, SHORT)


@pytest.mark.slow
def test_keras_still_cannot_fit_under_the_strategy(tmp_path):
    """If this fails, Keras has repaired `fit` under MultiWorkerMirroredStrategy; see `distribution.workers`."""
    ports = free_ports(2)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STOCK],
            env=os.environ
            | {
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": {"worker": [f"localhost:{port}" for port in ports]},
                        "task": {"type": "worker", "index": index},
                    }
                )
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert all(process.returncode == 1 for process in processes), outputs
    assert all("ValueError: Attempt to convert a value (PerReplica" in output for output in outputs), outputs


STOCK = """
import numpy as np, tensorflow as tf
strategy = tf.distribute.MultiWorkerMirroredStrategy()
import keras
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
data = tf.data.Dataset.from_tensor_slices((np.ones((32, 4), "float32"), np.ones((32, 2), "float32"))).batch(8)
model.fit(data, epochs=1, verbose=0)
"""


FEATURES = {
    "mixed precision": {"precision": "mixed_bfloat16"},
    "loss scaling": {"precision": "mixed_float16"},
    "average": {"ema": 0.9, "keep": "best"},
    "stochastic depth": {"model_options": {"stochastic_depth": 0.5}, "batch_norm": "synchronized"},
    "recomputation": {
        "model": "densenet",
        "model_options": {"blocks": [2, 2], "growth_rate": 4, "memory_efficient": True},
    },
    "accumulation": {"accumulate": 4},
    "groups": {"model": "resnext", "model_options": {"blocks": [1, 1], "filters": [64, 128], "groups": 4}},
}


@pytest.mark.slow
@pytest.mark.parametrize("feature", FEATURES)
def test_features_work_with_two_workers(tmp_path, feature):
    first, second = finished(2, tmp_path, SHORT | {"epochs": 1} | FEATURES[feature])
    assert first["weights"] == second["weights"]
    assert {name: first["history"][name] for name in METRICS} == {name: second["history"][name] for name in METRICS}
    assert np.isfinite(first["losses"]).all() and len(first["losses"]) == 10


@pytest.mark.slow
def test_fine_tuning_with_two_workers(tmp_path):
    """Both phases: the classifier on features, then all layers."""
    finished(1, tmp_path / "before", SHORT | {"epochs": 1})
    options = SHORT | {
        "recipe": "fine_tune",
        "weights": str(tmp_path / "before" / "run"),
        "limit": 192,
        "precision": None,
    }
    first, second = finished(2, tmp_path / "after", options | {"epochs": 1, "head_epochs": 2})
    assert first["weights"] == second["weights"] and first["history"]["phase"] == [1, 1, 2]
    assert {name: first["history"][name] for name in METRICS} == {name: second["history"][name] for name in METRICS}


@pytest.mark.slow
def test_two_devices_of_one_process_train_as_one(tmp_path):
    options = SHORT | {"precision": "float64", "batch_norm": "synchronized", "learning_rate": 0.02}
    (alone,) = finished(1, tmp_path / "one", options)
    (mirrored,) = finished(1, tmp_path / "two", options | {"distribute": "mirrored", "devices": 2})
    np.testing.assert_allclose(mirrored["losses"], alone["losses"], rtol=1e-5)
    for name in METRICS:
        np.testing.assert_allclose(mirrored["history"][name], alone["history"][name], rtol=1e-4, err_msg=name)
