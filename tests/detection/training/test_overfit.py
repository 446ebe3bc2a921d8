"""A detector learns 16 photographs of COCO128 by heart. The folder is ``$KERAS_DEEPNETS_COCO128``, as Ultralytics publishes it."""

import os

import keras
import pytest

import keras_deepnets as kd

FOLDER = os.environ.get("KERAS_DEEPNETS_COCO128", "")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="KERAS_DEEPNETS_COCO128 does not name the folder of COCO128"),
]


def test_sixteen_photographs(tmp_path):
    """From random weights, at 256 pixels. All objects of the first 16 images with boxes, however small."""
    data = kd.detection.load(FOLDER, "train")
    some = data.subset([at for at, objects in enumerate(data.annotations) if len(objects.boxes)][:16])
    keras.utils.set_random_seed(0)
    model = kd.detection.FasterRCNN(
        kd.ResNet18(include_top=False, weights=None),
        len(data.classes),
        min_size=256,
        max_size=256,
        frozen_batch_norm=False,
        pyramid_channels=128,
        anchor_sizes=(16, 32, 64, 128, 256),
    )
    settings = {"batch_size": 4, "learning_rate": 1e-3, "weight_decay": 0.0, "augmentation": None, "freeze": None}
    run = kd.detection.train(
        model,
        some,
        "fast",
        tmp_path / "run",
        validation=some,
        epochs=70,
        validate_every=70,
        precision="float32",
        verbose=0,
        **settings,
    )
    assert run.evaluation.ap50 > 0.95
