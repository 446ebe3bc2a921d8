"""What the command says of models whose input scaling is not known."""

import json

import keras

import keras_deepnets as kd
from keras_deepnets.cli import main


def export(source, out):
    return main(["export", str(source), str(out), "--format", "savedmodel"])


def test_a_strangers_model_is_exported_with_a_line(tmp_path, capsys):
    inputs = keras.Input((8, 8, 3))
    outputs = keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(inputs))
    keras.Model(inputs, outputs, name="own").save(tmp_path / "own.keras")
    assert export(tmp_path / "own.keras", tmp_path / "served") == 0
    assert "Warning: own: it is not known how its input is scaled" in capsys.readouterr().err
    card = json.loads(next((tmp_path / "served").rglob("model_card.json")).read_text())
    assert card["input"]["values"] == "0-255; not scaled: it is not known how" and card["scaling"] is None


def test_a_network_of_ours_is_refused(tmp_path, capsys):
    network = kd.ResNet(blocks=(1, 1), filters=(8, 16), stem="cifar", input_shape=(8, 8, 3))
    keras.Model.from_config(network.get_config()).save(tmp_path / "bare.keras")
    assert export(tmp_path / "bare.keras", tmp_path / "none") == 2
    captured = capsys.readouterr()
    assert "it is not known how this network's input is scaled" in captured.err
    assert len(captured.err.strip().splitlines()) == 1 and not captured.out
    assert not (tmp_path / "none").exists()
