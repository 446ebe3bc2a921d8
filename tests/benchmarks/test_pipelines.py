"""The comparison of input pipelines: what each side returns, the random box, and the table."""

import itertools

import numpy as np
import pytest

from benchmarks import pipelines
from keras_deepnets.benchmark.pipeline import photograph


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("photographs")
    for number in range(4):
        path = made / ("even", "odd")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(photograph(number))
    return made


@pytest.mark.parametrize("jitter", [0.0, 0.4])
@pytest.mark.parametrize("side", ["ours", "tf.data"])
def test_a_side_gives_batches_without_end(side, jitter, folder):
    make, package = pipelines.SIDES[side]
    assert pipelines._there(package)
    assert list(itertools.islice(make(folder, jitter), 3)) == [pipelines.BATCH] * 3


def test_a_side_is_measured_in_a_process(folder):
    assert pipelines._in_a_process("ours", folder, 0.4, 0.2) > 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sides", "ours,pillow"], "--sides 'pillow' is not one of ours, tf.data"),
        ([], "holds no folder with JPEG files"),
        (["--jitter", "1.5"], "--jitter 1.5 is not at least 0 and below 1"),
    ],
)
def test_what_cannot_be_measured(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["pipelines", str(tmp_path), *words])
    with pytest.raises(SystemExit) as stop:
        pipelines.main()
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_random_boxes_fit_and_have_the_areas_and_ratios_asked_for():
    rng = np.random.default_rng(0)
    boxes = np.array([pipelines._box(500, 375, rng) for _ in range(2000)])
    left, top, width, height = boxes.T
    assert left.min() >= 0 and top.min() >= 0
    assert (left + width).max() <= 500 and (top + height).max() <= 375
    share, ratio = width * height / (500 * 375), width / height
    assert share.min() == pytest.approx(0.08, abs=0.01) and share.max() > 0.9
    assert ratio.min() == pytest.approx(0.75, abs=0.02) and ratio.max() == pytest.approx(4 / 3, abs=0.02)
    assert pipelines._box(1000, 10, rng) == (493.5, 0.0, 13, 10)


def test_the_table_has_medians_and_ratios_of_the_same_round():
    table = pipelines.table({"ours": [100.0, 300.0, 200.0], "dali": [100.0, 100.0, 50.0]})
    assert table.splitlines()[2:] == ["| ours | 200 | 100, 300 |  |", "| dali | 100 | 50, 100 | 3.00 |"]
