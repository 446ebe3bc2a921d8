"""The table of engines and precisions, at toy size on the embedded digits."""

import json

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from benchmarks import engines
from keras_deepnets.errors import InputError

pytestmark = pytest.mark.integration

TFLITE = ["tflite", "tflite:float16", "tflite:dynamic", "tflite:int8", "tflite:int16x8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small residual network that has learnt the digits, as a .keras file."""
    train = kd.data.load("digits")
    images, labels = next(iter(train.batches(train.size, image_size=(8, 8), channels=3)))
    keras.utils.set_random_seed(0)
    model = kd.ResNet(
        blocks=(1, 1), filters=(16, 32), stem="cifar", input_shape=(8, 8, 3), classes=10, include_preprocessing=True
    )
    model.labels = list(train.labels)
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(images, labels, epochs=8, batch_size=64, verbose=0)
    path = tmp_path_factory.mktemp("run") / "model.keras"
    model.save(path)
    return path


@pytest.mark.slow
def test_a_row_for_each_file_and_batch(run, capfd):
    words = [str(run), "--data", "digits", "--limit", "150", "--rounds", "5", "--batch", "1,3", "--json"]
    assert engines.main([*words, "--files", ",".join(["savedmodel", *TFLITE])]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    rows = json.loads(out)["rows"]
    assert [(row["file"], row["batch"]) for row in rows] == [
        *((file, 1) for file in ("savedmodel", *TFLITE)),
        ("savedmodel", 3),
    ]
    assert {row["family"] for row in rows} == {"ResNet"}
    exact = rows[0]
    assert exact["accuracy"] > 0.9 and exact["points"] == 0 and exact["speedup"] == 1
    sizes = {row["file"]: row["bytes"] for row in rows}
    assert sizes["tflite:float16"] < 0.6 * sizes["tflite"] and sizes["tflite:int8"] < 0.4 * sizes["tflite"]
    for row in rows:
        assert row["points"] == pytest.approx(100 * (row["accuracy"] - exact["accuracy"]))
        assert abs(row["points"]) <= 2
        assert 0 < row["milliseconds"] <= row["milliseconds_99"]
        assert row["images_per_second"] == pytest.approx(1e3 * row["batch"] / row["milliseconds"])
    test = kd.data.load("digits", split="test").take(150)
    images, labels = next(iter(test.batches(150, image_size=(8, 8), channels=3)))
    model = keras.saving.load_model(run, compile=False)
    assert exact["accuracy"] == (model.predict(images, verbose=0).argmax(-1) == labels.numpy()).mean()


def test_other_engines(run, capfd):
    for name in ("openvino", "nncf", "onnx", "tf2onnx", "onnxruntime"):
        pytest.importorskip(name)
    files = ["openvino", "openvino:int8", "onnx", "onnx:int8"]
    words = [str(run), "--data", "digits", "--limit", "100", "--rounds", "5", "--batch", "2", "--json"]
    assert engines.main([*words, "--files", ",".join(files)]) == 0
    rows = json.loads(capfd.readouterr().out)["rows"]
    assert [row["file"] for row in rows] == files
    assert rows[2]["points"] == 0 and all(abs(row["points"]) <= 2 for row in rows)


def test_the_table(run, capfd):
    words = [str(run), "--data", "digits", "--limit", "50", "--rounds", "5", "--threads", "1"]
    assert engines.main([*words, "--files", "tflite,tflite:int8"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["network", "family", "file", "accuracy", "points"]
    assert [line.split()[2] for line in lines[1:3]] == ["tflite", "tflite:int8"]
    assert lines[3].startswith("1 threads. Median")


def test_speed_of_a_named_network(capfd):
    assert engines.main(["fitnet1", "--speed", "--files", "tflite,tflite:int8", "--rounds", "5", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["rows"]
    assert [row["accuracy"] for row in rows] == [None, None]
    assert rows[1]["bytes"] < 0.5 * rows[0]["bytes"]


@pytest.mark.parametrize(
    "words, message",
    [
        ("resnet20", "give --data FOLDER for trained networks, or --speed for named ones."),
        ("resnet20 --speed --data digits", "give --data FOLDER for trained networks, or --speed for named ones."),
        ("resnet20 --data digits", "resnet20 is a network without trained weights"),
        ("none.keras --data digits", "none.keras does not exist"),
        ("resnet0 --speed", "resnet0"),
        ("resnet20 --speed --files tflite:int4", "--files 'tflite:int4' is not FORMAT or FORMAT:PRECISION of"),
        ("resnet20 --speed --files torch", "--files 'torch' is not FORMAT or FORMAT:PRECISION of savedmodel (float32,"),
        ("resnet20 --speed --batch 1,16 --files tflite", "--batch '1,16': TFLite files run one image at a time"),
        ("resnet20 --speed --batch 0", "--batch '0' is not a list of whole numbers of at least 1"),
        ("resnet20 --speed --threads 0", "--threads 0 must be at least 1."),
    ],
)
def test_bad_input_is_one_line(capfd, words, message):
    assert engines.main(words.split()) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert message in err


def test_data_of_other_classes(run):
    model = keras.saving.load_model(run, compile=False)
    data = kd.data.ImageData.from_arrays(np.zeros((2, 8, 8, 3), "uint8"), np.array([0, 1]), ("cat", "dog"))
    with pytest.raises(InputError, match=r"has 10 classes \('0' …\) and the data has 2 \('cat' …\)"):
        engines.measure(model, "run", ["tflite"], data, data)


def test_a_new_network_is_measured_with_settled_statistics():
    """With folded biases of zero, TensorFlow alone would be measured without its fused ReLUs."""
    model, images, test = engines._material("resnet20", None, None)
    shifts = [weight for weight in model.weights if weight.name in ("beta", "moving_mean")]
    assert shifts and all(np.ptp(weight.numpy()) > 0.1 for weight in shifts)
    assert test is None and len(images) == 10
