"""Folders as systems leave them, and predictions that go past broken files."""

import csv

import pytest
from PIL import Image

from tests.cli.conftest import TINY, paint
from tests.data.exif import pillow, saved
from tests.data.test_files import scatter


@pytest.fixture
def photos(tmp_path):
    """Class folders with what systems leave in them, a text and a film."""
    folder = paint(tmp_path / "photos", {"red": (210, 50, 40), "blue": (40, 60, 200)}, 12, seed=5)
    scatter(folder)
    (folder / "red" / "notes.txt").write_text("x")
    (folder / "blue" / "clip.mov").write_bytes(b"x")
    return folder


LINE = "left out 2 files that are not images: 1 .mov, 1 .txt\n"


@pytest.mark.slow
def test_every_command_ignores_and_counts_alike(cli, photos, trained, tmp_path):
    said = f"{photos}: {LINE}"
    done = cli("train", *TINY[:1], photos, *TINY[1:], "--run-dir", tmp_path / "run")
    assert (done.status, done.err) == (0, said)
    assert "images of " in done.out and ", 2 classes, " in done.out
    done = cli("evaluate", tmp_path / "run", photos, "--split", "all", "--json")
    assert (done.json["images"], done.err) == (24, said)
    done = cli("predict", tmp_path / "run", photos, "--json")
    assert (done.status, len(done.json), done.err) == (0, 24, said)
    done = cli("data", "shard", photos, tmp_path / "shards", "--json")
    assert (done.status, done.json["labels"], done.err) == (0, ["blue", "red"], said)
    done = cli("benchmark", "--data", photos, "--image-size", "8", "--seconds", "0", "--json")
    assert (done.status, done.err) == (0, said)


@pytest.fixture
def mixed(patches, tmp_path):
    """A folder with a whole file before and after two broken ones."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("a.png", "d.png"):
        (folder / name).write_bytes((patches / "red" / "00.png").read_bytes())
    Image.new("RGB", (9, 9)).save(folder / "b.jpg")
    (folder / "b.jpg").write_bytes((folder / "b.jpg").read_bytes()[:300])
    (folder / "c.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize("kind", ["keras", "savedmodel", "tflite"])
def test_broken_files_are_rows_and_the_rest_goes_on(cli, trained, exported, mixed, tmp_path, kind):
    model = trained if kind == "keras" else exported[kind]
    done = cli("predict", model, mixed, "--json", "--top", "2", "--csv", tmp_path / "out.csv")
    assert done.status == 1
    assert done.err == "keras-deepnets: failed: 2 of 4 images cannot be read.\n"
    rows = done.json
    assert [row["image"] for row in rows] == [str(mixed / name) for name in ("a.png", "b.jpg", "c.png", "d.png")]
    assert [len(row["predictions"]) for row in rows] == [2, 0, 0, 2]
    assert [row["error"] is None for row in rows] == [True, False, False, True]
    assert rows[1]["error"].startswith(f"{mixed / 'b.jpg'} is not an image file that can be decoded")
    for first, last in zip(rows[0]["predictions"], rows[3]["predictions"], strict=True):
        assert first == {"label": last["label"], "probability": pytest.approx(last["probability"], abs=1e-6)}
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == ["image", "label_1", "probability_1", "label_2", "probability_2", "error"]
    for row, cells in zip(rows, table, strict=True):
        assert (cells["image"], cells["error"]) == (row["image"], row["error"] or "")
        for place, guess in enumerate(row["predictions"], 1):
            assert cells[f"label_{place}"] == guess["label"]
            assert float(cells[f"probability_{place}"]) == guess["probability"]
    lines = cli("predict", model, mixed).out.splitlines()
    assert len(lines) == 4 and lines[1].startswith(f"{mixed / 'b.jpg'}  error: ")
    assert "b.jpg is not an image file" in cli("predict", model, mixed, "--strict").error


def test_nothing_but_a_broken_file(cli, trained, mixed):
    done = cli("predict", trained, mixed / "c.png", "--json")
    assert (done.status, done.json[0]["predictions"]) == (1, [])
    assert done.err == "keras-deepnets: failed: 1 of 1 images cannot be read.\n"


def test_where_no_table_can_be_written(cli, trained, mixed, tmp_path):
    assert (
        "its folder does not exist; name a file"
        in cli("predict", trained, mixed, "--csv", tmp_path / "no" / "a.csv").error
    )
    assert "is a folder; name a file" in cli("predict", trained, mixed, "--csv", tmp_path).error


def test_a_turned_photograph_is_evaluated_and_predicted_upright(cli, trained, exported, patches, tmp_path):
    """Stored sideways, every image gives what it gives upright."""
    for label in ("blue", "green", "red"):
        (tmp_path / label).mkdir()
        for number in range(4):
            upright = pillow((patches / label / f"{number:02}.png").read_bytes())
            stored = pillow(saved(upright, "PNG", 8))
            (tmp_path / label / f"{number}.png").write_bytes(saved(stored, "PNG", 6))
    for model in (trained, exported["savedmodel"], exported["tflite"]):
        upright = cli("predict", model, *(patches / "red" / f"{number:02}.png" for number in range(4)), "--json").json
        found = cli("predict", model, tmp_path / "red", "--json").json
        for one, other in zip(found, upright, strict=True):
            expected = {guess["label"]: pytest.approx(guess["probability"], abs=1e-6) for guess in other["predictions"]}
            assert {guess["label"]: guess["probability"] for guess in one["predictions"]} == expected
