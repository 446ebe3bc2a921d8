"""An export with grouped convolutions runs with and without oneDNN, whatever the machine that wrote it has."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import export

RUN = """
import sys
import numpy as np
import tensorflow as tf

given = np.load(sys.argv[2])
served = tf.saved_model.load(sys.argv[1]).signatures["serving_images"]
found = served(images=tf.constant(given["images"]))["probabilities"]
np.testing.assert_allclose(found, given["expected"], atol=1e-5)
"""


@pytest.mark.integration
@pytest.mark.parametrize("fold", [True, False])
def test_grouped_convolutions_are_served_with_and_without_onednn(tmp_path, fold):
    keras.utils.set_random_seed(0)
    model = kd.ResNeXt(
        blocks=(1, 1, 1, 1), filters=(16, 16, 32, 32), groups=4, base_width=4, classes=5, input_shape=(32, 32, 3)
    )
    path = export.saved_model(model, tmp_path / "served", fold=fold)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    expected = export.predict(path, images)["probabilities"]
    np.savez(tmp_path / "given.npz", images=images, expected=expected)
    for value in ("0", "1"):
        environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": value}
        arguments = [sys.executable, "-c", RUN, str(path), str(tmp_path / "given.npz")]
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
