import numpy as np
import pytest
from PIL import Image

from keras_deepnets.errors import InputError
from keras_deepnets.insight import draw_curves
from keras_deepnets.insight.curves import _figure, _named


def write(folder, epochs=12, start=0.9, validation=True):
    folder.mkdir()
    names = ["epoch", "step", "learning_rate", "seconds", "images_per_second", "accuracy", "loss"]
    names += ["val_accuracy", "val_loss"] if validation else []
    lines = [",".join(names)]
    for epoch in range(1, epochs + 1):
        error = start * 0.7**epoch
        row = [epoch, 10 * epoch, 0.1, 1.0, 100.0, 1 - error, 2 * error] + [1 - 1.2 * error, 2.4 * error] * validation
        lines.append(",".join(map(str, row)))
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    return folder


def lines_of(figure, title):
    axes = next(axes for axes in figure.axes if axes.get_title(loc="left") == title)
    return {line.get_label(): line for line in axes.lines}


def test_papers_style(tmp_path):
    figure = _figure(_named(write(tmp_path / "resnet20")), None)
    lines = lines_of(figure, "error (%)")
    train, test = lines["train 1.25 %"], lines["test 1.49 %"]
    assert train.get_linestyle() == "--" and test.get_linestyle() == "-"
    assert test.get_linewidth() > 2 * train.get_linewidth()
    np.testing.assert_allclose(test.get_ydata()[0], 100 * 1.2 * 0.9 * 0.7)
    np.testing.assert_allclose(lines_of(figure, "loss")["train 0.025"].get_ydata()[-1], 2 * 0.9 * 0.7**12)


def test_what_was_measured_on_is_named(tmp_path):
    folder = write(tmp_path / "run")
    (folder / "config.json").write_text('{"validation": {"split": "validation"}}')
    assert "validation 1.49 %" in lines_of(_figure(_named(folder), None), "error (%)")
    (folder / "config.json").write_text('{"validation": null}')
    assert "test 1.49 %" in lines_of(_figure(_named(folder), None), "error (%)")


def test_several_runs_are_told_apart(tmp_path):
    runs = {"plain": write(tmp_path / "a"), "residual": write(tmp_path / "b", start=0.5, validation=False)}
    lines = lines_of(_figure(_named(runs), None), "error (%)")
    assert [label.split()[0] for label in lines] == ["plain", "plain", "residual"]
    assert len({line.get_color() for line in lines.values()}) == 2


def test_the_picture(tmp_path):
    path = draw_curves([write(tmp_path / "a"), write(tmp_path / "b", epochs=1)], tmp_path / "curves.png", "Two runs")
    with Image.open(path) as picture:
        assert picture.size == (1440, 810)
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert (pixels == (0, 0x72, 0xB2)).all(1).sum() > 1000  # the first run's colour
    assert (pixels == 255).all(1).mean() > 0.8


def test_nothing_to_draw(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="Cannot read"):
        draw_curves(tmp_path / "empty", tmp_path / "curves.png")
    (tmp_path / "empty" / "metrics.csv").write_text("epoch,loss\n")
    with pytest.raises(InputError, match="has no epoch yet"):
        draw_curves(tmp_path / "empty", tmp_path / "curves.png")
    (tmp_path / "empty" / "metrics.csv").write_text("epoch,loss\n1,many\n")
    with pytest.raises(InputError, match="is not a table of numbers"):
        draw_curves(tmp_path / "empty", tmp_path / "curves.png")
    with pytest.raises(InputError, match="no runs"):
        draw_curves([], tmp_path / "curves.png")


def test_an_outlier_does_not_flatten_the_rest(tmp_path):
    run = write(tmp_path / "run", epochs=5)
    lines = (run / "metrics.csv").read_text().splitlines()
    row = lines[2].split(",")
    row[-1] = "650"
    lines[2] = ",".join(row)
    (run / "metrics.csv").write_text("\n".join(lines) + "\n")
    axes = next(axes for axes in _figure(_named(run), None).axes if axes.get_title(loc="left") == "loss")
    # The first value of the training loss, 2 · 0.9 · 0.7, and that of the test loss, 1.2 times as large, stay visible.
    assert 1.2 * 2 * 0.9 * 0.7 <= axes.get_ylim()[1] < 3
    assert axes.get_title(loc="right") == "highest: 650 in epoch 2"


def test_no_legend_lies_on_a_line(tmp_path):
    runs = {f"run {number}": write(tmp_path / str(number), start=0.9 - 0.1 * number) for number in range(4)}
    figure = _figure(_named(runs), "four")
    figure.canvas.draw()
    for axes in figure.axes:
        if axes.get_legend():
            assert axes.get_legend().get_window_extent().y1 < axes.get_window_extent().y0


def test_names_of_runs_may_have_any_letters(tmp_path):
    path = draw_curves(
        {"$実験$": write(tmp_path / "run"), "другой": write(tmp_path / "other")}, tmp_path / "a.svg", "猫"
    )
    assert path.read_text(encoding="utf-8").startswith("<?xml")
