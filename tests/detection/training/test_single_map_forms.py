"""The forms of the papers, on one feature map: small detectors learn eight images, and their exports find what they find."""

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.detection import export
from tests.detection.training.common import CLASSES, voc_folder

pytestmark = pytest.mark.slow

SETTINGS = {"batch_size": 2, "weight_decay": 0.0, "augmentation": None, "freeze": None, "regions": 32}
# The paper's recipe from random weights needs batch normalisation, which VGG lacks.
BY_FORM = {
    "c4": ("ren2015", {"learning_rate": 0.01, "steps": 240, "milestones": ("60 %", "85 %"), "warmup": "10 steps"}),
    "vgg": ("fast", {"learning_rate": 0.002, "steps": 240, "epochs": None}),
}


def network(form):
    if form == "c4":
        blocks = {"blocks": (1, 1, 1, 1), "filters": (16, 24, 32, 48)}
        return kd.ResNet(include_top=False, input_shape=(None, None, 3), **blocks)
    return kd.VGG(convolutions=(1,) * 5, filters=(16, 24, 32, 48, 48), hidden=(64, 64), input_shape=(None, None, 3))


@pytest.mark.parametrize("form", BY_FORM)
def test_trained_evaluated_exported(form, tmp_path):
    data = kd.detection.load(voc_folder(tmp_path / "shapes", side=96), "trainval")
    keras.utils.set_random_seed(1)
    numbers = {"candidates": 60, "proposals": 30, "training_candidates": 60, "training_proposals": 60}
    sizes = {"min_size": 96, "max_size": 96, "anchor_sizes": (16, 32, 48)}
    model = kd.detection.FasterRCNN(network(form), 3, form=form, frozen_batch_norm=False, **numbers, **sizes)
    recipe, changes = BY_FORM[form]
    run = kd.detection.train(
        model,
        data,
        recipe,
        tmp_path / "run",
        validation=data,
        precision="float32",
        validate_every=60,
        verbose=0,
        **(SETTINGS | changes),
    )
    assert run.evaluation.ap50 > 0.7

    images = [data.image(at) for at in range(4)]
    expected = kd.detection.detect(run.model, images)
    folder = export.saved_model(run.model, tmp_path / "served", labels=CLASSES)
    file = export.tflite(run.model, tmp_path / "detector.tflite", image_size=96)
    for artifact in (folder, file):
        for found, wanted in zip(export.predict(artifact, images), expected, strict=True):
            sure = wanted["scores"] > 0.1
            assert sure.any()
            np.testing.assert_allclose(found["boxes"][: sure.sum()], wanted["boxes"][sure], atol=0.05)
            np.testing.assert_allclose(found["scores"][: sure.sum()], wanted["scores"][sure], atol=1e-3)
            np.testing.assert_array_equal(found["labels"][: sure.sum()], wanted["labels"][sure])
