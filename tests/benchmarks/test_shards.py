"""The benchmark of the memory over an epoch of shards, on a tiny data set."""

import csv

import pytest

from benchmarks import shards

pytestmark = pytest.mark.integration


def test_the_benchmark(tmp_path, capsys):
    words = ["--shards", "4", "--images", "64", "--side", "24", "--image-size", "16", "--batch", "16", "--epochs", "2"]
    status = shards.main([*words, "--out", str(tmp_path)])
    assert "4 shards, 64 images" in capsys.readouterr().out
    with (tmp_path / shards.CSV).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["images"]) for row in rows] == [16 * number for number in range(1, 9)]
    assert (tmp_path / shards.PICTURE).exists() and status in (0, 1)


def test_growth():
    points = [shards.Point(1, epoch, 0.0, memory) for epoch, memory in ((0.5, 50), (1.0, 100), (1.5, 105), (2.0, 120))]
    assert shards.growth(points) == 120 / 100 - 1
