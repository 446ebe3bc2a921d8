"""What may be asked of a SavedModel beside its defaults."""

import hashlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import export
from keras_deepnets.errors import InputError
from keras_deepnets.export import weight_precision
from tests.export.conftest import keras_probabilities, photographs, spread_logits, unsettle
from tests.export.test_savedmodel_graph import all_nodes

pytestmark = pytest.mark.integration


def load(path):
    return tf.saved_model.load(str(path))


def size_of(path):
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def scaled(small, images):
    return small.scaling.apply(images.astype("float32"))


@pytest.fixture(scope="module")
def resnet32():
    """Large enough for its weights to outweigh its graph in a file."""
    keras.utils.set_random_seed(7)
    model = unsettle(kd.ResNet32(include_preprocessing=True))
    spread_logits(model, photographs(16, 32, 32))
    return model


def test_the_best_classes_are_given_in_order(small, tmp_path):
    images = photographs(5, 16, 16)
    loaded = load(export.saved_model(small, tmp_path, labels=list("abcd"), top_k=3))
    found = loaded.signatures["serving_images"](images=tf.constant(images))
    expected = keras_probabilities(small, scaled(small, images))
    order = (-expected).argsort(-1)[:, :3]
    np.testing.assert_array_equal(found["top_classes"], order)
    assert found["top_classes"].dtype == tf.int64
    np.testing.assert_allclose(found["top_probabilities"], np.take_along_axis(expected, order, -1), atol=1e-5)
    assert found["top_labels"].numpy().tolist() == [[b"abcd"[i : i + 1] for i in row] for row in order]
    np.testing.assert_array_equal(found["classes"], order[:, 0])


@pytest.mark.parametrize("on_error", ["fail", "skip"])
def test_no_images_give_no_results(small, tmp_path, on_error):
    loaded = load(export.saved_model(small, tmp_path, labels=list("abcd"), top_k=3, features=True, on_error=on_error))
    shapes = {"probabilities": (0, 4), "classes": (0,), "labels": (0,), "features": (0, 8)}
    shapes |= {f"top_{name}": (0, 3) for name in ("probabilities", "classes", "labels")}
    for found in (
        loaded.signatures["serving_default"](image_bytes=tf.constant([], tf.string)),
        loaded.signatures["serving_images"](images=tf.zeros([0, 16, 16, 3], tf.uint8)),
        loaded.signatures["serving_images"](images=tf.zeros([0, 20, 30, 3], tf.uint8)),
    ):
        assert {name: value.shape for name, value in found.items()} == shapes


def test_features_are_what_the_last_dense_layer_takes(small, tmp_path):
    images = photographs(5, 16, 16)
    loaded = load(export.saved_model(small, tmp_path, features=True))
    found = loaded.signatures["serving_images"](images=tf.constant(images))
    head = keras.Model(small.input, small.layers[-1].input)
    np.testing.assert_allclose(found["features"], head.predict(scaled(small, images), verbose=0), atol=1e-4)
    assert loaded.signatures["serving_default"].structured_outputs["features"].shape.as_list() == [None, 8]


def test_features_of_a_network_without_a_dense_layer_are_refused(tmp_path):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(inputs))
    with pytest.raises(InputError, match="does not end in a dense layer"):
        export.saved_model(keras.Model(inputs, keras.layers.Softmax()(x)), tmp_path / "new", features=True)
    assert not (tmp_path / "new").exists()


def test_sizes_can_be_fixed(small, tmp_path):
    path = export.saved_model(small, tmp_path, image_size=(16, 24), batch_size=2)
    loaded = load(path)
    _, arguments = loaded.signatures["serving_images"].structured_input_signature
    assert arguments["images"].shape.as_list() == [2, 16, 24, 3]
    _, arguments = loaded.signatures["serving_default"].structured_input_signature
    assert arguments["image_bytes"].shape.as_list() == [2]
    outputs = loaded.signatures["serving_default"].structured_outputs
    assert outputs["probabilities"].shape.as_list() == [2, 4] and outputs["labels"].shape.as_list() == [2]
    free = export.saved_model(small, tmp_path)
    images = photographs(5, 16, 24)  # an odd number: the last batch is filled up
    expected = export.predict(free, images)["probabilities"]
    np.testing.assert_allclose(export.predict(path, images)["probabilities"], expected, atol=1e-6)
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    np.testing.assert_allclose(export.predict(path, encoded)["probabilities"], expected, atol=1e-6)
    with pytest.raises(InputError, match="takes images of 16 × 24 pixels, not 16 × 16"):
        export.predict(path, images[:, :, :16])


def test_a_signature_of_the_networks_own_size_does_not_resize(small, tmp_path):
    path = export.saved_model(small, tmp_path, image_size=16)
    signature = load(path).signatures["serving_images"]
    assert not {op.type for op in signature.graph.get_operations()} & {"ScaleAndTranslate", "If", "StatelessIf"}


def rounded(model, precision):
    """The folded network whose kernels have gone through another dtype."""
    folded = export.fold_batchnorm(model)
    folded.set_weights(
        [np.asarray(tf.cast(tf.cast(w, precision), tf.float32)) if w.ndim > 1 else w for w in folded.get_weights()]
    )
    return folded


# A random network whose logits are spread out magnifies what rounding does: a trained one differs by far less.
@pytest.mark.parametrize(("precision", "tolerance", "graphs"), [("float16", 0.03, 1e-5), ("bfloat16", 0.15, 0.05)])
def test_weights_take_half_the_space(precision, tolerance, graphs, resnet32, tmp_path):
    images = photographs(16, 32, 32)
    full = export.saved_model(resnet32, tmp_path)
    half = export.saved_model(resnet32, tmp_path, precision=precision)
    weights = 2 * sum(np.prod(kernel.shape) for kernel in resnet32.weights if len(kernel.shape) > 1)
    assert size_of(full) - size_of(half) > 0.9 * weights
    expected = keras_probabilities(resnet32, images)
    found = export.predict(half, images)["probabilities"]
    np.testing.assert_allclose(found, expected, atol=tolerance)
    np.testing.assert_allclose(found, keras_probabilities(rounded(resnet32, precision), images), atol=graphs)
    assert (found.argmax(-1) == expected.argmax(-1)).mean() >= 15 / 16
    assert np.abs(found - expected).max() > 1e-6, "nothing was rounded"
    _, served = all_nodes(half)
    convolutions = {node.attr["T"].type for node in served if node.op == "Conv2D"}
    assert convolutions == {(tf.bfloat16 if precision == "bfloat16" else tf.float32).as_datatype_enum}
    card = json.loads((half / "model_card.json").read_text())
    assert card["weights"]["stored"] == precision
    assert card["compute"] == ("bfloat16" if precision == "bfloat16" else "float32")


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_large_networks_keep_their_weights_in_variables(precision, small, tmp_path, monkeypatch):
    options = {"precision": precision, "top_k": 2, "features": True}
    weights = [value.nbytes for _, value, _ in weight_precision.stored_weights(small, precision)]
    constant = export.saved_model(small, tmp_path, **options)
    monkeypatch.setattr(weight_precision, "LARGEST_CONSTANT", max(weights) - 1)
    mixed = export.saved_model(small, tmp_path, **options)
    monkeypatch.setattr(weight_precision, "MOST_CONSTANTS", 100)
    variable = export.saved_model(small, tmp_path, **options)
    images = tf.constant(photographs(5, 16, 16))
    expected, *others = (load(path).signatures["serving_images"](images=images) for path in (constant, mixed, variable))
    for results in others:
        assert set(results) == set(expected)
        for name in results:
            if name.endswith("labels") or name.endswith("classes"):
                np.testing.assert_array_equal(results[name], expected[name])
            else:
                np.testing.assert_allclose(results[name], expected[name], rtol=1e-2, atol=1e-5)
    for path, place, count in (
        (constant, "graph", 0),
        (mixed, "graph and variables", 1),
        (variable, "variables", 4),
    ):
        assert json.loads((path / "model_card.json").read_text())["weights"]["place"] == place
        names = [name for name, _ in tf.train.list_variables(str(path / "variables/variables"))]
        assert len([name for name in names if name.endswith("VARIABLE_VALUE")]) == count


def test_the_card_knows_data_accuracy_and_every_file(small, tmp_path):
    path = export.saved_model(small, tmp_path, data="digits", accuracy={"top-1": 0.75}, top_k=2)
    card = json.loads((path / "model_card.json").read_text())
    assert (card["data"], card["accuracy"]) == ("digits", {"top-1": 0.75})
    assert card["weights"] | {"count": small.count_params(), "stored": "float32", "place": "graph"} == card["weights"]
    content = b"".join(np.asarray(variable).tobytes() for variable in small.weights)
    assert card["weights"]["sha256"] == hashlib.sha256(content).hexdigest()
    others = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()} - {"model_card.json"}
    assert set(card["sha256"]) == others
    for name, value in card["sha256"].items():
        assert hashlib.sha256((path / name).read_bytes()).hexdigest() == value
    assert card["outputs"] == ["classes", "labels", "probabilities", "top_classes", "top_labels", "top_probabilities"]
    assert card["options"]["top_k"] == 2 and card["software"]["tensorflow"] == tf.__version__


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        (np.float32(0.5), 0.5),
        (tf.constant(0.25), 0.25),
        (1, 1),
        (
            {"top-1": np.float64(0.75), "images": np.int64(360), "data": "digits"},
            {"top-1": 0.75, "images": 360, "data": "digits"},
        ),
    ],
)
def test_the_card_takes_the_numbers_of_numpy_and_tensorflow(accuracy, expected, small, tmp_path):
    path = export.saved_model(small, tmp_path, accuracy=accuracy, data=Path("some") / "folder")
    card = json.loads((path / "model_card.json").read_text())
    assert card["accuracy"] == expected and card["data"] == "some/folder"
    assert card["weights"]["built_with"] is None


def test_the_card_says_which_weights_the_network_was_built_with(tmp_path):
    make = {"depth": 8, "stem": "cifar", "filters": (4, 4, 4), "input_shape": (16, 16, 3)}
    kd.save_weights(kd.ResNet(classes=3, **make), tmp_path / "some.weights.h5")
    model = kd.ResNet(weights=tmp_path / "some.weights.h5", classes=3, **make)
    path = export.saved_model(model, tmp_path / "served")
    card = json.loads((path / "model_card.json").read_text())
    assert card["weights"]["built_with"] == card["architecture"]["weights"] == "some.weights.h5"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accuracy": float("nan")}, "accuracy: nan is not a number that a model card can hold"),
        ({"accuracy": {"top-1": None}}, "accuracy: None is not a number"),
        ({"accuracy": "good"}, "accuracy: 'good' is not a number"),
        ({"data": 3}, "data=3 does not name"),
        ({"precision": "int8"}, "precision='int8' is not one of float32, bfloat16, float16"),
        ({"on_error": "ignore"}, "on_error='ignore' is not one of fail, skip"),
        ({"top_k": 0}, "top_k=0 is not a whole number from 1"),
        ({"top_k": 5}, "top_k=5 is more than the 4 classes of small"),
        ({"batch_size": True}, "batch_size=True is not a whole number from 1"),
        ({"image_size": (16,)}, r"image_size=\(16,\) is neither a side nor"),
        ({"image_size": 0}, "image_size=0 is neither a side nor"),
        ({"max_pixels": -1}, "max_pixels=-1 is not a whole number from 1"),
    ],
)
def test_options_are_checked_before_anything_is_written(options, message, small, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        export.saved_model(small, tmp_path / "new", **options)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "new").exists()
