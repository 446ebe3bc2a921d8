"""The SavedModel of a detector: numbers, signatures, files, errors."""

import functools
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets import detection, export
from keras_deepnets.detection import export as detector_export
from keras_deepnets.detection.export import serving_graph
from keras_deepnets.detection.resizing import resized, resized_size
from keras_deepnets.errors import InputError
from tests.detection.export.conftest import LABELS, assert_same, images_of, jpeg_turned, png, small_detector
from tests.export.test_savedmodel import library_operations

pytestmark = pytest.mark.integration

ALONE = """
import sys
import numpy as np
import tensorflow as tf

loaded = tf.saved_model.load(sys.argv[1])
given = np.load(sys.argv[2])
files = [given[name].tobytes() for name in sorted(given) if name.startswith("file")]
results = {}
for first, last in ((0, 1), (0, 2), (1, 4)):
    found = loaded.signatures["serving_default"](image_bytes=tf.constant(files[first:last]))
    results |= {f"{first}-{last} {name}": value.numpy().astype("S") if value.dtype == tf.string else value.numpy()
                for name, value in found.items()}
assert "keras_deepnets" not in sys.modules
np.savez(sys.argv[3], **results)
"""


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """Loads each folder once: that takes longer than running it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.saved_model, "load", functools.cache(tf.saved_model.load))
        yield


@pytest.fixture(scope="module")
def signatures(folder):
    return tf.saved_model.load(str(folder / "1")).signatures


def test_the_signatures(signatures):
    assert set(signatures) == {"serving_default", "serving_images"}
    outputs = {
        "boxes": (tf.float32, [None, 30, 4]),
        "scores": (tf.float32, [None, 30]),
        "classes": (tf.int64, [None, 30]),
        "labels": (tf.string, [None, 30]),
        "count": (tf.int32, [None]),
    }
    for name in signatures:
        found = signatures[name].structured_outputs
        assert {key: (spec.dtype, spec.shape.as_list()) for key, spec in found.items()} == outputs
    (spec,) = signatures["serving_default"].structured_input_signature[1].values()
    assert (spec.name, spec.dtype, spec.shape.as_list()) == ("image_bytes", tf.string, [None])
    (spec,) = signatures["serving_images"].structured_input_signature[1].values()
    assert (spec.name, spec.dtype, spec.shape.as_list()) == ("images", tf.uint8, [None, None, None, 3])


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_it_finds_what_detect_finds(folder, small, images, batch_size):
    expected = detection.detect(small, images, batch_size)
    assert min(len(row["scores"]) for row in expected) >= 3 and len({*expected[0]["labels"]}) > 1
    assert_same(detector_export.predict(folder / "1", images, batch_size), expected)


def test_pixels_of_one_size(signatures, small):
    images = np.stack(images_of([(75, 110)] * 3))
    found = signatures["serving_images"](images=tf.constant(images))
    expected = detection.detect(small, list(images), 3)
    for place, row in enumerate(expected):
        count = int(found["count"][place])
        assert count == len(row["scores"])
        np.testing.assert_allclose(found["boxes"][place, :count], row["boxes"], atol=1e-3)
        names = [label.decode() for label in found["labels"][place].numpy()]
        assert names == [LABELS[number] for number in row["labels"]] + [""] * (30 - count)
        assert not found["classes"][place, count:].numpy().any() and not found["boxes"][place, count:].numpy().any()


@pytest.mark.slow
def test_plain_tensorflow_in_another_process(folder, small, images, tmp_path):
    np.savez(
        tmp_path / "given.npz", **{f"file{n}": np.frombuffer(png(image), "uint8") for n, image in enumerate(images)}
    )
    words = [folder / "1", tmp_path / "given.npz", tmp_path / "found.npz"]
    # -I: neither the current folder nor PYTHONPATH.
    done = subprocess.run(
        [sys.executable, "-I", "-c", ALONE, *map(str, words)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "found.npz")
    for first, last in ((0, 1), (0, 2), (1, 4)):
        for place, row in enumerate(detection.detect(small, images[first:last], last - first)):
            values = {name: found[f"{first}-{last} {name}"][place] for name in ("boxes", "scores", "classes", "count")}
            assert values["count"] == len(row["scores"])
            np.testing.assert_allclose(values["boxes"][: values["count"]], row["boxes"], atol=1e-3)
            np.testing.assert_allclose(values["scores"][: values["count"]], row["scores"], atol=1e-5)
            np.testing.assert_array_equal(values["classes"][: values["count"]], row["labels"])


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_orientation(folder, small, orientation, tmp_path):
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg_turned(images_of([(80, 130)])[0], orientation))
    (found,) = detector_export.predict(folder / "1", path)
    assert_same([found], detection.detect(small, path))
    limits = [80, 130] if orientation in (6, 8) else [130, 80]
    assert (found["boxes"][:, 2:].max(0) <= np.add(limits, 1e-3)).all()


def test_a_broken_image_fails_or_is_skipped(folder, small, images, tmp_path):
    good = png(images[0])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"image_bytes\[1\] is not a JPEG"):
        tf.saved_model.load(str(folder / "1")).signatures["serving_default"](
            image_bytes=tf.constant([good, good[:60], good])
        )
    found = tf.saved_model.load(str(folder / "2")).signatures["serving_default"](
        image_bytes=tf.constant([b"", good, b"text"])
    )
    assert found["count"].numpy().tolist()[::2] == [-1, -1]
    for name, nothing in {"boxes": 0, "scores": 0, "classes": 0, "labels": b""}.items():
        assert (found[name].numpy()[::2] == nothing).all()
    (tmp_path / "broken.png").write_bytes(good[:60])
    expected = detection.detect(small, images[:2])
    for version in ("1", "2"):
        given = [images[0], tmp_path / "broken.png", images[1]]
        first, broken, last = detector_export.predict(folder / version, given, on_error="skip")
        assert broken is None
        assert_same([first, last], expected)
        with pytest.raises(InputError, match=r"broken\.png is not an image file"):
            detector_export.predict(folder / version, given, 3)
        with pytest.raises(InputError, match=r"missing\.png: cannot be read"):
            detector_export.predict(folder / version, [images[0], tmp_path / "missing.png"])


def test_requests_without_images(signatures):
    for found in (
        signatures["serving_default"](image_bytes=tf.constant([], tf.string)),
        signatures["serving_images"](images=tf.zeros([0, 30, 40, 3], tf.uint8)),
    ):
        assert found["boxes"].shape == (0, 30, 4) and found["count"].shape == (0,)


def test_the_files(folder):
    card = json.loads((folder / "1" / "model_card.json").read_text(encoding="utf-8"))
    assert card["task"] == "detection" and card["labels"] == list(LABELS) and card["name"] == "small"
    assert card["input"]["min_size"] == 128 and card["input"]["max_size"] == 192 and card["detections"] == 30
    assert (card["data"], card["accuracy"], card["batch_normalization"]) == ("pets", {"AP": 0.5}, "folded")
    assert card["options"]["on_error"] == "fail" and card["batch_sizes"] == [1, 2, 4]
    assert (folder / "1" / "assets" / "labels.txt").read_text(encoding="utf-8").split() == list(LABELS)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]
    requests = tf.data.TFRecordDataset(str(folder / "2" / "assets.extra" / "tf_serving_warmup_requests"))
    assert len(list(requests)) == 4
    operations = library_operations(folder / "1")
    assert not {"PyFunc", "EagerPyFunc", "FusedBatchNormV3"} & operations


def test_a_server_gets_its_configuration(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "small")
    models, batching, _ = export.serving_config(tmp_path / "small")
    assert 'name: "small"' in models.read_text() and "allowed_batch_sizes: 3" in batching.read_text()


@pytest.mark.slow
def test_without_folding_and_with_half_the_weights(small, images, folder, tmp_path):
    expected = detection.detect(small, images)
    kept = detector_export.saved_model(small, tmp_path / "kept", fold=False)
    assert_same(detector_export.predict(kept, images), expected)
    half = detector_export.saved_model(small, tmp_path / "half", precision="float16")
    size, full = ((path / "saved_model.pb").stat().st_size for path in (half, folder / "1"))
    assert size < 0.6 * full
    found = detector_export.predict(half, images)
    assert abs(found[0]["scores"][0] - expected[0]["scores"][0]) < 0.01
    names = tf.saved_model.load(str(kept)).signatures["serving_images"](images=tf.constant(images[0][None]))["labels"]
    assert names[0, 0].numpy().decode() == str(expected[0]["labels"][0])


def test_the_labels_of_the_model(tmp_path):
    model = small_detector(detections=3)
    model.labels = ("background", "a", "b", "c")
    # Options of classifiers at their defaults are no options.
    path = export.saved_model(model, tmp_path / "own", None, 7, True, top_k=None, features=False, image_size=None)
    assert path.name == "7" and (path / "assets" / "labels.txt").read_text().split() == ["background", "a", "b", "c"]


@pytest.mark.slow
def test_mixed_precision_computes_in_float32(tmp_path, images):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = small_detector()
    finally:
        keras.config.set_dtype_policy("float32")
    full = small_detector()
    full.set_weights(half.get_weights())
    path = export.saved_model(half, tmp_path / "half")
    assert_same(detector_export.predict(path, images[:2]), detection.detect(full, images[:2]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["a", "b"]}, "2 labels were given for the 4 outputs of small"),
        ({"version": 1}, "version 1 exists"),
        ({"on_error": "ignore"}, "on_error='ignore' is not one of fail, skip"),
        ({"precision": "int8"}, "precision='int8' is not one of"),
        ({"max_pixels": 100}, "max_pixels=100 is less than the 128 × 170 pixels of a warm-up request"),
        ({"top_k": 3}, "small: keras_deepnets.detection.export.saved_model has no option top_k; leave it out"),
        ({"batch_sizes": (2, 1)}, "not whole numbers from 1 in rising order"),
        ({"accuracy": "good"}, "is not a number that a model card can hold"),
    ],
)
def test_errors_of_one_line(small, folder, options, message):
    with pytest.raises(InputError) as error:
        export.saved_model(small, folder, **options)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


def test_other_models(folder, images, tmp_path):
    with pytest.raises(InputError, match="is not a detector"):
        detector_export.saved_model(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]), tmp_path / "no")
    with pytest.raises(InputError, match=r"export takes a keras\.Model"):
        detector_export.saved_model("small", tmp_path / "no")
    for given in (folder, folder / "1"):
        with pytest.raises(InputError, match=r"is a detector, not a classifier; use keras_deepnets\.detection\.export"):
            export.predict(given, images[0][None])


def test_the_sizes_are_those_of_detect():
    rng = np.random.default_rng(0)
    for height, width in [*rng.integers(1, 4000, (200, 2)).tolist(), [800, 1333], [480, 640], [427, 640], [1, 5000]]:
        found = serving_graph.resized_size(tf.constant([height, width]), 800, 1333)
        assert tuple(found.numpy()) == resized_size(height, width, 800, 1333)


def test_resizing_is_that_of_detect(images):
    for size in ((128, 179), (64, 64), (333, 200)):
        found = serving_graph.resized(tf.constant(images[0][None]), tf.constant(size))[0]
        np.testing.assert_array_equal(found, resized(images[0], *size))
