"""What a deep network takes, on shallow ones."""

import json
import subprocess
import sys

import pytest

import keras_deepnets as kd
from benchmarks import depth


@pytest.mark.slow
def test_a_row_of_each_network_from_a_process_of_its_own(capfd):
    assert depth.main(["resnet20", "highwaymlp10", "--batch", "2", "--steps", "1", "--json"]) == 0
    rows = json.loads(capfd.readouterr().out)["rows"]
    assert [(row["name"], row["parameters"]) for row in rows] == [
        (name, kd.model_info(name).parameters) for name in ("resnet20", "highwaymlp10")
    ]
    for row in rows:
        assert row["first_step"] > row["step"] > 0 and min(row["build"], row["save"], row["load"]) > 0


@pytest.mark.slow
def test_what_stochastic_depth_saves(capfd, monkeypatch):
    # Of twenty layers in the place of 110.
    from keras_deepnets import registry

    def small(name, final_survival=0.5):
        drop = 1 - final_survival
        return kd.ResNet(depth=20, stem="cifar", shortcut="A", drop_unit="batch", stochastic_depth=drop)

    monkeypatch.setattr(registry, "create_model", small)
    row = depth.skipping("stochasticdepthresnet110", 2, 2)
    assert row["survival"] == pytest.approx(1 - 0.5 * 5 / 9)
    assert row["ratio"] == row["dropping"] / row["surviving"] > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("resnet20 --batch 0", "--batch 0 must be at least 1."),
        ("resnet2", "resnet2"),
        ("resnet20 --skipping", "resnet20 does not have; name a stochasticdepth network"),
    ],
)
def test_bad_input_is_told_at_once(words, message, capfd):
    assert depth.main(words.split()) == 2
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and message in err


def test_help_needs_no_framework():
    code = "import sys\nfrom benchmarks import depth\nassert not {'tensorflow', 'keras'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
