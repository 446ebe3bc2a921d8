"""Several runs of a study at once, in real processes: the same results, failures kept apart, and nothing left behind by signals."""

import csv
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from keras_deepnets import distribution, processor, studies
from keras_deepnets.studies import parallel
from tests.studies.common import TINY, tiny, written

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("processors", "jobs", "shares"),
    [
        ([0, 1], 2, [[0], [1]]),
        ([2, 3, 5, 7, 8], 2, [[2, 3], [5, 7, 8]]),
        ([4], 3, [[4], [4], [4]]),
        ([0, 1], 1, [[0, 1]]),
    ],
)
def test_the_processes_share_the_processors(monkeypatch, processors, jobs, shares):
    monkeypatch.setattr(processor, "usable", lambda: processors)
    assert parallel._shares(jobs) == shares


@pytest.mark.parametrize(
    ("seconds", "waiting", "gigabytes", "gpus", "jobs"),
    [
        (1000, 9, 24, 0, 4),
        (1000, 3, 24, 0, 3),
        (1000, 9, 6, 0, 2),
        (1000, 9, 1, 0, 1),
        (1000, 9, 24, 1, 1),
        (60, 9, 24, 0, 1),
        (1e6, 9, 24, 0, 1),
    ],
)
def test_the_number_of_processes(monkeypatch, seconds, waiting, gigabytes, gpus, jobs):
    monkeypatch.setattr(processor, "usable", lambda: [0, 1, 2, 3])
    monkeypatch.setattr(parallel, "_free_memory", lambda: gigabytes * 1e9)
    monkeypatch.setattr(distribution, "gpus", lambda: gpus)
    assert parallel.automatic(seconds, waiting) == jobs


def test_the_free_memory_is_plausible():
    assert 1e7 < parallel._free_memory() < 1e14


def rows(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_two_at_once_give_what_one_after_the_other_gives(tmp_path):
    """With a run that diverges and one that fails."""
    runs = [
        {"network": "plainnet", "net": "plain", "rate": 0.1},
        {"network": "resnet", "net": "res", "rate": 1e30, "recipe": "he2015_cifar", "set": {"learning_rate": 1e30}},
        {"network": "resnet", "net": "res", "rate": 0.1},
    ]
    study = tiny(tmp_path, runs=runs, verdict=[TINY["verdict"][0] | {"lower": {"net": "res", "rate": 1e30}}])
    for name in ("alone", "together"):  # a file where the folder of the last run should be
        (tmp_path / name / "runs").mkdir(parents=True)
        (tmp_path / name / "runs" / "res-0.1-seed0").write_text("in the way")
        (tmp_path / name / "study.json").write_text(json.dumps({"definition": study.to_dict()}))
    lines = []
    alone = studies.run(study, tmp_path / "alone", say=lines.append, jobs=1)
    assert "at once" not in lines[0]
    lines.clear()
    together = studies.run(study, tmp_path / "together", say=lines.append, jobs=2)
    assert "on this machine, 2 runs at once." in lines[0] and len(lines) == 4
    assert list(together.failures) == list(alone.failures) == ["res-0.1-seed0"]
    assert together.failures["res-0.1-seed0"] == alone.failures["res-0.1-seed0"].replace("alone", "together")
    for one, other in zip(rows(tmp_path / "alone"), rows(tmp_path / "together"), strict=True):
        assert [one[name] for name in ("run", "net", "parameters", "diverged")] == [
            other[name] for name in ("run", "net", "parameters", "diverged")
        ]
        for name in ("train_loss", "test_loss"):
            assert one[name] == other[name] == "" or float(other[name]) == pytest.approx(float(one[name]), rel=1e-2)
        for name in ("train_error", "test_error"):  # rounding may change the class of an image or two
            assert float(other[name]) == pytest.approx(float(one[name]), abs=5)
    assert [row["diverged"] for row in rows(tmp_path / "together")] == ["", "yes"]
    assert together.verdict == alone.verdict
    first, second = (
        json.loads((tmp_path / name / "runs" / "plain-0.1-seed0" / "config.json").read_text())["command"]
        for name in ("alone", "together")
    )
    assert first == second


def children(pid):
    """Running child processes, by the parent that each one names."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def trains(folder, name):
    metrics = folder / "runs" / name / "metrics.csv"
    return metrics.exists() and len(metrics.read_text().splitlines()) > 2


LONG = TINY["set"] | {"epochs": 500}


@pytest.fixture
def command(tmp_path):
    """A study with two runs that take minutes, as a command."""
    file = written(tmp_path / "own.yaml", set=LONG)
    return [sys.executable, "-m", "keras_deepnets.cli", "study", str(file), "--jobs", "2", "--out"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    ("how", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGKILL", -9)], ids=["ended", "interrupted", "killed"]
)
def test_no_process_outlives_the_study(tmp_path, command, how, status):
    """The states of both runs are saved, and the same command continues them."""
    folder = tmp_path / "out"
    names = ("plain-seed0", "res-seed0")
    with subprocess.Popen(
        [*command, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: all(trains(folder, name) for name in names))
        workers = children(process.pid)
        assert len(workers) == 2
        process.send_signal(getattr(signal, how))
        _, messages = process.communicate(timeout=120)
    assert process.returncode == status, messages
    wait_until(lambda: not any(is_running(worker) for worker in workers), 60)
    if how == "SIGTERM":
        assert "SIGTERM ended the study. The states of its runs are saved." in messages
    if how == "SIGINT":
        assert "rerun the same command to continue the study" in messages
    before = [sum(1 for _ in (folder / "runs" / name / "metrics.csv").open()) for name in names]
    with subprocess.Popen(
        [*command, str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(
            lambda: all(
                sum(1 for _ in (folder / "runs" / name / "metrics.csv").open()) > lines + 1
                for name, lines in zip(names, before, strict=True)
            )
        )
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=120)
    for name, lines in zip(names, before, strict=True):
        with (folder / "runs" / name / "metrics.csv").open(newline="") as file:
            epochs = [int(row["epoch"]) for row in csv.DictReader(file)]
        assert epochs == list(range(1, len(epochs) + 1)) and len(epochs) >= lines
    config = json.loads((folder / "study.json").read_text())
    assert config["runs"] == list(names)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_that_is_killed_is_one_failed_run(tmp_path):
    """The system kills a process when memory runs out. The other process goes on, and the next run gets a new process."""
    runs = [
        {"network": "plainnet", "net": "plain", "set": {"epochs": 500}},
        {"network": "resnet", "net": "res"},
    ]
    study = tiny(tmp_path, runs=runs, seeds=2)
    folder = tmp_path / "out"
    first = folder / "runs" / "plain-seed0"

    def kill():
        for name in ("plain-seed0", "plain-seed1"):
            wait_until(functools.partial(trains, folder, name))
            os.kill(int((folder / "runs" / name / ".pid").read_text()), signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    outcome = studies.run(study, folder, say=lambda line: None, jobs=2)
    killer.join(10)
    message = (
        "The process of the run was killed by SIGKILL, as the system does when memory runs out; --jobs 1 needs less"
    )
    assert outcome.failures.keys() == {"plain-seed0", "plain-seed1"}
    assert all(why.startswith(message) for why in outcome.failures.values())
    assert [row["run"] for row in rows(folder)] == ["res-seed0", "res-seed1"]
    assert not (first / "model.keras").exists()
