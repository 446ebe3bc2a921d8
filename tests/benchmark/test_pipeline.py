"""What the input pipeline delivers, measured with a clock of our own and with the real one."""

import io
import itertools
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_deepnets import data
from keras_deepnets.benchmark import pipeline
from keras_deepnets.benchmark.results import read_csv
from tests.cli.conftest import cli  # noqa: F401 - a fixture
from tests.data.conftest import write_class_folders

pytestmark = pytest.mark.integration


@pytest.fixture
def photos(tmp_path):
    """A folder of class folders."""
    return write_class_folders(tmp_path / "photos", {"cat": 20, "dog": 10})


def test_a_rate_is_images_by_seconds():
    clock = itertools.count(0.0, 0.5).__next__
    batches = itertools.repeat(np.zeros((6, 4, 5, 3)))
    size, rate = pipeline._run(batches, 2.0, clock)
    assert (size, rate) == ((4, 5), 4 * 6 / 2.0)
    assert pipeline._run(batches, 0, itertools.count(0.0, 0.25).__next__)[1] == 6 / 0.25


def test_the_median_of_windows(monkeypatch):
    rates = iter([1.0, 50.0, 30.0, 10.0, 40.0, 20.0])
    monkeypatch.setattr(pipeline, "_run", lambda batches, seconds: ((8, 8), next(rates)))
    case = pipeline.Case("training", data.load("digits"), {"batch_size": 7, "training": True, "augment": "shift"})
    rate = pipeline.measure(case, 5)
    assert (rate.images_per_second, rate.low, rate.high, rate.windows) == (30.0, 10.0, 50.0, 5)
    assert (rate.place, rate.augment, rate.height, rate.batch) == ("memory", "shift", 8, 7)


def test_pipelines_of_a_source(photos):
    images = data.load(photos)
    train, view = pipeline.of_source(images, None, None, None)
    assert train.arguments == {"batch_size": 128, "image_size": (20, 24), "training": True, "augment": "pad_crop_flip"}
    assert view.arguments == {"batch_size": 128, "image_size": (20, 24), "crop_fraction": 1.0}
    train, view = pipeline.of_source(images, "none", 224, 5)
    assert train.arguments == {"batch_size": 5, "image_size": 224, "training": True, "augment": None}
    assert view.arguments == {"batch_size": 5, "image_size": 224, "crop_fraction": 0.875}
    assert pipeline.of_source(images, None, 224, None)[0].arguments["augment"] == "random_resized_crop_flip"


def test_an_evaluation_keeps_nothing_for_the_next_pass(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("keras_deepnets.data.verification.MEMORY_BUDGET", 0)
    monkeypatch.setattr("keras_deepnets.data.pipelines.VIEW_BUDGET", 100 * 16 * 16 * 3)
    data.write_shards(photos, tmp_path / "shards", 2)
    for source, place in ((photos, "files"), (tmp_path / "shards", "shards")):
        images = data.load(source)
        case = pipeline.of_source(images, None, 16, 24)[1]
        assert pipeline.place_of(images) == place
        large = pipeline._large(case)
        assert (images.size, large.size) == (24, 120)
        batches = [batch.numpy() for batch in itertools.islice(pipeline._batches(case), 7)]
        for batch in batches[1:]:
            np.testing.assert_array_equal(batch, batches[0])


def test_photographs_are_like_those_of_imagenet():
    files = [pipeline.photograph(number) for number in (0, 0, 1)]
    assert files[0] == files[1] != files[2]
    assert 70_000 < len(files[0]) < 110_000
    assert Image.open(io.BytesIO(files[0])).size == (500, 375)


def test_the_command_measures_a_folder(cli, photos, tmp_path):  # noqa: F811
    words = ("benchmark", "--data", photos, "--image-size", "16", "--batch", "4,8", "--seconds", "0.2")
    done = cli(*words, "--augment", "shift", "--out", tmp_path / "out")
    assert done.status == 0, done.err
    rows = [line.split() for line in done.out.splitlines() if line.startswith(("training", "evaluation"))]
    assert [row[:5] for row in rows] == [
        ["training", "memory", "shift", "16×16", "4"],
        ["evaluation", "memory", "view", "16×16", "4"],
        ["training", "memory", "shift", "16×16", "8"],
        ["evaluation", "memory", "view", "16×16", "8"],
    ]
    table = read_csv(tmp_path / "out" / "pipeline.csv")
    assert [row["batch"] for row in table] == ["4", "4", "8", "8"]
    assert all(float(row["low"]) <= float(row["images_per_second"]) <= float(row["high"]) for row in table)
    assert str(tmp_path / "out" / "pipeline.csv") in done.out and done.err.count("img/s") == 4


@pytest.mark.slow
def test_the_command_measures_made_up_images(cli, monkeypatch):  # noqa: F811
    monkeypatch.setattr(pipeline, "_FILES", 8)
    monkeypatch.setattr(pipeline, "_REPEATED", 2)
    values = cli("benchmark", "--data", "--seconds", "0.1", "--json").json
    assert [(row["place"], row["augment"], row["height"], row["batch"]) for row in values["results"]] == [
        ("memory", "pad_crop_flip", 32, 128),
        ("files", "random_resized_crop_flip", 224, 64),
        ("shards", "random_resized_crop_flip", 224, 64),
        ("files", "view", 224, 64),
        ("shards", "view", 224, 64),
    ]
    assert all(row["images_per_second"] > 0 for row in values["results"])
    assert values["circumstances"]["threads"] == str(values["results"][0]["threads"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--data a b", "--data takes one SOURCE, but got 2: a, b."),
        ("--data --fold", "to which --fold does not apply"),
        ("--data --option a=2", "to which --option does not apply"),
        ("--data --batch 4", "--batch is for a SOURCE"),
        ("--data --image-size 4", "--augment and --image-size are for a SOURCE"),
        ("--data ./nowhere", "no such folder"),
        ("--data FILE --batch 0", "--batch '0' is not a whole number"),
        ("--data FILE --augment bright", "augment='bright' is unknown"),
        ("--data digits --out FILE", "--out FILE is a file; name a folder."),
        ("resnet20 --augment shift", "--augment is for --data SOURCE"),
    ],
)
def test_bad_input(cli, tmp_path, monkeypatch, words, message):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    assert message in cli("benchmark", *words.split()).error


def test_looking_at_the_command_loads_no_tensorflow():
    code = (
        "import sys; from keras_deepnets.cli import main, pipeline, shards; main(['benchmark', '--data', '--fold']);"
        "main(['data', 'shard', 'x', 'y', '--split', 'z']);"
        "sys.exit(', '.join({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr.count("error: ") == 2, done.stderr
