"""TFLite files: built-in operators only, the numbers of the Keras model, and integers where they were asked for."""

import errno
import hashlib
import json
import os
import pathlib
import warnings
import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import export, layers
from keras_deepnets.data import ImageData
from keras_deepnets.data.stores import ArrayPixels, IndexedStore
from keras_deepnets.errors import InputError
from keras_deepnets.export import calibrating
from keras_deepnets.export.litert import open_interpreter
from keras_deepnets.export.substitutes import EdgePaddedMaxPooling2D
from keras_deepnets.models import flat_layers
from tests.export.conftest import (
    keras_probabilities,
    norms,
    operators,
    photographs,
    spread_logits,
    tensor_types,
    unsettle,
)

pytestmark = pytest.mark.integration

FLOAT32, INT16, INT8 = 0, 7, 9  # of TFLite's schema
RELU = 1

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


def delegated(path):
    """How many parts of the graph XNNPACK has taken over; None where the runtime does not say."""
    interpreter = open_interpreter(model_path=str(path))
    if not hasattr(interpreter, "_get_ops_details"):
        return None
    return [operator["op_name"] for operator in interpreter._get_ops_details()].count("DELEGATE")


def flatbuffer(path):
    from tensorflow.lite.python import schema_py_generated as schema

    return schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))


def convolutions(path, name):
    """(fused activation, type of the input, type of the kernel, scales of the kernel, output channels) of each such operator."""
    from tensorflow.lite.python import schema_py_generated as schema

    model, found = flatbuffer(path), []
    wanted = getattr(schema.BuiltinOperator, name)
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        if max(code.builtinCode, code.deprecatedBuiltinCode) == wanted:
            source, kernel = (model.subgraphs[0].tensors[index] for index in operator.inputs[:2])
            scales = (
                0
                if kernel.quantization is None or kernel.quantization.scale is None
                else len(kernel.quantization.scale)
            )
            channels = kernel.shape[3 if name.startswith("DEPTHWISE") else 0]
            found.append((operator.builtinOptions.fusedActivationFunction, source.type, kernel.type, scales, channels))
    return found


def run_batch(path, images):
    """What a runtime gives for several images at once, in floats."""
    interpreter = open_interpreter(model_path=str(path))
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.resize_tensor_input(source["index"], images.shape)
    interpreter.allocate_tensors()
    scale, zero = source["quantization"]
    images = np.rint(images / scale + zero) if scale else images
    interpreter.set_tensor(source["index"], images.astype(source["dtype"]))
    interpreter.invoke()
    scale, zero = target["quantization"]
    values = interpreter.get_tensor(target["index"]).astype("float32")
    return (values - zero) * scale if scale else values


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
    "quantize, tolerance, mean, share",
    [(None, 1e-5, 1e-6, 1), ("float16", 1e-2, 2e-3, 0.55), ("dynamic", 0.2, 0.04, 0.32)],
)
def test_float_files_give_what_keras_gives(resnet20, pictures, tmp_path, quantize, tolerance, mean, share):
    path = export.tflite(resnet20, tmp_path / "model.tflite", quantize)
    found = export.predict(path, pictures)
    expected = keras_probabilities(resnet20, pictures)
    np.testing.assert_allclose(found["probabilities"], expected, atol=tolerance)
    assert np.abs(found["probabilities"] - expected).mean() < mean
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


@pytest.mark.parametrize("quantize, wide", [("int8", False), ("int16x8", True)])
def test_integers_inside_with_floats_or_integers_outside(digits, tmp_path, quantize, wide):
    model, train, (images, _) = digits
    inside = np.int16 if wide else np.int8
    outside = {True: np.int16 if wide else np.uint8, False: np.float32}
    expected = keras_probabilities(model, images)
    for integer_io, dtype in outside.items():
        path = export.tflite(model, tmp_path / "digits.tflite", quantize, train, integer_io=integer_io)
        found = export.predict(path, images)
        assert np.abs(found["probabilities"] - expected).mean() < (0.002 if wide else 0.01)
        assert (found["classes"] == expected.argmax(-1)).mean() >= (0.995 if wide else 0.99)
        assert tensor_types(path) <= {inside, np.int8, np.int32, np.int64, dtype}
        card = card_of(path)
        assert card["input"]["dtype"] == card["output"]["dtype"] == np.dtype(dtype).name
        assert card["quantize"] == quantize and card["calibration_images"] == 200
        assert (card["input"]["quantization"] is None) == (not integer_io)


def test_weights_are_quantised_a_channel_at_a_time(digits, tmp_path):
    model, train, _ = digits
    path = export.tflite(model, tmp_path / "digits.tflite", "int8", train)
    found = convolutions(path, "CONV_2D")
    assert len(found) == 3
    for fused, source, kernel, scales, channels in found:
        assert (fused, source, kernel) == (RELU, INT8, INT8)
        assert scales == channels > 1


def with_rounded_weights(model):
    """The folded network whose kernels have 255 values an output channel: what int8 weights alone change."""
    folded = export.fold_batchnorm(model)
    for layer in flat_layers(folded):
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            kernel = np.array(layer.kernel)
            scale = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1))) / 127
            layer.kernel.assign(np.rint(kernel / scale) * scale)
    return folded


def test_norms_that_stay_are_depthwise_with_relu_inside(tmp_path):
    """Pre-activation: what cannot be folded is one operator with the ReLU after it, and quantised a channel at a time."""
    keras.utils.set_random_seed(8)
    model = unsettle(kd.PreActResNet(depth=20, stem="cifar", input_shape=(16, 16, 3), include_preprocessing=True))
    images = photographs(40, 16, 16)
    spread_logits(model, images.astype("float32"))
    expected = keras_probabilities(model, images)
    kept = len(norms(export.fold_batchnorm(model)))
    assert kept == 0
    rounded = keras_probabilities(with_rounded_weights(model), images)
    # Weights that nothing has learnt spread the activations: a single image may lie further away than a trained network's.
    for quantize, source, kernel, meant, tolerance in (
        (None, FLOAT32, FLOAT32, expected, 1e-6),
        ("int8", INT8, INT8, expected, 0.03),
        ("int16x8", INT16, INT8, rounded, 0.0005),
    ):
        path = export.tflite(model, tmp_path / "model.tflite", quantize, images if source != FLOAT32 else None)
        found = convolutions(path, "DEPTHWISE_CONV_2D")
        assert len(found) >= 3
        for fused, source_type, kernel_type, scales, channels in found:
            assert (fused, source_type, kernel_type) == (RELU, source, kernel)
            assert scales == (channels if quantize else 0)
        assert "RELU" not in set(operators(path))
        assert np.abs(export.predict(path, images)["probabilities"] - meant).mean() < tolerance


@pytest.mark.parametrize("quantize", [None, "float16", "dynamic", "int8", "int16x8"])
def test_any_number_of_images_at_once(resnet20, pictures, tmp_path, quantize):
    path = export.tflite(
        resnet20, tmp_path / "model.tflite", quantize, pictures if quantize in ("int8", "int16x8") else None, batch=None
    )
    assert card_of(path)["input"]["shape"] == [None, 32, 32, 3]
    assert card_of(path)["output"]["shape"] == [None, 10]
    assert set(operators(path)) <= RESIDUAL | {"DEQUANTIZE", "QUANTIZE"}
    alone = export.predict(path, pictures)["probabilities"]
    np.testing.assert_allclose(run_batch(path, pictures), alone, atol=0.02 if quantize == "dynamic" else 1e-5)
    assert np.abs(alone - keras_probabilities(resnet20, pictures)).max() < 0.25


def test_three_images_and_a_network_that_reshapes_them(resnet20, tmp_path):
    three = export.tflite(resnet20, tmp_path / "three.tflite", batch=3)
    assert card_of(three)["input"]["shape"] == [3, 32, 32, 3]
    mlp = kd.HighwayMLP10(classes=4)
    path = export.tflite(mlp, tmp_path / "mlp.tflite", batch=None)
    images = photographs(5, 28, 28)[..., :1]
    expected = export.predict(mlp, images)["probabilities"]
    np.testing.assert_allclose(run_batch(path, images), expected, atol=1e-5)


def test_resnext_is_one_convolution_a_layer(tmp_path):
    model = kd.ResNeXt(blocks=(1, 1, 1, 1), input_shape=(32, 32, 3), classes=5)
    path = export.tflite(model, tmp_path / "model.tflite")
    count = sum(isinstance(layer, keras.layers.Conv2D) for layer in flat_layers(model))
    assert operators(path).count("CONV_2D") == count
    assert operators(path).count("CONCATENATION") == 2  # the border of the stem's pooling
    assert "SPLIT" not in operators(path)
    assert delegated(path) in (1, None)


def test_max_pooling_of_any_sign_and_size(tmp_path):
    rng = np.random.default_rng(0)
    for side, size, strides in ((12, 3, 2), (13, 3, 2), (12, 5, 2), (11, (3, 5), (2, 3)), (9, 3, 1)):
        inputs = keras.Input((side, side, 4))
        layer = layers.MaxPooling2D(size, strides, "symmetric")
        model = keras.Model(inputs, layer(inputs))
        substitute = EdgePaddedMaxPooling2D.from_config(layer.get_config())
        values = rng.normal(-3, 1, (2, side, side, 4)).astype("float32")
        np.testing.assert_array_equal(substitute(values), model(values))


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
        "grey": images[..., :1],
    }
    for name, source in sources.items():
        path = export.tflite(model, tmp_path / f"{name}.tflite", "int8", source)
        assert card_of(path)["calibration_images"] == 60
    contents = [(tmp_path / f"{name}.tflite").read_bytes() for name in sources]
    assert contents[0] == contents[1] == contents[2] == contents[3] != contents[4]
    path = export.tflite(digits[0], tmp_path / "named.tflite", "int8", "digits")
    assert card_of(path)["calibration_images"] == 200


def seen_of(source, most=200):
    """The numbers of the `plain_images` that calibrate."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        views = calibrating.views(source, OneValue(), most)
    return [int(view[0, 1, 1, 0]) - 2 for view in views]


class OneValue:
    def view(self, images):
        return images[:, :2, :2]


def plain_images(count):
    """Image number n has the value n + 2."""
    return np.broadcast_to(np.arange(2, count + 2, dtype="uint8")[:, None, None, None], (count, 4, 4, 3))


@pytest.mark.parametrize("count, most", [(150, 200), (201, 200), (250, 200), (254, 100), (254, 7), (20, 2)])
def test_calibration_images_are_evenly_spaced_whatever_the_source(count, most):
    images = plain_images(count)
    targets = np.arange(count)
    data = tf.data.Dataset.from_tensor_slices((images, targets))
    expected = np.linspace(0, count - 1, min(count, most)).astype(int).tolist()
    assert expected[0] == 0 and len(expected) == min(count, most)
    records = [
        ImageData.from_arrays(images, targets, tuple(map(str, targets))),
        data,
        list(images),
        tuple(images),
        images,
    ]
    for source in records:
        assert seen_of(source, most) == expected
    gaps = np.diff(expected)
    for size in (7, 64):  # of the last batch, which may be smaller, only one image is sure
        found = seen_of(data.batch(size), most)
        assert len(found) == min(count, most) and found[0] == 0
        assert count - found[-1] <= size + max(gaps, default=count)
    unknown = data.filter(lambda image, target: True)
    assert seen_of(unknown, most) == list(range(min(count, most)))
    assert seen_of(data.repeat(), most) == (list(range(count)) * 2)[:most]


def test_calibration_decodes_no_others_than_the_chosen():
    opened = []

    class Counted(ArrayPixels):
        def open(self, payload, window=None, size=None):
            return tf.numpy_function(lambda image: (opened.append(1), image)[1], [payload], tf.uint8)

    store = IndexedStore(Counted(plain_images(250)), np.arange(250), np.arange(250))
    assert len(seen_of(ImageData("", "all", tuple(map(str, range(250))), store), 10)) == len(opened) == 10


def test_calibration_of_records_in_their_order():
    class Records:
        size, image_shape, in_memory = 250, (4, 4, 3), False

        def read(self, seed=None):
            return tf.data.Dataset.from_tensor_slices((plain_images(250), np.arange(250)))

        def open(self, payload, window=None, size=None):
            return payload

    data = ImageData("", "all", tuple(map(str, range(250))), Records())
    assert seen_of(data, 4) == [0, 83, 166, 249]


def test_calibration_images_of_several_sizes(small, tmp_path):
    images = [photographs(1, 16 + number, 20, seed=number)[0] for number in range(30)]
    contents = []
    for number, source in enumerate((images, tuple(images), [*images[:-1], images[-1].astype("float32")])):
        with pytest.warns(UserWarning, match="calibration has only 30 images; use about 200") as said:
            path = export.tflite(small, tmp_path / f"{number}.tflite", "int8", source)
        assert [str(each.message) for each in said if "calibration" in str(each.message)] == [str(said[0].message)]
        assert said[0].filename == __file__ and "\n" not in str(said[0].message)
        assert card_of(path)["calibration_images"] == 30
        contents.append(path.read_bytes())
    assert contents[0] == contents[1] == contents[2]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="calibration")
        path = export.tflite(small, tmp_path / "few.tflite", "int8", images, calibration_images=20)
    assert card_of(path)["calibration_images"] == 20


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
        assert not {"SPLIT", "DEPTHWISE_CONV_2D", "PADV2", "MIRROR_PAD"} & set(operators(path))
        # One part of the graph for XNNPACK, and nothing that its border or its groups leave to slower kernels.
        assert delegated(path) in (1, None)


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


class Table:
    """A flatbuffer's table, read by the numbers that metadata_schema.fbs gives its fields."""

    def __init__(self, data, position):
        self.table = flatbuffers.table.Table(data, position)

    @classmethod
    def root(cls, data):
        return cls(data, flatbuffers.encode.Get(flatbuffers.packer.uoffset, data, 0))

    def _place(self, field):
        offset = self.table.Offset(4 + 2 * field)
        return offset and offset + self.table.Pos

    def string(self, field):
        return self.table.String(self._place(field)).decode()

    def number(self, field, flags):
        return self.table.Get(flags, self._place(field))

    def child(self, field):
        return Table(self.table.Bytes, self.table.Indirect(self._place(field)))

    def children(self, field):
        offset = self.table.Offset(4 + 2 * field)
        start = self.table.Vector(offset)
        return [
            Table(self.table.Bytes, self.table.Indirect(start + 4 * index))
            for index in range(self.table.VectorLen(offset))
        ]

    def floats(self, field):
        offset = self.table.Offset(4 + 2 * field)
        return self.table.GetVectorAsNumpy(flatbuffers.number_types.Float32Flags, offset).tolist()


def metadata_of(path):
    model = flatbuffer(path)
    (entry,) = [entry for entry in model.metadata if entry.name == b"TFLITE_METADATA"]
    return model.buffers[entry.buffer].data.tobytes()


@pytest.mark.parametrize("quantize", [None, "int8"])
def test_metadata_and_labels_lie_in_the_file(small, tmp_path, quantize):
    byte, uint = flatbuffers.number_types.Uint8Flags, flatbuffers.number_types.Uint32Flags
    images = photographs(200, 16, 16)
    path = export.tflite(small, tmp_path / "model.tflite", quantize, images, labels=["Äpfel", "b", "c d", "e"])
    content = metadata_of(path)
    assert content[4:8] == b"M001"
    model = Table.root(content)
    assert (model.string(0), model.string(7)) == ("small", "1.0.0")
    (subgraph,) = model.children(3)
    (source,), (target,) = subgraph.children(2), subgraph.children(3)
    assert (source.string(0), target.string(0)) == ("images", "probabilities")
    assert source.string(1) == "RGB with values 0-255, which the network scales itself."
    image = source.child(3).child(1)
    assert (source.child(3).number(0, byte), target.child(3).number(0, byte)) == (2, 1)  # image, feature
    assert image.number(0, byte) == 1  # RGB
    assert [image.child(1).number(field, uint) for field in (0, 1)] == [16, 16]
    (unit,) = source.children(4)
    assert unit.number(0, byte) == 1  # normalisation
    assert (unit.child(1).floats(0), unit.child(1).floats(1)) == ([0], [1])
    assert [source.child(5).floats(field) for field in (0, 1)] == [[255], [0]]
    assert [target.child(5).floats(field) for field in (0, 1)] == [[1], [0]]
    (labels,) = target.children(6)
    assert (labels.string(0), labels.number(2, byte)) == ("labels.txt", 2)  # names along the axis of the classes
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["labels.txt"] and archive.testzip() is None
        assert archive.getinfo("labels.txt").compress_type == zipfile.ZIP_STORED
        assert archive.read("labels.txt").decode().splitlines() == ["Äpfel", "b", "c d", "e"]
    assert card_of(path)["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_metadata_change_nothing_of_what_the_file_computes(small, tmp_path):
    image = photographs(1, 16, 16)
    path = export.tflite(small, tmp_path / "model.tflite")
    bare = flatbuffer(path)
    assert [entry.name for entry in bare.metadata][-1] == b"TFLITE_METADATA"
    bare.metadata.pop()
    bare.buffers.pop()
    builder = flatbuffers.Builder(1024)
    builder.Finish(bare.Pack(builder), file_identifier=b"TFL3")
    found = []
    for content in (path.read_bytes(), bytes(builder.Output())):
        for make in (open_interpreter, tf.lite.Interpreter):
            interpreter = make(model_content=content)
            interpreter.allocate_tensors()
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image.astype("float32"))
            interpreter.invoke()
            found.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    interpreter = open_interpreter(model_path=str(path))  # mapped into memory
    assert interpreter.get_input_details()[0]["shape"].tolist() == [1, 16, 16, 3]


def test_metadata_of_grey_images(tmp_path):
    path = export.tflite(kd.HighwayMLP10(classes=4), tmp_path / "grey.tflite")
    source = Table.root(metadata_of(path)).children(3)[0].children(2)[0]
    image = source.child(3).child(1)
    assert image.number(0, flatbuffers.number_types.Uint8Flags) == 2
    assert [image.child(1).number(field, flatbuffers.number_types.Uint32Flags) for field in (0, 1)] == [28, 28]


def test_equal_networks_give_equal_files(small, tmp_path):
    contents = [export.tflite(small, tmp_path / f"{number}.tflite").read_bytes() for number in range(2)]
    assert contents[0] == contents[1]


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
        (("model.tflite", "int4"), "quantize='int4' is not one of None, 'float16', 'dynamic', 'int8', 'int16x8'"),
        (("model.tflite", "int8"), "needs calibration: give about 200 typical images"),
        (("model.tflite", "int16x8"), "quantize='int16x8' needs calibration"),
        (("model.tflite", "int8", np.zeros((0, 16, 16, 3), "uint8")), "no images"),
        (("model.tflite", "int8", np.zeros((16, 16, 3), "uint8")), r"shape \(16, 16, 3\); give images \[n, h, w, c\]"),
        (("model.tflite", "int8", np.zeros((2, 16, 16, 5), "uint8")), r"\[h, w, 1 or 3\]"),
        (("model.tflite", "int8", np.full((2, 16, 16, 3), -1.0)), "0–255, not scaled"),
        (("model.tflite", "int8", np.random.default_rng(0).random((2, 16, 16, 3))), "not scaled"),
        (("model.tflite", "int8", tf.data.Dataset.from_tensors({"x": 1})), "calibration must give images"),
        (
            ("model.tflite", "int8", [np.ones((16, 16, 3), "uint8"), np.ones((0, 16, 3), "uint8")]),
            "no pixels; leave it",
        ),
        (("model.tflite", "int8", np.ones((3, 16, 0, 3), "uint8")), r"shape \(16, 0, 3\), so no pixels; leave it out"),
        (("model.tflite", "int8", tf.data.Dataset.from_tensors(np.ones((0, 16, 3), "uint8"))), "which have no pixels"),
        (("model.tflite", "int8", []), "no images"),
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


class Incomplete(keras.layers.Layer):
    """A stranger's layer, in an operation that TFLite lacks."""

    def call(self, x):
        return tf.math.betainc(tf.abs(x) + 1.0, tf.abs(x) + 1.0, tf.sigmoid(x))


def classifier_like(*steps):
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for step in steps:
        x = step(x)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(x)), name="odd")


def test_a_layer_without_a_built_in_operator(tmp_path):
    model = classifier_like(Incomplete())
    message = r"odd cannot be converted with TFLite's built-in operators \(tf.Betainc\); replace the layers that need other operators\."
    with pytest.raises(InputError, match=message) as error:
        export.tflite(model, tmp_path / "new" / "model.tflite")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


class Sine(keras.layers.Layer):
    """A stranger's layer, in an operator that has no 16-bit kernel."""

    def call(self, x):
        return tf.sin(x)


def test_a_layer_that_the_quantiser_refuses(tmp_path):
    images = photographs(200, 8, 8)
    message = r"odd cannot be converted with this quantize \(Quantization to 16x8-bit not .*'SIN'\); give another one, or replace the"
    with pytest.raises(InputError, match=message) as error:
        export.tflite(classifier_like(Sine()), tmp_path / "new" / "model.tflite", "int16x8", images)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_models_and_arguments_that_do_not_fit(small, tmp_path):
    one, two = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Add()([one, two]))
    for model, arguments, message in (
        (keras.Model([one, two], keras.layers.Dense(2)(x)), {}, "2 inputs and 1 outputs"),
        (keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(2)]), {}, "not built"),
        (keras.Model(one, one), {}, r"export takes a classifier \[batch, classes\]"),
        ("small", {}, "takes a keras.Model; it was given a str"),
        (small, {"labels": ["a", "b", "c"]}, "3 labels were given for the 4 outputs"),
        (small, {"labels": "abcd"}, "is one string; give a list of 4 names"),
        (small, {"batch": 0}, "batch=0 is not a whole number from 1, or None"),
        (small, {"batch": True}, "batch=True is not a whole number"),
        (small, {"calibration_images": 0}, "calibration_images=0 is not a whole number from 1; 200 works well"),
    ):
        with pytest.raises(InputError, match=message) as error:
            export.tflite(model, tmp_path / "new" / "model.tflite", **arguments)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []
    path = export.tflite(small, tmp_path / "model.tflite", labels=["a", "b", "c", "d"])
    assert card_of(path)["labels"] == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", ["model.tflite", "model.keras"])
def test_a_full_disk_leaves_what_was_there(small, tmp_path, monkeypatch, name):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    monkeypatch.setattr(keras.Model, "save", full)
    write = export.tflite if name.endswith("tflite") else export.inference_model
    (tmp_path / name).write_text("old")
    for path in (tmp_path / name, tmp_path / "new" / name):
        with pytest.raises(InputError, match="No space left on device; give a writable place"):
            write(small, path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "old"
