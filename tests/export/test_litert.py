"""TFLite files: built-in operators only, the numbers of the Keras model, and integers where they were asked for."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import export, layers
from keras_deepnets.errors import InputError
from keras_deepnets.export.litert import open_interpreter
from tests.export.conftest import keras_probabilities, photographs, spread_logits, unsettle

RESIDUAL = {
    "ADD",
    "AVERAGE_POOL_2D",
    "CONV_2D",
    "FULLY_CONNECTED",
    "MEAN",
    "MUL",
    "PAD",
    "SOFTMAX",
    "STRIDED_SLICE",
    "SUB",
}


def operators(path):
    """Names of the operators in a file, by parsing it, not by what a runtime made of it."""
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    assert [code.customCode for code in model.operatorCodes] == [None] * len(model.operatorCodes)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    return [names[codes[operator.opcodeIndex]] for operator in model.subgraphs[0].operators]


def tensor_types(path):
    return {detail["dtype"] for detail in open_interpreter(model_path=str(path)).get_tensor_details()}


def card_of(path):
    return json.loads(path.with_name(path.name + ".json").read_text())


@pytest.fixture(scope="module")
def digits():
    """A network trained on the embedded digits, with the test half of them: int8 needs real activations to be judged."""
    train, test = kd.data.load("digits"), kd.data.load("digits", split="test")
    images, labels = next(iter(train.batches(train.size, image_size=(16, 16), channels=3)))
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = layers.scale_input(inputs, kd.Scaling((78,) * 3, (96,) * 3, crop_fraction=1.0))
    for number, filters in enumerate((16, 32, 64)):
        x = layers.conv_bn_relu(x, filters, 3, strides=1 + (number > 0), name=f"c{number}")
    model = keras.Model(inputs, layers.classifier(layers.pool_features(x, "avg"), 10, "softmax"))
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(images, labels, epochs=12, batch_size=64, verbose=0)
    images, labels = next(iter(test.batches(test.size, image_size=(16, 16), channels=3)))
    return model, train, (images.numpy(), labels.numpy())


@pytest.mark.parametrize(
    "quantize, tolerance, share", [(None, 1e-5, 1), ("float16", 5e-3, 0.55), ("dynamic", 0.1, 0.32)]
)
def test_float_files_give_what_keras_gives(resnet20, pictures, tmp_path, quantize, tolerance, share):
    path = export.tflite(resnet20, tmp_path / "model.tflite", quantize)
    found = export.predict(path, pictures)
    expected = keras_probabilities(resnet20, pictures)
    np.testing.assert_allclose(found["probabilities"], expected, atol=tolerance)
    np.testing.assert_array_equal(found["classes"], expected.argmax(-1))
    assert set(operators(path)) <= RESIDUAL | {"DEQUANTIZE"}
    assert operators(path).count("CONV_2D") == 19
    assert path.stat().st_size < share * 4 * resnet20.count_params() + 30_000
    card = card_of(path)
    assert card["quantize"] == quantize
    assert card["input"] | {"name": "images", "shape": [1, 32, 32, 3], "dtype": "float32"} == card["input"]
    assert card["output"] | {"name": "probabilities", "shape": [1, 10], "dtype": "float32"} == card["output"]
    assert card["scaling"] == resnet20.scaling.to_dict() and card["labels"] == list(resnet20.labels)


def test_int8_keeps_the_accuracy_of_a_trained_network(digits, tmp_path):
    model, train, (images, labels) = digits
    path = export.tflite(model, tmp_path / "digits.tflite", "int8", calibration=train)
    expected = keras_probabilities(model, images)
    found = export.predict(path, images)
    accuracy = (expected.argmax(-1) == labels).mean()
    assert accuracy > 0.95
    assert (found["classes"] == expected.argmax(-1)).mean() >= 0.99
    assert (found["classes"] == labels).mean() >= accuracy - 0.01
    assert np.abs(found["probabilities"] - expected).mean() < 0.01


def test_int8_is_integer_from_end_to_end(digits, tmp_path):
    model, train, _ = digits
    path = export.tflite(model, tmp_path / "digits.tflite", "int8", calibration=train)
    assert tensor_types(path) <= {np.uint8, np.int8, np.int32}
    assert set(operators(path)) <= RESIDUAL | {"QUANTIZE"}
    assert path.stat().st_size < model.count_params() * 1.5 + 15_000
    card = card_of(path)
    assert card["input"]["dtype"] == card["output"]["dtype"] == "uint8"
    # Pixels go in as they are; probabilities come out in 256ths.
    assert card["input"]["quantization"] == {"scale": pytest.approx(1.0), "zero_point": 0}
    assert card["output"]["quantization"] == {"scale": pytest.approx(1 / 256), "zero_point": 0}
    assert card["calibration_images"] == 200


def test_calibration_may_be_an_array_or_a_dataset(digits, tmp_path):
    model, _, (images, labels) = digits
    images = images[:60]
    data = tf.data.Dataset.from_tensor_slices((images, labels[:60]))
    sources = {
        "array": images,
        "batches with labels": data.batch(7),
        "single images": data.map(lambda image, label: image),
        "floats": images.astype("float32"),
        "another size": photographs(60, 20, 30),
    }
    for name, source in sources.items():
        path = export.tflite(model, tmp_path / f"{name}.tflite", "int8", source)
        assert card_of(path)["calibration_images"] == 60
    contents = [(tmp_path / f"{name}.tflite").read_bytes() for name in sources]
    assert contents[0] == contents[1] == contents[2] == contents[3] != contents[4]


def test_grouped_convolutions_and_padded_pooling_stay_native(tmp_path):
    """What an ImageNet stem and ResNeXt have: strided explicit padding, max pooling of any sign, groups."""
    inputs = keras.Input((33, 33, 3))
    x = layers.conv2d(inputs, 16, 7, strides=2, name="stem")
    x = layers.max_pool(layers.batch_norm(x, name="stem_bn"))
    x = layers.conv_bn_relu(x, 32, 3, groups=8, name="grouped")
    x = layers.conv_bn_relu(x, 32, 3, strides=2, groups=4, name="strided")
    x = keras.layers.Conv2D(32, 3, groups=2, name="stock")(x)
    model = unsettle(keras.Model(inputs, layers.classifier(layers.pool_features(x, "avg"), 5, "softmax")))
    images = photographs(20, 33, 33)
    spread_logits(model, images.astype("float32"))
    expected = keras_probabilities(model, images)
    for quantize, tolerance in ((None, 1e-5), ("int8", 0.1)):
        path = export.tflite(model, tmp_path / "model.tflite", quantize, images if quantize else None)
        found = export.predict(path, images)
        np.testing.assert_allclose(found["probabilities"], expected, atol=tolerance)
        assert operators(path).count("CONV_2D") == 4
        assert not {"SPLIT", "CONCATENATION", "DEPTHWISE_CONV_2D", "PADV2"} & set(operators(path))


def test_logits_and_grey_images(tmp_path):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Dense(16, activation="relu")(keras.layers.Flatten()(inputs))
    model = keras.Sequential([keras.Model(inputs, x), keras.layers.Dense(4), keras.layers.Activation("linear")])
    model.build((None, 8, 8, 1))
    model.layers[1].kernel.assign(model.layers[1].kernel / 100)
    images = photographs(5, 8, 8)[..., :1]
    expected = tf.nn.softmax(model.predict(images, verbose=0)).numpy()
    for path in (export.tflite(model, tmp_path / "m.tflite"), export.saved_model(model, tmp_path / "m")):
        np.testing.assert_allclose(export.predict(path, images)["probabilities"], expected, atol=1e-5)


def test_mixed_precision_models_become_float32(resnet20, pictures, tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    model = kd.ResNet20(include_preprocessing=True)
    model.set_weights(resnet20.get_weights())
    path = export.tflite(model, tmp_path / "model.tflite")
    assert tensor_types(path) <= {np.float32, np.int32}
    found = export.predict(path, pictures)["probabilities"]
    np.testing.assert_allclose(found, keras_probabilities(resnet20, pictures), atol=1e-5)


def test_the_file_is_replaced_whole(small, tmp_path):
    path = tmp_path / "model.tflite"
    path.write_text("old")
    assert export.tflite(small, path) == path
    assert path.read_bytes()[4:8] == b"TFL3"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["model.tflite", "model.tflite.json"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("model.bin",), "does not end in .tflite"),
        (("../folder.tflite",), "is a folder"),
        (("model.tflite", "int4"), "quantize='int4' is not one of None, 'float16', 'dynamic', 'int8'"),
        (("model.tflite", "int8"), "needs calibration: give about 200 typical images"),
        (("model.tflite", "int8", np.zeros((0, 16, 16, 3), "uint8")), "no images"),
        (("model.tflite", "int8", np.zeros((16, 16, 3), "uint8")), r"shape \(16, 16, 3\); give images \[n, h, w, c\]"),
        (("model.tflite", "int8", np.zeros((2, 16, 16, 5), "uint8")), r"\[h, w, 1 or 3\]"),
        (("model.tflite", "int8", np.full((2, 16, 16, 3), -1.0)), "0–255, not scaled"),
        (("model.tflite", "int8", np.random.default_rng(0).random((2, 16, 16, 3))), "not scaled"),
        (("model.tflite", "int8", tf.data.Dataset.from_tensors({"x": 1})), "calibration must give images"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(small, tmp_path, arguments, message):
    path, *rest = arguments
    (tmp_path / "new").mkdir()
    (tmp_path / "folder.tflite").mkdir()
    with pytest.raises(InputError, match=message) as error:
        export.tflite(small, tmp_path / "new" / path, *rest)
    assert "\n" not in str(error.value)
    assert sorted(entry.name for entry in tmp_path.rglob("*")) == ["folder.tflite", "new"]
