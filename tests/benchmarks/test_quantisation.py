"""The table of what quantisation costs, at toy size on the embedded digits."""

import json

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from benchmarks import quantisation
from keras_deepnets.errors import InputError

pytestmark = pytest.mark.integration

QUANTIZATIONS = ["float16", "dynamic", "int8", "int16x8"]


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
def test_a_row_for_each_quantisation(run, capfd):
    words = [str(run), "--data", "digits", "--limit", "150", "--rounds", "5", "--json"]
    assert quantisation.main(words) == 0
    out, err = capfd.readouterr()
    assert err == ""
    rows = json.loads(out)["rows"]
    assert [row["quantize"] for row in rows] == ["float32", *QUANTIZATIONS]
    assert {row["family"] for row in rows} == {"ResNet"}
    exact = rows[0]
    assert exact["accuracy"] > 0.9 and exact["points"] == 0 and exact["speedup"] == 1
    sizes = {row["quantize"]: row["bytes"] for row in rows}
    assert sizes["float16"] < 0.6 * sizes["float32"] and sizes["int8"] < 0.4 * sizes["float32"]
    for row in rows:
        assert row["points"] == pytest.approx(100 * (row["accuracy"] - exact["accuracy"]))
        assert abs(row["points"]) <= 2
        assert 0 < row["fastest"] <= row["milliseconds"]
    test = kd.data.load("digits", split="test").take(150)
    images, labels = next(iter(test.batches(150, image_size=(8, 8), channels=3)))
    model = keras.saving.load_model(run, compile=False)
    assert exact["accuracy"] == (model.predict(images, verbose=0).argmax(-1) == labels.numpy()).mean()


def test_the_table(run, capfd):
    words = [str(run), "--data", "digits", "--limit", "50", "--rounds", "5", "--quantize", "int8", "--threads", "1"]
    assert quantisation.main(words) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["network", "family", "file", "accuracy", "points"]
    assert [line.split()[2] for line in lines[1:3]] == ["float32", "int8"]
    assert lines[3].startswith("One image per call, 1 threads")


def test_speed_of_a_named_network(capfd):
    assert quantisation.main(["fitnet1", "--speed", "--quantize", "int8", "--rounds", "5", "--json"]) == 0
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
        ("resnet20 --speed --quantize int4", "--quantize 'int4' is not one of float16, dynamic, int8, int16x8."),
        ("resnet20 --speed --threads 0", "--threads 0 must be at least 1."),
    ],
)
def test_bad_input_is_one_line(capfd, words, message):
    assert quantisation.main(words.split()) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert message in err


def test_data_of_other_classes(run):
    model = keras.saving.load_model(run, compile=False)
    data = kd.data.ImageData.from_arrays(np.zeros((2, 8, 8, 3), "uint8"), np.array([0, 1]), ("cat", "dog"))
    with pytest.raises(InputError, match=r"has 10 classes \('0' …\) and the data has 2 \('cat' …\)"):
        quantisation.measure(model, "run", ["int8"], data, data)
