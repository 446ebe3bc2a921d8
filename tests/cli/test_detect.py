"""The commands `train`, `evaluate` and `predict` for detectors, with a tiny one."""

import json

import keras
import numpy as np
import pytest
from PIL import Image

import keras_deepnets as kd
from tests.detection.training.common import CLASSES, tiny, voc_folder

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    return voc_folder(tmp_path_factory.mktemp("voc") / "shapes", count=4)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """A ``.keras`` file of a detector with random weights that finds something in each image."""
    keras.utils.set_random_seed(0)
    model = tiny(score_threshold=0.0, detections=5)
    model.labels = CLASSES
    path = tmp_path_factory.mktemp("detector") / "tiny.keras"
    model.save(path)
    return path


def test_evaluate_prints_each_class_and_draws(cli, detector, shapes, tmp_path):
    curves, examples = tmp_path / "curves.png", tmp_path / "examples.png"
    done = cli("evaluate", detector, shapes, "--split", "train", "--curves", curves, "--errors", examples)
    assert done.status == 0, done.err
    assert "3 images" in done.out and "AP50" in done.out
    assert all(name in done.out for name in CLASSES[1:])
    assert Image.open(curves).size[0] > 300
    found = cli("evaluate", detector, shapes, "--split", "train", "--json").json
    data = kd.detection.load(shapes, "train")
    expected = kd.detection.evaluate(keras.saving.load_model(detector), data, coco=False)
    assert found["split"] == "train" and found["images"] == 3
    assert found["ap50"] == pytest.approx(expected.ap50) and found["voc07"] == pytest.approx(expected.voc07)


def test_predict_writes_boxes(cli, detector, shapes, tmp_path):
    image, broken = shapes / "JPEGImages" / "image0.jpg", tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    out = tmp_path / "pictures"
    done = cli("predict", detector, image, broken, "--out", out, "--score", "0")
    assert done.status == 1 and "error" in done.out and "1 of 2 images" in done.err
    written = json.loads((out / "detections.json").read_text())["images"]
    here = kd.detection.detect(keras.saving.load_model(detector), str(image))[0]
    assert len(written[0]["objects"]) == len(here["boxes"]) > 0
    np.testing.assert_allclose([item["box"] for item in written[0]["objects"]], here["boxes"], atol=0.06)
    assert written[0]["objects"][0]["label"] in CLASSES[1:]
    assert Image.open(out / "image0.png").size[0] >= 64 and not (out / "broken.png").exists()


def test_export_for_serving(cli, detector, tmp_path):
    found = cli("export", detector, tmp_path / "served", "--format", "savedmodel", "--batch-sizes", "1", "--json").json
    assert found["path"] == str(tmp_path / "served" / "1") and found["bytes"] > 1e6
    assert found["objects"] > 0 and found["same"] == found["objects"]


def test_list_and_info(cli):
    names = [row["name"] for row in cli("list", "--task", "detection", "--json").json]
    assert names == kd.list_models(task="detection")
    assert not set(names) & {row["name"] for row in cli("list", "--json").json}
    facts = cli("info", "fasterrcnn_resnet50_fpn", "--json").json
    assert (facts["parameters"], facts["classes"], facts["dataset"]) == (41_755_286, 91, "coco/2017")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "fasterrcnn_resnet50_fpn", "SHAPES", "--head-only"), "--head-only is for classifiers"),
        (("train", "fasterrcnn_resnet50_fpn", "SHAPES", "--set", "label_smoothing=0.1"), "no field 'label_smoothing'"),
        (("train", "fasterrcnn_resnet50_fpn", "SHAPES", "--recipe", "he2015_cifar"), "Unknown recipe"),
        (("train", "fasterrcnn_resnet50_fpn", "missing-folder"), "missing-folder"),
        (
            ("train", "fasterrcnn_resnet50_fpn", "SHAPES", "--precision", "float32", "--set", "precision=auto"),
            "precision=auto differ",
        ),
        (("train", "FasterRCNN", "SHAPES", "--set", "precision=float32"), "needs a backbone"),
        (("train", "FasterRCNN", "SHAPES"), "needs a backbone"),
        (("train", "fasterrcnn_resnet50_fpn", "SHAPES", "--option", "shortcut=B"), "no option 'shortcut'"),
        (("train", "resnet20", "digits", "--backbone-weights", "imagenet"), "is for detectors"),
        (("evaluate", "DETECTOR", "SHAPES", "--crops", "10"), "--crops is for classifiers"),
        (("evaluate", "DETECTOR", "SHAPES", "--split", "test"), "test"),
        (("export", "DETECTOR", "out.tflite", "--format", "tflite"), "--image-size"),
        (("export", "DETECTOR", "served", "--format", "savedmodel", "--top-k", "3"), "--top-k: for classifiers"),
        (
            ("export", "DETECTOR", "out.tflite", "--format", "tflite", "--quantize", "int8", "--image-size", "64"),
            "--quantize int8: boxes need more than 8 bits",
        ),
        (("predict", "DETECTOR", "IMAGE", "--csv", "out.csv"), "--csv is for classifiers"),
    ],
)
def test_bad_input_is_one_line(cli, shapes, detector, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    places = {"SHAPES": shapes, "DETECTOR": detector, "IMAGE": shapes / "JPEGImages" / "image0.jpg"}
    assert message in cli(*(places.get(word, word) for word in words)).error
    assert list(tmp_path.iterdir()) == []
