"""Ours and keras.applications as SavedModels, side by side; the networks are small ones here."""

import subprocess
import sys

import keras
import pytest

import keras_deepnets as kd
from benchmarks import serving
from keras_deepnets.benchmark.results import read_csv


@pytest.fixture
def small_networks(monkeypatch):
    monkeypatch.setattr(kd, "create_model", lambda name: kd.ResNet20())
    monkeypatch.setattr(keras.applications, "ResNet50", lambda weights: kd.ResNet20(name="theirs"))


@pytest.mark.slow
def test_both_are_written_loaded_and_called_in_turn(small_networks, tmp_path, capsys):
    assert serving.main(["resnet50", "--batch", "1,4", "--pairs", "3", "--out", str(tmp_path)]) == 0
    rows = read_csv(tmp_path / serving.CSV)
    assert [(row["model"], row["batch"], row["pairs"]) for row in rows] == [
        ("resnet50", "1", "3"),
        ("resnet50", "4", "3"),
    ]
    for row in rows:
        for name in ("ms", "first_seconds", "export_seconds", "load_seconds", "bytes"):
            assert float(row[f"ours_{name}"]) > 0 and float(row[f"theirs_{name}"]) > 0
        assert float(row["ratio"]) > 0 and float(row["ratio_of_best"]) > 0
    printed = capsys.readouterr().out
    assert "resnet50, batch 4: " in printed and "exported in " in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--batch 0", "--batch '0' is not a whole number from 1."),
        ("--pairs x", "--pairs 'x' is not a whole number from 1."),
        ("--precision int8", "--precision 'int8' is not one of float32, bfloat16, float16."),
    ],
)
def test_bad_input_is_told_at_once(words, message, capsys):
    assert serving.main(["resnet50", *words.split()]) == 2
    assert capsys.readouterr().err == f"python -m benchmarks.serving: {message}\n"


def test_help_needs_no_framework():
    code = "import sys\nfrom benchmarks import serving\nassert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
