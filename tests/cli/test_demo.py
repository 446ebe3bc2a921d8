"""The main job, and what it says when its result is not good enough."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from keras_deepnets import training
from keras_deepnets.cli import demo
from keras_deepnets.cli.problems import CheckFailed


@pytest.mark.slow
def test_the_demo(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("demo")
    assert (done.status, done.err) == (0, "")
    assert float(re.search(r"Test accuracy ([\d.]+) %", done.out)[1]) >= 97
    assert re.search(r"\nDone in \d+ s\.\n$", done.out)
    for name in ("SavedModel", "TFLite float32", "TFLite int8"):
        (row,) = [line for line in done.out.split("4/6")[1].splitlines() if line.startswith(f"{name} ")]
        difference, same = re.search(r"([\d.e+-]+) +([\d.]+) % +[\d.]+ %$", row).groups()
        assert float(difference) < (0.2 if "int8" in name else 1e-4)
        assert float(same) >= (98 if "int8" in name else 100)
    named = re.findall(r"digit-(\d)\.png  (\d)  [\d.]+ %", done.out)
    assert len(named) == 10
    assert sum(shown == said for shown, said in named) >= 9
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert made >= {f"demo/{name}" for name in demo._MADE}
    assert Path("demo/run/curves.png").read_bytes().startswith(b"\x89PNG")

    for line in done.out.split("\nNext:\n")[1].splitlines()[:2]:
        program, *words = shlex.split(line)
        assert program == "keras-deepnets"
        assert cli(*words).status == 0

    again = cli("demo")
    assert again.status == 0
    assert "demo/run already holds this run" in again.out
    assert [path.name for path in Path("demo/savedmodel").iterdir()] == ["1"]


def test_an_accuracy_that_is_too_low_ends_it(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "train", lambda *args, **kwargs: SimpleNamespace(model=None), raising=False)
    result = training.Evaluation(0.965, 1.0, 0.1, 360, {}, 1000.0, np.zeros((10, 10), int))
    monkeypatch.setattr(training, "evaluate", lambda *args, **kwargs: result)
    done = cli("demo", "--out", tmp_path)
    assert done.status == 1
    assert done.err == (
        "keras-deepnets: failed: the test accuracy is 96.50 % and should be at least 97.00 %; "
        f"see the training curves in {tmp_path / 'run' / 'curves.png'}.\n"
    )


def test_agreement_is_measured_on_every_probability():
    expected = np.array([[0.8, 0.1, 0.1], [0.3, 0.4, 0.3], [0.2, 0.2, 0.6], [0.9, 0.1, 0.0]], "float32")
    found = expected + np.array([[0, 0, 0], [0.2, -0.2, 0], [0, 0, 0], [0, 0, 0]], "float32")
    truth = np.array([0, 0, 2, 1])
    exact = demo._agreement("TFLite float32", Path("a"), found, expected, truth)
    assert exact.max_difference == pytest.approx(0.2)
    assert (exact.same_top1, exact.accuracy, exact.holds) == (0.75, 0.75, False)
    assert demo._agreement("TFLite float32", Path("a"), expected + 1e-5, expected, truth).holds
    assert not demo._agreement("TFLite float32", Path("a"), expected + 0.01, expected, truth).holds
    assert demo._agreement("TFLite int8", Path("a"), expected + 0.01, expected, truth).holds
    assert not demo._agreement("TFLite int8", Path("a"), found, expected, truth).holds


def test_an_export_that_predicts_otherwise_ends_it(capsys):
    bad = demo.Agreement("SavedModel", Path("demo/savedmodel/1"), 0.5, 0.9, 0.9, 1e-3, 1.0)
    with pytest.raises(
        CheckFailed, match=r"demo/savedmodel/1 does not agree .* 5\.0e-01, and the top class is the same for 90\.00 %"
    ):
        demo.print_agreements([bad])
    assert "SavedModel" in capsys.readouterr().out


def test_a_folder_that_cannot_be_used(cli, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("Dear")
    done = cli("demo", "--out", tmp_path)
    assert done.status == 2
    assert done.err.startswith(f"keras-deepnets: error: Run folder {tmp_path / 'run'} holds other files")
    assert done.err.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "letter.txt"]
