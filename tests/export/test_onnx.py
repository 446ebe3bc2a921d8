"""ONNX files: the numbers of the Keras model in onnxruntime, names and labels inside. Needs the extra `onnx`."""

import json

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import export
from keras_deepnets.errors import InputError
from keras_deepnets.export import onnx_export
from tests.export.conftest import keras_probabilities, photographs, unsettle


@pytest.fixture
def converter():
    for name in ("onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(name)


def residual():
    return kd.ResNet20(input_shape=(16, 16, 3), include_preprocessing=True)


MAKERS = {
    "residual": residual,
    "pre-activation": lambda: kd.PreActResNet(depth=20, stem="cifar", input_shape=(16, 16, 3)),
    "stem and groups": lambda: kd.ResNeXt(blocks=(1, 1, 1, 1), input_shape=(32, 32, 3), classes=5),
    "maxout": lambda: kd.FitNet1(input_shape=(16, 16, 3)),
    "grey": lambda: kd.HighwayMLP10(classes=4),
    "dense": lambda: kd.DenseNet(depth=10, stem="cifar", growth_rate=12, bottleneck=False, input_shape=(16, 16, 3)),
    "dense, recomputed": lambda: kd.DenseNet(
        depth=16, stem="cifar", growth_rate=12, memory_efficient=True, input_shape=(16, 16, 3)
    ),
    "wide": lambda: kd.WideResNet(depth=10, widen_factor=2, input_shape=(16, 16, 3)),
    "highway": lambda: kd.Highway(filters=(16, 32), convolutions=(2, 2), hidden=32, input_shape=(16, 16, 3)),
    "blocks": lambda: kd.ResNet(depth=14, stem="cifar", block_layers=True, input_shape=(16, 16, 3)),
    "vgg": lambda: kd.VGG(
        convolutions=(1, 2), filters=(16, 32), hidden=(24,), batch_norm=True, pooled_size=3, input_shape=(24, 20, 3)
    ),
    "inception": lambda: kd.GoogLeNet(
        modules=[[[8, 4, 8, 4, 8, 4]] * 2, [[8, 4, 8, 4, 8, 4]]], input_shape=(41, 32, 3)
    ),
    "inception with batch normalisation": lambda: kd.BNInception(
        modules=[[[8, 4, 8, 4, 8, 4], [0, 4, 8, 4, 8, 0]], [[8, 4, 8, 4, 8, 4]]], input_shape=(32, 32, 3)
    ),
    "network in network": lambda: kd.NIN(pool2="avg", input_shape=(13, 16, 3)),
    "symmetric pooling": lambda: kd.NIN(pool2="avg", pool_padding="symmetric", input_shape=(13, 16, 3)),
    "all convolutional": lambda: kd.AllCNN_C(input_shape=(16, 16, 3)),
    "auxiliary": lambda: kd.DSN(auxiliary=True, input_shape=(8, 8, 3)),
    "fractal": lambda: kd.FractalNet(filters=(16, 24), dropout=0.1, input_shape=(16, 16, 3)),
    "maxout network": lambda: kd.MaxoutCNN(filters=(16, 16, 16), hidden=(24,), hidden_pieces=3),
    "prelu": lambda: kd.PReLUNet(
        convolutions=(1, 2), filters=(16, 32), stem_filters=16, hidden=(24,), input_shape=(64, 48, 3)
    ),
    "logits": lambda: kd.PlainNet20(input_shape=(16, 16, 3), classifier_activation=None),
}


@pytest.mark.parametrize("name", MAKERS)
def test_onnxruntime_gives_what_keras_gives(converter, tmp_path, name):
    keras.utils.set_random_seed(3)
    model = unsettle(MAKERS[name]())
    height, width, channels = model.input_shape[1:]
    images = photographs(5, height, width)[..., :channels]
    path = export.onnx(model, tmp_path / "model.onnx")
    expected = export.predict(model, images)
    found = export.predict(path, images)
    np.testing.assert_allclose(found["probabilities"], expected["probabilities"], atol=1e-4)
    assert list(found["labels"]) == list(expected["labels"])


@pytest.mark.slow
def test_int8_keeps_the_accuracy_of_a_trained_network(converter, tmp_path):
    from keras_deepnets import data, training

    trained = training.train("resnet20", "digits", recipe="fast", epochs=6, run_dir=tmp_path / "run", verbose=0)
    pairs = [(np.asarray(image), int(label)) for image, label in data.load("digits", "test").examples()]
    images, labels = np.stack([np.repeat(image, 3, -1)[..., :3] for image, _ in pairs]), [each for _, each in pairs]
    path = export.onnx(trained.model, tmp_path / "model.onnx", quantize="int8", calibration="digits")
    plain = export.onnx(trained.model, tmp_path / "plain.onnx")
    accuracy, exact = ((export.predict(each, images)["classes"] == labels).mean() for each in (path, plain))
    assert exact > 0.9 and accuracy > exact - 0.01
    assert path.stat().st_size < 0.4 * plain.stat().st_size
    card = json.loads((tmp_path / "model.onnx.json").read_text())
    assert card["quantize"] == "int8" and list(export.predict(path, images)["labels"])


def test_int8_has_integer_weights(converter, small, tmp_path):
    import onnx as library

    calibration = photographs(4, 16, 16)
    with pytest.warns(UserWarning, match="only 4 images"):
        path = export.onnx(small, tmp_path / "model.onnx", quantize="int8", calibration=calibration)
    graph = library.load(path).graph
    kernels = [each for each in graph.initializer if len(each.dims) == 4]
    assert kernels and {each.data_type for each in kernels} == {library.TensorProto.INT8}
    assert all(abs(library.numpy_helper.to_array(each).astype(int)).max() <= 64 for each in kernels)
    found, exact = (export.predict(each, calibration)["probabilities"] for each in (path, small))
    np.testing.assert_allclose(found, exact, atol=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int4", "calibration": "digits"}, "quantize='int4' is not 'int8' or None"),
        ({"quantize": "int8"}, "quantize='int8' needs calibration images"),
        ({"calibration": "digits"}, "quantize=None takes no calibration images"),
    ],
)
def test_wrong_options_write_nothing(small, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export.onnx(small, tmp_path / "model.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_names_labels_and_scaling_lie_in_the_file(converter, resnet20, pictures, tmp_path):
    path = export.onnx(resnet20, tmp_path / "model.onnx")
    session = onnx_export.open_session(str(path))
    (source,), (target,) = session.get_inputs(), session.get_outputs()
    assert (source.name, source.shape, source.type) == ("images", ["batch", 32, 32, 3], "tensor(float)")
    assert (target.name, target.shape) == ("probabilities", ["batch", 10])
    inside = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
    card = json.loads((tmp_path / "model.onnx.json").read_text())
    assert inside["labels"] == card["labels"] == list(resnet20.labels)
    assert inside["scaling"] == card["scaling"] == resnet20.scaling.to_dict()
    for count in (1, 6):
        found = onnx_export.run(session, pictures[:count])
        np.testing.assert_allclose(found, keras_probabilities(resnet20, pictures[:count]), atol=1e-4)
    named = export.onnx(resnet20, tmp_path / "named.onnx", labels=list("abcdefghij"))
    assert set(export.predict(named, pictures)["labels"]) <= set("abcdefghij")


def test_a_file_that_is_not_ours(converter, small, tmp_path):
    path = export.onnx(small, tmp_path / "model.onnx")
    images = photographs(1, 16, 16)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="the file is damaged, or belongs to another JSON"):
        export.predict(path, images)
    (tmp_path / "model.onnx.json").unlink()
    with pytest.raises(InputError, match=r"model.onnx.json cannot be read .* keep them together"):
        export.predict(path, images)


def test_what_differs_is_not_written(converter, small, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "run", lambda session, images: np.full((len(images), 4), 0.25, "float32"))
    with pytest.raises(RuntimeError, match="the ONNX file of small differs from the model by"):
        export.onnx(small, tmp_path / "new" / "model.onnx")
    assert list(tmp_path.iterdir()) == []


class Incomplete(keras.layers.Layer):
    """A stranger's layer, in an operation that ONNX lacks."""

    def call(self, x):
        import tensorflow as tf

        return tf.math.betainc(tf.abs(x) + 1.0, tf.abs(x) + 1.0, tf.sigmoid(x))


def test_a_layer_without_an_operator(converter, tmp_path):
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(3)(keras.layers.Flatten()(Incomplete()(inputs)))
    with pytest.raises(
        InputError,
        match=r"odd cannot be converted to ONNX \(No Op registered for Betainc .*\); replace the named layers",
    ) as error:
        export.onnx(keras.Model(inputs, outputs, name="odd"), tmp_path / "new" / "model.onnx")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_without_the_packages(small, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, "find_spec", lambda name: None)
    with pytest.raises(
        InputError, match=r"needs onnx and tf2onnx, not installed here: pip install 'keras-deepnets\[onnx\]'"
    ):
        export.onnx(small, tmp_path / "model.onnx")
    with pytest.raises(InputError, match=r"does not end in .onnx"):
        export.onnx(small, tmp_path / "model.bin")
    assert list(tmp_path.iterdir()) == []
