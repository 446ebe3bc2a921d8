"""One call for every artifact, the same answer from each, and errors that name the image."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets import export
from keras_deepnets.errors import InputError
from tests.export.conftest import keras_probabilities, photographs

pytestmark = pytest.mark.integration

ARTIFACTS = ("versions", "version", "tflite", "keras", "model")


@pytest.fixture(scope="module")
def artifacts(resnet20, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    resnet20.save(folder / "model.keras")
    version = export.saved_model(resnet20, folder / "served", version=7)
    (folder / "served" / "12").mkdir()  # a number without a model is no version
    tflite = export.tflite(resnet20, folder / "model.tflite")
    return {
        "versions": folder / "served",
        "version": version,
        "tflite": tflite,
        "keras": folder / "model.keras",
        "model": resnet20,
    }


@pytest.fixture(scope="module")
def encoded():
    sizes = [(32, 32), (90, 60), (40, 41), (24, 24)]
    images = [photographs(1, *size, seed=seed)[0] for seed, size in enumerate(sizes)]
    return [tf.io.encode_png(images[0]).numpy(), *(tf.io.encode_jpeg(image).numpy() for image in images[1:])]


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_pixels_give_the_keras_models_answer(artifacts, resnet20, pictures, kind):
    found = export.predict(artifacts[kind], pictures)
    expected = keras_probabilities(resnet20, pictures)
    assert {key: (value.dtype.kind, value.shape) for key, value in found.items()} == {
        "probabilities": ("f", (6, 10)),
        "classes": ("i", (6,)),
        "labels": ("U", (6,)),
    }
    assert found["probabilities"].dtype == np.float32 and found["classes"].dtype == np.int64
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)
    np.testing.assert_array_equal(found["classes"], expected.argmax(-1))
    assert found["labels"].tolist() == [resnet20.labels[index] for index in expected.argmax(-1)]


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_files_and_bytes_of_any_size_agree_between_artifacts(artifacts, encoded, tmp_path, kind):
    reference = export.predict(artifacts["model"], encoded)["probabilities"]
    assert np.abs(reference - reference[0]).max() > 0.05
    np.testing.assert_allclose(export.predict(artifacts[kind], encoded)["probabilities"], reference, atol=1e-5)
    files = [tmp_path / f"{number}.any" for number in range(len(encoded))]
    for path, data in zip(files, encoded, strict=True):
        path.write_bytes(data)
    mixed = [str(files[0]), *files[1:3], encoded[3]]
    np.testing.assert_allclose(export.predict(artifacts[kind], mixed)["probabilities"], reference, atol=1e-5)


@pytest.mark.parametrize("kind", ["version", "tflite", "keras"])
def test_pictures_of_another_size_and_grey_ones(artifacts, resnet20, kind):
    large = photographs(3, 61, 48)
    reference = export.predict(resnet20, large)["probabilities"]
    np.testing.assert_allclose(export.predict(artifacts[kind], large)["probabilities"], reference, atol=1e-5)
    grey = large[..., :1]
    reference = export.predict(resnet20, np.repeat(grey, 3, -1))["probabilities"]
    np.testing.assert_allclose(export.predict(artifacts[kind], grey)["probabilities"], reference, atol=1e-5)


def test_more_images_than_a_batch(artifacts, resnet20):
    images = photographs(2 * export.prediction.BATCH_SIZE + 3, 32, 32)
    found = export.predict(artifacts["version"], images)
    assert len(found["labels"]) == len(images)
    np.testing.assert_allclose(found["probabilities"], keras_probabilities(resnet20, images), atol=1e-5)


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_a_tflite_file_of_three_images_at_once(resnet20, pictures, encoded, tmp_path, quantize):
    many = np.concatenate([pictures, photographs(2, 32, 32, seed=7)])
    alone, three = (
        export.tflite(resnet20, tmp_path / f"{batch}.tflite", quantize, many, batch=batch) for batch in (1, 3)
    )
    for images in (many, many[:1], many[:3], encoded):
        expected, found = export.predict(alone, images), export.predict(three, images)
        assert len(found["labels"]) == len(images)
        np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-6)
        assert found["labels"].tolist() == expected["labels"].tolist()


MEMORY = """
import resource, sys
from keras_deepnets import export
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
path, picture = sys.argv[1:]
export.predict(path, [picture])
before = peak()
found = export.predict(path, [picture] * 12)
print(len(found["labels"]), peak() - before)
"""


@pytest.mark.parametrize("kind", ["tflite", "onnx"])
def test_large_files_are_not_all_in_memory_at_once(small, tmp_path, kind):
    """A picture takes 27 MB decoded, twelve of them 320 MB."""
    if kind == "onnx":
        for name in ("onnx", "tf2onnx", "onnxruntime"):
            pytest.importorskip(name)
    path = getattr(export, kind)(small, tmp_path / f"model.{kind}")
    (tmp_path / "large.jpg").write_bytes(tf.io.encode_jpeg(tf.zeros([3000, 3000, 3], tf.uint8)).numpy())
    command = [sys.executable, "-c", MEMORY, str(path), str(tmp_path / "large.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    count, grown = done.stdout.split()
    assert count == "12" and float(grown) < 0.12


class Killed(BaseException):
    pass


@pytest.mark.parametrize("renames", range(4))
def test_a_writer_that_is_killed_leaves_a_pair_that_can_be_read(small, tmp_path, monkeypatch, renames):
    path, images = tmp_path / "model.tflite", photographs(3, 16, 16)
    old, new = list("abcd"), list("efgh")
    export.tflite(small, path, labels=old)
    expected = export.predict(path, images)["probabilities"]
    rename, done = pathlib.Path.replace, []

    def killed(source, target):
        if len(done) == renames:
            raise Killed
        done.append(target)
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", killed)
        if renames < 3:
            with pytest.raises(Killed):
                export.tflite(small, path, "float16", labels=new)
        else:
            export.tflite(small, path, "float16", labels=new)
    found = export.predict(path, images)
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-2)
    exact = np.abs(found["probabilities"] - expected).max() == 0
    assert exact == (renames < 2)  # which of the two files it is
    assert set(found["labels"]) <= set(old if exact else new)
    # Whoever writes next finds nothing in the way, and leaves nothing of what was replaced.
    export.tflite(small, path, labels=new)
    assert set(export.predict(path, images)["labels"]) <= set(new)
    assert "replaces" not in json.loads((tmp_path / "model.tflite.json").read_text())
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.tflite", "model.tflite.json"]


def test_a_pair_that_is_replaced_while_it_is_read(small, tmp_path, monkeypatch):
    path, images = export.tflite(small, tmp_path / "model.tflite"), photographs(1, 16, 16)
    read = pathlib.Path.read_text

    def slow(self, *args, **kwargs):
        text = read(self, *args, **kwargs)
        monkeypatch.undo()
        export.tflite(small, path, "float16", labels=list("efgh"))
        return text

    monkeypatch.setattr(pathlib.Path, "read_text", slow)
    assert export.predict(path, images)["labels"][0] in "efgh"


def test_a_network_that_expects_scaled_pixels_gets_them(small, tmp_path):
    images = photographs(4, 16, 16)
    expected = keras_probabilities(small, small.scaling.apply(images.astype("float32")))
    for path in (export.saved_model(small, tmp_path / "s"), export.tflite(small, tmp_path / "s.tflite"), small):
        np.testing.assert_allclose(export.predict(path, images)["probabilities"], expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["version", "tflite", "keras"])
def test_a_broken_image_is_named(artifacts, encoded, tmp_path, kind):
    for broken in (b"no image at all", b"", encoded[1][: len(encoded[1]) // 2], encoded[0][:60]):
        with pytest.raises(InputError, match="image 1 is not a") as error:
            export.predict(artifacts[kind], [encoded[0], broken, encoded[1]])
        assert "\n" not in str(error.value)
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match=r"broken\.jpg is not a"):
        export.predict(artifacts[kind], [tmp_path / "broken.jpg"])
    with pytest.raises(InputError, match=r"missing\.jpg: cannot be read \(No such file"):
        export.predict(artifacts[kind], [tmp_path / "missing.jpg"])


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((2, 32, 32, 3), "float32"), "images are float32"),
        (np.zeros((32, 32, 3), "uint8"), r"uint8 \[32, 32, 3\]"),
        (np.zeros((2, 32, 32, 4), "uint8"), "give uint8"),
        (np.zeros((0, 32, 32, 3), "uint8"), "at least one"),
        ([], "no images"),
        ([np.zeros((8, 8, 3), "uint8"), np.zeros((9, 8, 3), "uint8")], "images differ in size"),
        ([1, 2], "give uint8"),
    ],
)
def test_images_must_be_images(artifacts, images, message):
    with pytest.raises(InputError, match=message):
        export.predict(artifacts["version"], images)


def test_what_is_no_artifact_is_said_so(artifacts, pictures, tmp_path):
    (tmp_path / "text.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn.keras").write_bytes(artifacts["keras"].read_bytes()[:1000])
    (tmp_path / "torn.tflite").write_bytes(artifacts["tflite"].read_bytes()[:1000])
    (tmp_path / "alone.tflite").write_bytes(artifacts["tflite"].read_bytes())
    (tmp_path / "torn.tflite.json").write_text(artifacts["tflite"].with_name("model.tflite.json").read_text())
    (tmp_path / "torn" / "1").mkdir(parents=True)
    (tmp_path / "torn" / "1" / "saved_model.pb").write_bytes(b"\x00")
    module = tf.Module()
    module.f = tf.function(lambda x: x, input_signature=[tf.TensorSpec([None])])
    tf.saved_model.save(module, str(tmp_path / "foreign"))
    messages = {
        "nothing": r"does not exist; give a SavedModel folder, a \.tflite, \.onnx, \.xml or \.keras file\.",
        "text.txt": r"is not an artifact; give a SavedModel folder, a \.tflite, \.onnx, \.xml or \.keras file\.",
        "empty": "holds no saved_model.pb",
        "torn.keras": "cannot be loaded as a Keras model",
        "torn.tflite": "is not what export.tflite writes",
        "alone.tflite": "writes it next to the model; keep them together",
        "torn": "cannot be loaded",
        "foreign": "lacks the signatures",
    }
    for name, message in messages.items():
        with pytest.raises(InputError, match=message) as error:
            export.predict(tmp_path / name, pictures)
        assert "\n" not in str(error.value), name


def test_the_interpreter_inside_tensorflow_does_as_well(artifacts, pictures, monkeypatch, recwarn):
    reference = export.predict(artifacts["tflite"], pictures)["probabilities"]
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    found = export.predict(artifacts["tflite"], pictures)["probabilities"]
    np.testing.assert_allclose(found, reference, atol=1e-6)
    assert [str(warning.message) for warning in recwarn if "interpreter" in str(warning.message).lower()] == []


def test_importing_the_package_loads_no_tensorflow():
    code = "import sys, keras_deepnets.export; print(sorted({'tensorflow', 'keras'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_keras_file_of_another_maker(tmp_path):
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3), keras.layers.GlobalMaxPooling2D()])
    model.add(keras.layers.Softmax())
    model.save(tmp_path / "plain.keras")
    images = photographs(2, 16, 16)
    found = export.predict(tmp_path / "plain.keras", images)
    np.testing.assert_allclose(found["probabilities"], keras_probabilities(model, images), atol=1e-5)
    assert found["labels"].tolist() == [str(index) for index in found["classes"]]
