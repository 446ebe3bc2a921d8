"""Export where Keras runs on another backend: a process with TensorFlow does it."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import export
from keras_deepnets.errors import InputError

pytestmark = pytest.mark.integration

UNDER = """
import sys
from pathlib import Path
import keras, numpy as np
import keras_deepnets as kd
images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), "uint8")
model = kd.ResNet(depth=8, stem="cifar", input_shape=(16, 16, 3), classes=3, include_preprocessing=True)
model.labels = ("a", "b", "c")
expected = model.predict(images.astype("float32"), verbose=0)
np.save("expected.npy", expected)
print(keras.backend.backend(), kd.export.saved_model(model, "served"), kd.export.tflite(model, "file.tflite"))
try:
    kd.export.tflite(model, "file.tflite", quantize="int3")
except kd.InputError as error:
    print(error)
"""


@pytest.fixture
def other(monkeypatch):
    """Keras that says that it runs on another backend, here only."""
    monkeypatch.setattr(keras.backend, "backend", lambda: "other")


def network():
    model = kd.ResNet(depth=8, stem="cifar", input_shape=(16, 16, 3), classes=3, include_preprocessing=True)
    model.labels = ("left", "right", "middle")
    return model


def test_files_are_those_of_this_process(tmp_path, rng, monkeypatch):
    model, images = network(), rng.integers(0, 256, (8, 16, 16, 3), "uint8")
    options = {"quantize": "int8", "calibration": images}
    here = export.tflite(model, tmp_path / "here.tflite", **options)
    monkeypatch.setattr(keras.backend, "backend", lambda: "other")
    there = export.tflite(model, tmp_path / "there.tflite", **options)
    monkeypatch.undo()
    cards = [json.loads((tmp_path / f"{path.name}.json").read_text()) for path in (here, there)]
    assert cards[0]["labels"] == cards[1]["labels"] == ["left", "right", "middle"]
    assert cards[0]["scaling"] == cards[1]["scaling"] and cards[1]["quantize"] == "int8"
    answers = [export.predict(path, images)["probabilities"] for path in (here, there)]
    np.testing.assert_array_equal(*answers)


def test_what_is_set_on_a_keras_model_goes_along(tmp_path, other):
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2, "softmax")])
    model.labels, model.scaling = ("no", "yes"), kd.Scaling((100.0,) * 3, (50.0,) * 3)
    card = json.loads((export.saved_model(model, tmp_path) / "model_card.json").read_text())
    assert card["labels"] == ["no", "yes"] and card["scaling"]["mean"] == [100.0] * 3


def test_a_detector(tmp_path, other):
    from tests.detection.training.common import tiny

    assert (kd.export.saved_model(tiny(), tmp_path) / "saved_model.pb").is_file()


def test_errors_are_those_of_this_process(tmp_path, other):
    with pytest.raises(InputError, match="quantize='int3'"):
        export.tflite(network(), tmp_path / "file.tflite", quantize="int3")
    with pytest.raises(InputError, match=r"cannot go there .*give paths or arrays"):
        export.tflite(network(), tmp_path / "file.tflite", quantize="int8", calibration=(image for image in ()))
    with pytest.raises(InputError, match=r"export takes a keras\.Model; it was given a str"):
        export.tflite("model", tmp_path / "file.tflite")
    assert not list(tmp_path.iterdir())


def test_a_process_that_dies_is_an_error(tmp_path, other, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended with status 1"):
        export.saved_model(network(), tmp_path / "served")


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_under_another_backend(tmp_path, backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    environment = os.environ | {
        "KERAS_BACKEND": backend,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", UNDER], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = done.stdout.splitlines()
    assert first == f"{backend} {Path('served', '1')} file.tflite" and "quantize='int3'" in second
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), "uint8")
    for artifact in ("served", "file.tflite"):
        answer = export.predict(tmp_path / artifact, images)
        np.testing.assert_allclose(answer["probabilities"], np.load(tmp_path / "expected.npy"), atol=1e-5)
        assert set(answer["labels"]) <= {"a", "b", "c"}
