"""What exporting a network takes, on small ones."""

import json
import subprocess
import sys

import pytest

from benchmarks import exports

KINDS = ("saved_model", "tflite", "tflite_float16")


@pytest.mark.slow
def test_a_row_of_each_network(capfd):
    assert exports.main(["fitnet1", "highwaymlp10", "--size", "28", "--json"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    rows = json.loads(out)["rows"]
    assert [(row["name"], row["size"]) for row in rows] == [("fitnet1", 28), ("highwaymlp10", 28)]
    for row in rows:
        for kind in KINDS:
            assert row[f"{kind}_seconds"] > 0 and row[f"{kind}_load_seconds"] > 0
            assert row[f"{kind}_difference"] <= (1e-2 if kind == "tflite_float16" else 1e-4)
        assert row["tflite_float16_difference"] > 0
        assert row["tflite_float16_bytes"] < 0.7 * row["tflite_bytes"]
        assert row["saved_model_bytes"] > 0.9 * row["tflite_bytes"]


def test_the_table(capfd):
    assert exports.main(["highwaymlp10"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[0].split() == ["network", "image", "file", "written", "size", "loaded", "difference"]
    assert [" ".join(line.split()[:4]) for line in lines[1:4]] == [
        "highwaymlp10 28² saved model",
        f"highwaymlp10 28² tflite {lines[2].split()[3]}",
        "highwaymlp10 28² tflite float16",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [("resnet20 --size 0", "--size 0 must be at least 1."), ("resnet2 --size 32", "resnet2")],
)
def test_bad_input_is_told_at_once(words, message, capfd):
    assert exports.main(words.split()) == 2
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and message in err


def test_help_needs_no_framework():
    code = "import sys\nfrom benchmarks import exports\nassert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
