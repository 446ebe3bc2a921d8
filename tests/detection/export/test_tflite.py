"""TFLite files of detectors, run in the interpreter."""

import json

import numpy as np
import pytest

from keras_deepnets import detection, export
from keras_deepnets.detection import export as detector_export
from keras_deepnets.detection.export import builtin
from keras_deepnets.detection.suppression import plain_suppress
from keras_deepnets.errors import InputError
from tests.detection.export.conftest import LABELS, assert_same, at_fixed_size
from tests.export.conftest import operators

pytestmark = pytest.mark.integration


def test_it_finds_what_keras_finds(tflite_file, small, images):
    expected = at_fixed_size(small, images, 96, 160)
    assert min(len(row["scores"]) for row in expected) >= 3
    assert_same(detector_export.predict(tflite_file, images), expected, pixels=0.01, scores=1e-4)


def test_only_built_in_operators_with_suppression_inside(tflite_file):
    found = operators(tflite_file)  # no custom operators
    # One suppression for each of the levels and classes.
    assert found.count("NON_MAX_SUPPRESSION_V4") == 5 + 3
    assert not {"CUSTOM", "WHILE"} & set(found)


def test_the_card(tflite_file):
    card = json.loads(tflite_file.with_name("small.tflite.json").read_text(encoding="utf-8"))
    assert card["task"] == "detection" and card["labels"] == list(LABELS) and card["quantize"] is None
    assert card["input"]["tensors"]["images"] == {"shape": [1, 96, 160, 3], "dtype": "float32"}
    assert card["output"]["boxes"] == {"shape": [1, 30, 4], "dtype": "float32"}
    from keras_deepnets.export.litert import open_interpreter

    runner = open_interpreter(model_path=str(tflite_file)).get_signature_runner("serving_default")
    for end, told in (("input", card["input"]["tensors"]), ("output", card["output"])):
        details = getattr(runner, f"get_{end}_details")()
        found = {name: (each["shape"].tolist(), np.dtype(each["dtype"]).name) for name, each in details.items()}
        assert found == {name: (each["shape"], each["dtype"]) for name, each in told.items()}


@pytest.mark.parametrize(
    ("quantize", "share"), [("float16", 0.6), pytest.param("dynamic", 0.4, marks=pytest.mark.slow)]
)
def test_quantised_weights(small, images, tflite_file, tmp_path, quantize, share):
    path = export.tflite(small, tmp_path / "small.tflite", quantize, image_size=(96, 160))
    assert path.stat().st_size < share * tflite_file.stat().st_size
    expected = at_fixed_size(small, images, 96, 160)
    found = detector_export.predict(path, images)
    best = [abs(one["scores"][0] - other["scores"][0]) for one, other in zip(found, expected, strict=True)]
    assert max(best) < 0.1


@pytest.mark.slow
def test_single_map_detectors_convert(tmp_path, images):
    options = {"candidates": 50, "proposals": 5, "score_threshold": 0.0, "detections": 10, "classes": 3}
    model = detection.FasterRCNN("resnet18", form="c4", anchor_sizes=(32, 64), **options)
    path = export.tflite(model, tmp_path / "c4.tflite", image_size=64)
    assert_same(
        detector_export.predict(path, images[:1]), at_fixed_size(model, images[:1], 64, 64), pixels=0.1, scores=1e-3
    )


def test_fewer_candidates_than_boxes_to_select():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (1, 7, 3, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (1, 7, 3, 2))], -1).astype("float32")
    scores = rng.uniform(-0.3, 1, (1, 7, 3)).astype("float32")
    for most in (2, 5, 30):
        found, expected = (each(boxes, scores, 0.3, most) for each in (builtin.suppress, plain_suppress))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, np.where(np.asarray(other) < 0, 0, other), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"give image_size=\(height, width\), multiples of 32"),
        ({"image_size": 100}, "image_size=100 must be a side"),
        ({"image_size": (64, 0)}, "must be a side"),
        ({"image_size": 64, "quantize": "int8"}, "boxes need more than 8 bits"),
        ({"image_size": 64, "labels": ["a"]}, "1 labels were given for the 4 outputs"),
        ({"image_size": 64, "integer_io": False}, "has no option integer_io"),
    ],
)
def test_errors_of_one_line(small, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export.tflite(small, tmp_path / "no.tflite", **options)
    assert not list(tmp_path.iterdir())


def test_classifiers_are_told_apart(tflite_file, resnet20_like, images, tmp_path):
    with pytest.raises(InputError, match="is a detector, not a classifier"):
        export.predict(tflite_file, images[0][None])
    with pytest.raises(InputError, match="image_size=64 is for detectors"):
        export.tflite(resnet20_like, tmp_path / "no.tflite", image_size=64)
    path = export.tflite(resnet20_like, tmp_path / "classifier.tflite")
    with pytest.raises(InputError, match="is for classification, not detection"):
        detector_export.predict(path, images)


@pytest.fixture
def resnet20_like():
    import keras_deepnets as kd

    return kd.PlainNet(
        depth=8, stem="cifar", filters=(8, 8, 8), input_shape=(16, 16, 3), classes=3, include_preprocessing=True
    )


def test_predict_takes_models_and_refuses_the_rest(small, images, tmp_path):
    expected = detection.detect(small, images[:2])
    assert_same(detector_export.predict(small, images[:2]), expected)
    small.save(tmp_path / "small.keras")
    assert_same(detector_export.predict(tmp_path / "small.keras", images[:2]), expected)
    with pytest.raises(InputError, match="is a detector, not a classifier"):
        export.predict(tmp_path / "small.keras", images[0][None])
    with pytest.raises(InputError, match="does not exist"):
        detector_export.predict(tmp_path / "nothing", images)
    with pytest.raises(InputError, match="on_error='ignore'"):
        detector_export.predict(small, images, on_error="ignore")
    with pytest.raises(InputError, match="batch_size=0"):
        detector_export.predict(small, images, 0)
    assert detector_export.predict(small, []) == []
    stacked = np.stack([images[2]] * 2)
    assert_same(detector_export.predict(small, stacked), detector_export.predict(small, images[2]) * 2)


@pytest.mark.slow
def test_a_published_architecture(tmp_path, images):
    few = {"candidates": 100, "proposals": 100, "score_threshold": 0.011}
    model = detection.FasterRCNN_ResNet50_FPN(min_size=320, max_size=320, **few)
    path = export.tflite(model, tmp_path / "r50.tflite", image_size=320)
    expected = at_fixed_size(model, images[:1], 320, 320)
    assert_same(detector_export.predict(path, images[:1]), expected, pixels=0.5, scores=1e-3)


def test_proposals_and_detections_are_not_changed(small):
    before = [type(layer).__name__ for layer in small.layers]
    copy = builtin.builtin(small)
    assert [type(layer).__name__ for layer in small.layers] == before
    assert {"BuiltinProposals", "BuiltinDetections", "BuiltinRegionAlign"} <= {
        type(layer).__name__ for layer in copy.layers
    }
