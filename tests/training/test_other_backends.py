"""`kd.training` on the other backends of Keras: a whole run, its resume, and its weights under TensorFlow."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_deepnets as kd

pytestmark = pytest.mark.slow

RUN = """
import os, sys
import keras, numpy as np
import keras_deepnets as kd

class Stop(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt

options = dict(epochs=2, batch_size=32, limit=128, verbose=0, precision=sys.argv[1], ema=0.9)
digits = kd.data.load("digits", "test").take(64)
whole = kd.training.train("resnet20", "digits", run_dir="whole", **options)
try:
    kd.training.train("resnet20", "digits", run_dir="parts", callbacks=[Stop()], **options)
except KeyboardInterrupt:
    pass
parts = kd.training.train("resnet20", "digits", run_dir="parts", **options)
np.testing.assert_array_equal(parts.history["loss"], whole.history["loss"])
for one, other in zip(parts.model.weights, whole.model.weights, strict=True):
    np.testing.assert_array_equal(np.array(one), np.array(other), one.path)
kd.save_weights(whole.model, "whole.safetensors")
top1 = kd.training.evaluate(whole.model, digits).top1
again = keras.saving.load_model("whole/model.keras")
kd.load_weights(again, "whole.safetensors")
assert kd.training.evaluate(again, digits).top1 == top1
images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3))
np.savez("answer.npz", images=images, logits=whole.model.predict(images.astype("float32"), verbose=0), top1=top1)
print(keras.backend.backend())
"""


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_run_resumes_bit_for_bit_and_moves_to_tensorflow(tmp_path, backend, precision):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", RUN, precision]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == backend
    answer = np.load(tmp_path / "answer.npz")
    model = keras.saving.load_model(tmp_path / "whole" / "model.keras")
    assert (model.name, model.labels) == ("resnet20", tuple("0123456789"))
    tolerance = 1e-4 if precision == "float32" else 0.05
    np.testing.assert_allclose(
        model.predict(answer["images"].astype("float32"), verbose=0), answer["logits"], atol=tolerance
    )
    if precision == "float32":
        assert kd.training.evaluate(model, kd.data.load("digits", "test").take(64)).top1 == answer["top1"]
