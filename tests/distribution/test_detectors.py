"""Several processes and devices train a detector as one process does."""

import signal
import time

import numpy as np
import pytest

from keras_deepnets.training import read_metrics
from tests.detection.training.common import voc_folder
from tests.distribution.common import finished, log, record, started

pytestmark = pytest.mark.slow

SHORT = {
    "task": "detection",
    "model": "fasterrcnn",
    "model_options": {
        "backbone": "resnet18",
        "min_size": 64,
        "max_size": 64,
        "pyramid_channels": 16,
        "anchor_sizes": (12, 16, 24, 32, 48),
        "candidates": 60,
        "proposals": 30,
        "training_candidates": 60,
        "training_proposals": 60,
        "frozen_batch_norm": True,  # at random weights, batch normalisation makes rounding errors grow a thousandfold per step
    },
    "precision": "float32",
    "optimizer": "sgd",
    "momentum": 0.9,
    "learning_rate": 0.003,
    "schedule": "constant",
    "weight_decay": 1e-4,
    "augmentation": "flip",
    "clip_norm": 2.0,
    "regions": 128,  # all proposals: the sampling of proposals with equal scores would jump at rounding errors
    "epochs": 3,
    "batch_size": 4,
    "validate_every": 1,
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The data, and what one process records."""
    folder = tmp_path_factory.mktemp("detectors")
    options = SHORT | {"data": str(voc_folder(folder / "shapes", count=12))}
    return options, finished(1, folder / "one", options)[0]


LOSSES = ("loss", "objectness", "rpn_box", "classifier", "box")


def test_two_workers_train_as_one_process(alone, tmp_path):
    options, one = alone
    first, second = finished(2, tmp_path, options)
    losses = np.mean([first["losses"], second["losses"]], axis=0)
    assert first["weights"] == second["weights"] and len(losses) == 6
    np.testing.assert_allclose(losses, one["losses"], rtol=3e-5)
    for name in LOSSES:
        np.testing.assert_allclose(first["history"][name], one["history"][name], rtol=3e-5, atol=1e-6, err_msg=name)
    assert first["history"] | {"seconds": 0, "images_per_second": 0} == second["history"] | {
        "seconds": 0,
        "images_per_second": 0,
    }
    assert first["evaluation"] == second["evaluation"]
    assert first["evaluation"]["images"] == 3  # two on one worker, one on the other
    assert first["history"]["val_ap50"][-1] == first["evaluation"]["ap50"]


def test_batches_in_parts(alone, tmp_path):
    """Each part counts its own anchors and regions, so the losses differ a little from those of the whole batch."""
    options, one = alone
    first, second = finished(2, tmp_path, options | {"accumulate": 2})
    assert first["weights"] == second["weights"]
    np.testing.assert_allclose(np.mean([first["losses"], second["losses"]], axis=0), one["losses"], rtol=0.02)


def test_two_devices_train_as_one(alone, tmp_path):
    options, one = alone
    (two,) = finished(1, tmp_path, options | {"distribute": "mirrored", "devices": 2})
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=3e-5)
    for name in LOSSES:
        np.testing.assert_allclose(two["history"][name], one["history"][name], rtol=3e-5, atol=1e-6, err_msg=name)


def test_synchronised_batch_normalisation(alone, tmp_path):
    """Only two steps: at random weights, it makes rounding errors grow a thousandfold per step."""
    options = alone[0] | {"batch_norm": "synchronized", "epochs": 1}
    options["model_options"] = options["model_options"] | {"frozen_batch_norm": False}
    (one,) = finished(1, tmp_path / "one", options)
    first, second = finished(2, tmp_path / "two", options)
    assert first["weights"] == second["weights"] and len(one["losses"]) == 2
    np.testing.assert_allclose(np.mean([first["losses"], second["losses"]], axis=0), one["losses"], rtol=1e-4)


def test_a_signal_to_one_worker_stops_both_and_the_run_resumes(alone, tmp_path):
    options = alone[0] | {"epochs": 6}
    processes = started(2, tmp_path, options, pause=3)
    end = time.monotonic() + 180
    while not all(record(tmp_path, index).with_suffix(".json.paused").exists() for index in range(2)):
        assert time.monotonic() < end and all(process.poll() is None for process in processes), log(tmp_path, 0)
        time.sleep(0.1)
    processes[1].send_signal(signal.SIGTERM)
    for index in range(2):
        record(tmp_path, index).with_suffix(".json.go").touch()
    assert [process.wait(100) for process in processes] == [143, 143]
    assert "ended the run after epoch" in log(tmp_path, 0)
    first, second = finished(2, tmp_path, options)
    assert "Resuming" in log(tmp_path, 0) and first["weights"] == second["weights"]
    rows = read_metrics(tmp_path / "run" / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6] and rows[-1]["step"] == 12


def test_workers_of_other_runs_are_refused(alone, tmp_path):
    processes = started(2, tmp_path, alone[0], {1: {"learning_rate": 0.7}})
    assert [process.wait(120) for process in processes] == [1, 1]
    for index in range(2):
        assert "Worker 1 (localhost:" in log(tmp_path, index) and "learning_rate" in log(tmp_path, index)
    assert not (tmp_path / "run").exists()
