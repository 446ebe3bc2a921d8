"""Several processes or devices under JAX train as one does: real processes on this machine."""

import importlib.util

import numpy as np
import pytest

from tests.distribution.common import check_kill_and_resume, check_signal_and_resume, finished, log, started
from tests.distribution.test_workers import METRICS, SHORT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed"),
]

PLAIN = {"model": "highwaymlp10", "data": "digits", "limit": 96, "validation": 25, "epochs": 2, "batch_size": 24}
PLAIN |= {"precision": "float64", "learning_rate": 0.05, "weight_decay": 1e-4}


@pytest.fixture(autouse=True)
def on_jax(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")


def assert_equal_training(workers, alone, steps, tolerance):
    for worker in workers:
        np.testing.assert_allclose(worker["losses"][:steps], alone["losses"][:steps], rtol=tolerance)
        assert worker["weights"] == workers[0]["weights"]
        for name in METRICS:
            assert worker["history"][name] == workers[0]["history"][name]


def test_two_workers_train_as_one_process(tmp_path, monkeypatch):
    """13 and 12 validation images."""
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    (alone,) = finished(1, tmp_path / "one", PLAIN)
    workers = finished(2, tmp_path / "two", PLAIN)
    assert len(alone["losses"]) == 8
    assert_equal_training(workers, alone, 8, 1e-9)
    for name in METRICS:
        np.testing.assert_allclose(workers[0]["history"][name], alone["history"][name], rtol=1e-7, err_msg=name)
    for worker in workers:
        ours, theirs = worker["evaluation"], alone["evaluation"]
        assert ours["confusion"] == theirs["confusion"] and ours["size"] == 25
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-7)


@pytest.mark.parametrize("count", [2, 3])
def test_batch_normalisation_uses_the_whole_batch(tmp_path, monkeypatch, count):
    """Keras computes it in float32. At a larger rate, rounding errors grow fivefold with each step."""
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    options = SHORT | {"precision": "float64", "learning_rate": 1e-4}
    (alone,) = finished(1, tmp_path / "one", options)
    workers = finished(count, tmp_path / "several", options)
    assert len(alone["losses"]) == 20
    assert_equal_training(workers, alone, 10, 1e-5)
    assert_equal_training(workers, alone, 20, 1e-4)
    for name in METRICS:
        np.testing.assert_allclose(workers[0]["history"][name], alone["history"][name], rtol=1e-3, err_msg=name)


def test_two_devices_of_one_process_train_as_one(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_ENABLE_X64", "1")
    (alone,) = finished(1, tmp_path / "one", PLAIN)
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    (mirrored,) = finished(1, tmp_path / "two", PLAIN | {"distribute": "mirrored"})
    assert_equal_training([mirrored], alone, 8, 1e-9)
    assert mirrored["evaluation"]["confusion"] == alone["evaluation"]["confusion"]


FEATURES = {
    "mixed precision": {"precision": "mixed_bfloat16"},
    "loss scaling": {"precision": "mixed_float16"},
    "average": {"ema": 0.9, "keep": "best"},
    "stochastic depth": {"model_options": {"stochastic_depth": 0.5}},
    "accumulation": {"accumulate": 4},
    "groups": {"model": "resnext", "model_options": {"blocks": [1, 1], "filters": [64, 128], "groups": 4}},
}


@pytest.mark.parametrize("feature", FEATURES)
def test_features_work_with_two_workers(tmp_path, feature):
    first, second = finished(2, tmp_path, SHORT | {"epochs": 1} | FEATURES[feature])
    assert_equal_training([second], first, 10, 0)
    assert np.isfinite(first["losses"]).all() and len(first["losses"]) == 10


def test_fine_tuning_with_two_workers(tmp_path):
    """Both phases: the classifier on features, then all layers."""
    finished(1, tmp_path / "before", SHORT | {"epochs": 1})
    options = SHORT | {"recipe": "fine_tune", "weights": str(tmp_path / "before" / "run"), "limit": 192}
    options |= {"precision": None, "epochs": 1, "head_epochs": 2}
    first, second = finished(2, tmp_path / "after", options)
    assert_equal_training([second], first, len(first["losses"]), 0)
    assert first["history"]["phase"] == [1, 1, 2]


def test_a_killed_worker_stops_the_others_and_the_run_resumes(tmp_path):
    check_kill_and_resume(tmp_path, SHORT)


def test_a_signal_to_one_worker_stops_all_and_the_run_resumes_with_another_number(tmp_path):
    check_signal_and_resume(tmp_path, SHORT)


def test_workers_of_other_runs_are_refused(tmp_path):
    processes = started(2, tmp_path, SHORT, {1: {"learning_rate": 0.7}})
    assert [process.wait(120) for process in processes] == [1, 1]
    for index in range(2):
        assert "Worker 1 (localhost:" in log(tmp_path, index) and "learning_rate" in log(tmp_path, index)
    assert not (tmp_path / "run").exists()


def test_detectors_are_refused(tmp_path):
    words = "detectors train on several devices under TensorFlow only"
    processes = started(2, tmp_path, {"task": "detection", "model": "fasterrcnn_resnet50_fpn", "data": "coco"})
    assert [process.wait(120) for process in processes] == [1, 1]
    assert words in log(tmp_path, 0) and words in log(tmp_path, 1)
    assert not (tmp_path / "run").exists()
