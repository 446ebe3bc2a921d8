"""The files: CSV and pictures."""

import dataclasses

from PIL import Image

from benchmarks import memory
from keras_deepnets.benchmark import chart, load
from keras_deepnets.benchmark.load import Bystander
from keras_deepnets.benchmark.results import Result, read_csv, threads, write_csv


def result(**values):
    kinds = {"str": "", "int": 1, "float": 1.0}
    plain = {field.name: kinds.get(field.type) for field in dataclasses.fields(Result)}
    return Result(**plain | values)


def pair(model, against, ours, theirs, **values):
    values |= {"model": model, "against": against, "mode": "train", "dtype": "float32", "ratio": ours / theirs}
    return [result(side=side, images_per_second=speed, **values) for side, speed in (("ours", ours), (against, theirs))]


def test_csv(tmp_path):
    rows = pair("resnet20", "keras-twin", 2345.678, 1000.0, versions="keras 3.15, a 1", activation_bytes=123456789)
    write_csv(tmp_path / "b.csv", rows, ["keras-deepnets", "benchmark", "a b"])
    lines = (tmp_path / "b.csv").read_text().splitlines()
    comments = dict(line.removeprefix("# ").split(": ", 1) for line in lines if line.startswith("#"))
    assert comments["command"] == "keras-deepnets benchmark 'a b'"
    assert comments["threads"] == str(threads())
    assert comments["date"].startswith("20")
    assert set(comments) == {"date", "machine", "threads", "python", "command"}
    ours, theirs = read_csv(tmp_path / "b.csv")
    assert list(ours) == [field.name for field in dataclasses.fields(Result)]
    assert (ours["side"], theirs["side"]) == ("ours", "keras-twin")
    assert (ours["images_per_second"], ours["ratio"]) == ("2345.68", "2.34568")
    assert ours["activation_bytes"] == "123456789"
    assert ours["versions"] == "keras 3.15, a 1"
    assert ours["share_of_ceiling"] == ""


def test_chart(tmp_path):
    rows = [
        *pair("resnet20", "keras-twin", 1000.0, 500.0, image_size=32),
        *pair("resnet20", "pytorchcv", 1000.0, 900.0, image_size=32),
        *pair("resnet50", "keras.applications", 14.0, 8.0, image_size=224),
        result(model="highway1", mode="train", side="ours", images_per_second=3.0),
    ]
    figure = chart.figure(rows, "here")
    first, second, third = (panel for panel in figure.axes if panel.get_visible())
    assert [panel.get_title(loc="left") for panel in (first, second)] == [
        "resnet20, training, 32 × 32 pixels",
        "resnet50, training, 224 × 224 pixels",
    ]
    assert [bar.get_height() for bar in first.patches] == [1000, 500, 1000, 900]
    texts = [text.get_text() for text in first.texts]
    assert [text for text in texts if text.endswith("×")] == ["2.00×", "1.11×"]
    assert [text.get_text() for text in second.texts] == ["14", "8", "1.75×"]
    assert len(third.patches) == 1
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["ours", "stock Keras twin", "pytorchcv", "keras.applications"]
    path = chart.draw_bars(rows, tmp_path / "b.png")
    with Image.open(path) as image:
        assert min(image.size) > 600


def point(depth, efficient, gigabytes):
    kinds = {"str": "float32", "int": 1, "float": 1.0}
    plain = {field.name: kinds.get(field.type) for field in dataclasses.fields(memory.Point)}
    values = {"depth": depth, "memory_efficient": efficient, "activation_bytes": int(1e9 * gigabytes)}
    return memory.Point(**plain | values)


def test_memory_curves(tmp_path):
    points = [point(40, False, 1.0), point(40, True, 0.5), point(100, False, 4.0), point(100, True, 1.5)]
    figure = memory.figure(points)
    panel, _ = figure.axes
    assert panel.get_title(loc="left") == "peak memory of a step (GB)"
    assert panel.get_xlabel() == "depth (layers)"
    curves = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in panel.lines}
    assert curves == {"plain": ([40, 100], [1.0, 4.0]), "memory_efficient=True": ([40, 100], [0.5, 1.5])}
    assert memory.draw_curves(points, tmp_path / "m.png").stat().st_size > 10_000


def test_how_busy_the_machine_is():
    others = Bystander().others()
    assert others is None or 0 <= others <= threads()


def test_what_is_too_busy(monkeypatch):
    monkeypatch.setattr(load, "threads", lambda: 8)
    assert not load.is_noise(None)
    assert [load.is_noise(others) for others in (0.0, 0.7, 0.9)] == [False, False, True]
    # Whoever uses two of eight processors leaves six to the others.
    assert [load.is_noise(others, 2) for others in (0.9, 6.7, 6.9)] == [False, False, True]


def test_bars_are_hatched_where_the_machine_was_busy():
    rows = pair("resnet20", "keras-twin", 9.0, 5.0, threads=threads())
    for others, hatch in ((0.0, None), (float(threads()), "///")):
        figure = chart.figure([dataclasses.replace(row, others_busy=others) for row in rows], "here")
        assert [bar.get_hatch() for bar in figure.axes[0].patches] == [hatch, hatch]
        assert ("Hatched: " in figure.get_supxlabel()) == (hatch is not None)
