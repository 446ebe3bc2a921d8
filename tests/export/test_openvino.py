"""OpenVINO files: the numbers of the Keras model in OpenVINO, names and labels inside. Needs the extra `openvino`."""

import json
import shutil

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import export
from keras_deepnets.errors import InputError
from keras_deepnets.export import measuring, openvino_export
from tests.export.conftest import keras_probabilities, photographs, unsettle
from tests.export.test_onnx import MAKERS

QUICK = ("residual", "grey", "stem and groups", "dense, recomputed", "maxout", "logits")
LABELS = tuple("abcdefghij")


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(3)
    model = unsettle(kd.ResNet20(input_shape=(16, 16, 3), include_preprocessing=True))
    model.labels = LABELS
    return model


@pytest.fixture(scope="module")
def written(network, tmp_path_factory):
    pytest.importorskip("openvino")
    return export.openvino(network, tmp_path_factory.mktemp("openvino") / "model.xml")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MAKERS]
)
def test_openvino_gives_what_keras_gives(name, tmp_path):
    pytest.importorskip("openvino")
    keras.utils.set_random_seed(3)
    model = unsettle(MAKERS[name]())
    height, width, channels = model.input_shape[1:]
    images = photographs(5, height, width)[..., :channels]
    path = export.openvino(model, tmp_path / "model.xml")
    expected = export.predict(model, images)
    found = export.predict(path, images)
    spread = expected["probabilities"].std(0).max()
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=min(1e-5, 0.05 * spread))
    assert list(found["labels"]) == list(expected["labels"])


def test_names_labels_and_precision_are_in_the_files(written):
    import openvino

    assert sorted(path.name for path in written.parent.iterdir()) == ["model.bin", "model.xml", "model.xml.json"]
    network = openvino.Core().read_model(written)
    (source,), (target,) = network.inputs, network.outputs
    assert (source.get_any_name(), source.get_partial_shape().to_string()) == ("images", "[?,16,16,3]")
    assert (target.get_any_name(), target.get_partial_shape().to_string()) == ("probabilities", "[?,10]")
    assert source.get_element_type().get_type_name() == "u8"
    assert network.get_rt_info(["runtime_options", "INFERENCE_PRECISION_HINT"]).astype(str) == "f32"
    card = json.loads(written.with_name("model.xml.json").read_text())
    assert (card["labels"], card["precision"], card["quantize"]) == (list(LABELS), "float32", None)
    assert card["input"]["shape"] == [None, 16, 16, 3]


def test_a_fixed_batch_takes_any_number_of_images(network, tmp_path):
    pytest.importorskip("openvino")
    images = photographs(5, 16, 16)
    path = export.openvino(network, tmp_path / "model.xml", batch=3)
    assert json.loads((tmp_path / "model.xml.json").read_text())["input"]["shape"] == [3, 16, 16, 3]
    found = export.predict(path, images)["probabilities"]
    np.testing.assert_allclose(found, keras_probabilities(network, images), atol=1e-5)
    assert measuring.invocation(path)().shape == (3, 10)


def test_bfloat16_rounds(network, written, tmp_path):
    images = photographs(5, 16, 16)
    path = export.openvino(network, tmp_path / "model.xml", precision="bfloat16")
    found, exact = (export.predict(each, images)["probabilities"] for each in (path, written))
    np.testing.assert_allclose(found, exact, atol=0.1)
    assert (tmp_path / "model.bin").read_bytes() == written.with_suffix(".bin").read_bytes()


@pytest.mark.slow
def test_int8_keeps_the_accuracy_of_a_trained_network(tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    from keras_deepnets import data, training

    trained = training.train("resnet20", "digits", recipe="fast", epochs=6, run_dir=tmp_path / "run", verbose=0)
    digits = data.load("digits", "test")
    images, labels = (np.stack(part) for part in zip(*_pairs(digits), strict=True))
    path = export.openvino(trained.model, tmp_path / "model.xml", quantize="int8", calibration="digits")
    plain = export.openvino(trained.model, tmp_path / "plain.xml")
    accuracy, exact = ((export.predict(each, images)["classes"] == labels).mean() for each in (path, plain))
    assert exact > 0.9 and accuracy > exact - 0.01
    assert "FakeQuantize" in path.read_text()
    assert path.with_suffix(".bin").stat().st_size < 0.4 * plain.with_suffix(".bin").stat().st_size


def _pairs(source):
    for image, label in source.examples():
        yield np.repeat(np.asarray(image), 4 - np.asarray(image).shape[-1], -1)[..., :3], int(label)


def test_files_that_do_not_belong_together(written, network, tmp_path):
    images = photographs(1, 16, 16)
    for path in written.parent.iterdir():
        shutil.copy(path, tmp_path)
    path = tmp_path / "model.xml"
    weights = path.with_suffix(".bin").read_bytes()
    path.with_suffix(".bin").write_bytes(weights[:-4] + b"\0\0\0\1")
    with pytest.raises(InputError, match=r"the \.bin is damaged, or belongs to another \.xml; export it again"):
        export.predict(path, images)
    path.with_suffix(".bin").unlink()
    with pytest.raises(InputError, match=r"model\.bin cannot be read .* keep them together"):
        export.predict(path, images)
    path.with_suffix(".bin").write_bytes(weights)
    assert export.predict(path, images)["probabilities"].shape == (1, 10)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InputError, match="the file is damaged, or belongs to another JSON"):
        export.predict(path, images)
    # Replacing repairs all three.
    export.openvino(network, path)
    np.testing.assert_allclose(
        export.predict(path, images)["probabilities"], keras_probabilities(network, images), atol=1e-5
    )


def test_what_differs_is_not_written(network, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    wrong = np.full((2, 10), 0.1, "float32")
    monkeypatch.setattr(openvino_export, "compiled", lambda network, precision: lambda images: wrong)
    with pytest.raises(RuntimeError, match=r"the OpenVINO file of .* differs from the model by"):
        export.openvino(network, tmp_path / "new" / "model.xml")
    assert list(tmp_path.iterdir()) == []


def test_a_detector_has_other_formats(tmp_path):
    detector = type("Detector", (), {"exporter": "keras_deepnets.detection.export", "name": "finder"})()
    with pytest.raises(InputError, match=r"finder cannot be exported by openvino; .*export has onnx, .*tflite"):
        export.openvino(detector, tmp_path / "model.xml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int4"}, "quantize='int4' is not 'int8' or None"),
        ({"precision": "float16"}, "precision='float16' is not 'float32' or 'bfloat16'"),
        ({"quantize": "int8"}, "quantize='int8' needs calibration images"),
        ({"calibration": "digits"}, "quantize=None takes no calibration images"),
        ({"batch": 0}, "batch=0 must be a whole number of at least 1"),
    ],
)
def test_wrong_options_write_nothing(network, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export.openvino(network, tmp_path / "model.xml", **options)
    assert list(tmp_path.iterdir()) == []


def test_without_the_package(network, tmp_path, monkeypatch):
    monkeypatch.setattr(openvino_export, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"needs openvino, not installed here: pip install 'keras-deepnets\[openvino\]'"
    ):
        export.openvino(network, tmp_path / "model.xml")
    with pytest.raises(InputError, match=r"needs openvino and nncf, not"):
        export.openvino(network, tmp_path / "model.xml", quantize="int8", calibration="digits")
    with pytest.raises(InputError, match=r"does not end in \.xml"):
        export.openvino(network, tmp_path / "model.bin")
    assert list(tmp_path.iterdir()) == []
