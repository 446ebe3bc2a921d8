"""Runs of a small detector on a small folder: files, metrics, resuming, freezing, errors."""

import io
import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from tensorflow.python.framework import config

import keras_deepnets as kd
from keras_deepnets import InputError, reports
from keras_deepnets.detection.training import validating
from keras_deepnets.training import read_metrics
from tests.detection.training.common import CLASSES, tiny, voc_folder
from tests.pages import Text

pytestmark = pytest.mark.integration

SETTINGS = {
    "batch_size": 2,
    "validate_every": 2,
    "freeze": None,
    "regions": 16,
    "precision": "float32",
    "learning_rate": 1e-3,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return voc_folder(tmp_path_factory.mktemp("voc") / "shapes")


@pytest.fixture(autouse=True)
def exact():
    """Every operation gives the same bits each time."""
    config.enable_op_determinism()
    yield
    config.disable_op_determinism()


def new_detector(**options):
    keras.utils.set_random_seed(1)
    return tiny(**options)


def train(folder, run_dir, epochs, **more):
    return kd.detection.train(new_detector(), folder, "fast", run_dir, epochs=epochs, verbose=0, **(SETTINGS | more))


class Terminate(keras.callbacks.Callback):
    """Send SIGTERM to this process in the first step of the second epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 0):
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """A run of two epochs."""
    config.enable_op_determinism()
    return train(folder, tmp_path_factory.mktemp("runs") / "whole", 2)


def test_the_files_of_a_run(whole):
    names = {entry.name for entry in whole.path.iterdir()}
    pictures = {"curves.png", "inputs.png", "detections.png", "examples.png", "precision_recall.png"}
    assert pictures | {"config.json", "metrics.csv", "model.keras", "evaluation.json", "tensorboard"} <= names
    rows = read_metrics(whole.path / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    for row in rows:
        parts = [row[name] for name in ("objectness", "rpn_box", "classifier", "box")]
        assert row["loss"] == pytest.approx(sum(parts), rel=1e-5)
    assert "val_ap50" not in rows[0] and 0 <= rows[1]["val_ap50"] <= 1
    assert whole.evaluation.ap50 == pytest.approx(rows[1]["val_ap50"])
    config = json.loads((whole.path / "config.json").read_text())
    assert config["data"]["labels"] == list(CLASSES) and config["resolved"]["steps_per_epoch"] == 3


def test_the_report(whole, tmp_path):
    """One page with the numbers, curves and pictures of the run, which loads nothing else."""
    path = reports.report(whole.path, tmp_path / "report.html")
    page = Text(path.read_text(encoding="utf-8"))
    found = whole.evaluation
    for text in (
        f"{100 * found.ap50:.1f} %",
        "2 images with",
        "split train: 6 images",
        "detection, on this machine",
        *(f"{name}\n" for name in CLASSES[1:]),
    ):
        assert text in page.text, text
    assert page.loads == [] and len(page.pictures) == 4  # curves, precision and recall, examples, detections
    for _, data in page.pictures:
        with Image.open(io.BytesIO(data)) as picture:
            picture.load()


def test_a_run_resumes_bit_for_bit(folder, whole, tmp_path):
    with pytest.raises(kd.training.Preempted, match="SIGTERM ended the run after epoch 2, step 1") as ended:
        train(folder, tmp_path / "parts", 2, callbacks=[Terminate()])
    assert ended.value.code == 143
    assert (tmp_path / "parts" / "checkpoints" / "epoch-00001-step-000001").is_dir()
    parts = train(folder, tmp_path / "parts", 2)
    for ours, theirs in zip(whole.model.get_weights(), parts.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert parts.history["loss"] == whole.history["loss"]
    again = train(folder, whole.path, 2)  # a finished run returns
    assert again.metrics == whole.metrics
    with pytest.raises(InputError, match="learning_rate"):
        train(folder, whole.path, 2, learning_rate=0.5)


@pytest.mark.slow
def test_the_model_loads_in_another_process(folder, whole):
    image = str(folder / "JPEGImages" / "image0.jpg")
    script = (
        "import sys, json, keras, keras_deepnets as kd\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "found = kd.detection.detect(model, sys.argv[2])[0]\n"
        "print(json.dumps([model.labels, found['boxes'].tolist(), found['scores'].tolist()]))\n"
    )
    command = [sys.executable, "-c", script, str(whole.path / "model.keras"), image]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    labels, boxes, scores = json.loads(done.stdout.splitlines()[-1])
    here = kd.detection.detect(whole.model, image)[0]
    assert tuple(labels) == CLASSES
    np.testing.assert_allclose(np.reshape(boxes, (-1, 4)), here["boxes"], atol=1e-3)
    np.testing.assert_allclose(scores, here["scores"], atol=1e-5)


@pytest.mark.slow
def test_frozen_layers_stay(folder, tmp_path):
    model = new_detector()
    before = {weight.path: np.array(weight) for weight in model.weights}
    kd.detection.train(
        model,
        folder,
        "fast",
        tmp_path / "run",
        epochs=1,
        verbose=0,
        **(SETTINGS | {"freeze": "P2", "validation": False}),
    )
    after = {weight.path: np.array(weight) for weight in model.weights}
    frozen = [path for path in before if "conv1_" in path or "conv2_block1" in path]
    assert len(frozen) >= 10
    for path in frozen:
        np.testing.assert_array_equal(before[path], after[path], path)
    changed = [path for path in before if not np.array_equal(before[path], after[path])]
    assert any("conv3_block1" in path for path in changed) and any("predictions_boxes" in path for path in changed)
    assert all(layer.trainable for layer in model.get_layer("body").layers)  # restored


@pytest.mark.slow
def test_a_batch_in_parts_trains_as_the_whole_batch(folder, tmp_path):
    options = SETTINGS | {"batch_size": 4, "validation": False, "verbose": 0, "epochs": 4}
    whole, parts = (
        kd.detection.train(
            new_detector(frozen_batch_norm=True), folder, "fast", tmp_path / str(count), accumulate=count, **options
        )
        for count in (1, 4)
    )
    for name in ("loss", "objectness", "rpn_box", "classifier", "box"):
        assert parts.history[name] == pytest.approx(whole.history[name], rel=1e-4)
    assert parts.history["loss"][-1] < 0.97 * parts.history["loss"][0]
    for one, other in zip(parts.model.weights, whole.model.weights, strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), atol=1e-4, err_msg=one.path)


def test_the_last_validation_is_the_evaluation(folder, tmp_path, monkeypatch):
    """The images are searched once: the last epoch and the end of the run have the same weights."""
    searched = []
    search = validating.found_by_all
    monkeypatch.setattr(validating, "found_by_all", lambda *given: searched.append(1) or search(*given))
    run = train(folder, tmp_path / "run", 2, ema=0.5)
    assert len(searched) == 1
    again = kd.detection.evaluate(run.model, kd.detection.load(folder, "val"), coco=validating.has_coco())
    assert again.to_dict() == run.evaluation.to_dict()


@pytest.mark.slow
def test_average_of_the_weights_and_best_epoch(folder, tmp_path):
    run = train(folder, tmp_path / "run", 2, ema=0.5, validate_every=1, keep="best")
    values = run.history["val_ap50"]
    assert run.evaluation.ap50 == pytest.approx(max(values))


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_stays_finite(folder, tmp_path, policy):
    with_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = new_detector()
    finally:
        keras.config.set_dtype_policy(with_policy)
    run = kd.detection.train(
        model,
        folder,
        "fast",
        tmp_path / "run",
        epochs=1,
        validation=False,
        verbose=0,
        **(SETTINGS | {"precision": policy}),
    )
    assert np.isfinite(run.history["loss"]).all()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": "resnet18"}, "is a classifier"),
        ({"batch_size": 50}, "batch_size=50"),
        ({"freeze": "P9"}, "P9"),
        ({"early_stopping": 2, "validation": False}, "early_stopping"),
        ({"weights": "some.h5"}, "built already"),
        ({"model": "fasterrcnn"}, "needs a backbone"),
        ({"limit": 0}, "limit=0"),
        ({"accumulate": 3, "batch_size": 4}, "must be divisible by 3"),
    ],
)
def test_wrong_arguments_write_nothing(folder, tmp_path, given, words):
    model = given.pop("model", None) or new_detector()
    with pytest.raises(InputError, match=words):
        kd.detection.train(model, folder, "fast", tmp_path / "run", verbose=0, **(SETTINGS | given))
    assert not (tmp_path / "run").exists()


def test_other_classes_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match=r"4 classes with the background, but .* has 3"):
        kd.detection.train(new_detector(classes=4), folder, "fast", tmp_path / "run", verbose=0, **SETTINGS)
