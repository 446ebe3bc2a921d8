"""Shards by the command: written, checked, trained on."""

import signal
import subprocess
import sys
import time

import pytest

from keras_deepnets import data

from .conftest import TINY

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def written(patches, tmp_path_factory):
    """The patches as shards, by the command."""
    from keras_deepnets.cli import main

    out = tmp_path_factory.mktemp("shards") / "out"
    assert main(["data", "shard", str(patches), str(out), "--shards", "2", "--seed", "3"]) == 0
    return out


def test_shard_prints_what_it_wrote(cli, patches, tmp_path):
    done = cli("data", "shard", patches, tmp_path / "out", "--shards", "2")
    assert (done.status, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == f"{tmp_path / 'out'}: {patches}, 3 classes"
    assert [line.split()[:3] for line in lines[1:5]] == [
        ["split", "images", "shards"],
        ["train", "48", "2"],
        ["validation", "6", "2"],
        ["test", "6", "2"],
    ]
    assert lines[-1] == f"  keras-deepnets train resnet20 {tmp_path / 'out'}"
    values = cli("data", "shard", patches, tmp_path / "json", "--split", "all", "--json").json
    assert values["splits"]["all"]["examples"] == 60
    assert values["splits"]["all"]["per_class"] == {"blue": 20, "green": 20, "red": 20}
    assert (values["channels"], values["skipped"], values["out"]) == (3, [], str(tmp_path / "json"))


def test_a_run_on_shards_measures_as_one_on_the_folder(cli, trained, patches, written):
    for split in ("train", "test"):
        ours, theirs = (
            cli("evaluate", trained, source, "--split", split, "--json").json for source in (written, patches)
        )
        assert ours["top1"] == theirs["top1"] and ours["images"] == theirs["images"]
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)


def test_train_takes_shards(cli, written, tmp_path):
    done = cli("train", TINY[0], written, *TINY[1:], "--run-dir", tmp_path / "run")
    assert done.status == 0, done.err
    assert "48 images of" in done.out and "6 for validation (validation split)" in done.out


def test_check(cli, written, tmp_path):
    assert ["train", "48", "2"] in [line.split()[:3] for line in cli("data", "check", written).out.splitlines()]
    assert cli("data", "check", written, "--json").json["splits"]["test"]["examples"] == 6
    assert "holds no TFRecord shards" in cli("data", "check", tmp_path).error


def test_damaged_shards_are_one_line(cli, trained, patches, tmp_path):
    out = tmp_path / "out"
    cli("data", "shard", patches, out, "--shards", "1")
    path = out / "test-00000-of-00001.tfrecord"
    whole = path.read_bytes()
    path.write_bytes(whole[:2000] + bytes([whole[2000] ^ 1]) + whole[2001:])
    assert "the bytes of test-00000-of-00001.tfrecord are not those" in cli("data", "check", out).error
    assert "`keras-deepnets data check FOLDER` names them" in cli("evaluate", trained, out).error
    path.write_bytes(whole[:2000])
    assert "has 2,000 bytes instead of" in cli("evaluate", trained, out).error
    path.unlink()
    assert "shard test-00000-of-00001.tfrecord is missing" in cli("data", "check", out).error


def test_bad_input(cli, patches, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    for words, message in (
        ((patches, tmp_path / "full"), "is not empty; name a new or empty folder"),
        ((patches, tmp_path / "out", "--shards", "7"), "shards=7: the validation split"),
        ((patches, tmp_path / "out", "--shards", "0"), "Invalid value for '--shards'"),
        ((patches, tmp_path / "out", "--split", "dev"), "split 'dev' is not one of"),
        ((tmp_path / "nowhere", tmp_path / "out"), "nowhere"),
    ):
        assert message in cli("data", "shard", *words).error
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
    assert cli("data").out == cli("data", "--help").out


@pytest.mark.slow
def test_kill_9_of_the_command(patches, tmp_path):
    out = tmp_path / "out"
    words = [sys.executable, "-m", "keras_deepnets.cli", "data", "shard", str(patches), str(out), "--shards", "5"]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    partial = tmp_path / ".partial-out"
    while process.poll() is None and not partial.exists():
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -9
    assert not out.exists() and partial.exists()
    assert subprocess.run(words, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert data.load(out, "train").size == 48
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
