"""Several processes and devices train a detector as one process does."""

import numpy as np
import pytest

from tests.detection.training.common import voc_folder
from tests.distribution.common import finished

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
        np.testing.assert_allclose(first["history"][name], one["history"][name], rtol=3e-5, err_msg=name)
    assert first["history"] | {"seconds": 0, "images_per_second": 0} == second["history"] | {
        "seconds": 0,
        "images_per_second": 0,
    }
    assert first["evaluation"] == second["evaluation"]
    assert first["evaluation"]["images"] == 3  # two on one worker, one on the other
    assert first["history"]["val_ap50"][-1] == first["evaluation"]["ap50"]


def test_two_devices_train_as_one(alone, tmp_path):
    options, one = alone
    (two,) = finished(1, tmp_path, options | {"distribute": "mirrored", "devices": 2})
    np.testing.assert_allclose(two["losses"], one["losses"], rtol=3e-5)
    for name in LOSSES:
        np.testing.assert_allclose(two["history"][name], one["history"][name], rtol=3e-5, err_msg=name)


def test_synchronised_batch_normalisation(alone, tmp_path):
    """Only two steps: at random weights, it makes rounding errors grow a thousandfold per step."""
    options = alone[0] | {"batch_norm": "synchronized", "epochs": 1}
    options["model_options"] = options["model_options"] | {"frozen_batch_norm": False}
    (one,) = finished(1, tmp_path / "one", options)
    first, second = finished(2, tmp_path / "two", options)
    assert first["weights"] == second["weights"] and len(one["losses"]) == 2
    np.testing.assert_allclose(np.mean([first["losses"], second["losses"]], axis=0), one["losses"], rtol=1e-4)
