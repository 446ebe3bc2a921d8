"""The runner: results of finished runs only, failures reported, continued by the same call; the command `study`."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

import keras_deepnets as kd
from keras_deepnets import studies
from keras_deepnets.errors import InputError
from keras_deepnets.models import trainable_parameters
from keras_deepnets.studies import estimate, figure, runner
from keras_deepnets.training import Preempted, Run, TrainingError
from tests.cli.conftest import cli  # noqa: F401 - a fixture
from tests.studies.common import TINY, tiny, written

pytestmark = pytest.mark.integration


class Trainer:
    """Stands for training: writes what a run folder has, with an accuracy for each run, and counts the runs."""

    def __init__(self, accuracies):
        self.accuracies, self.trained = accuracies, []

    def __call__(self, planned, folder, sets, verbose):
        path = folder / "runs" / planned.name
        if not (path / "model.keras").exists():
            self.trained.append(planned.name)
            accuracy = self.accuracies[planned.name]
            if isinstance(accuracy, BaseException):
                raise accuracy
            path.mkdir(parents=True)
            (path / "model.keras").write_text("a model")
            (path / "config.json").write_text(json.dumps({"resolved": {"batch_size": 16}}))
            (path / "study-result.json").write_text(json.dumps({"measured": {"parameters": 7}, "maps": {}}))
            (path / "accuracy").write_text(str(accuracy))
        accuracy = float((path / "accuracy").read_text())
        history = {"epoch": [1, 2], "accuracy": [0.1, accuracy], "val_accuracy": [0.1, accuracy - 0.1], "loss": [2, 1]}
        return Run(path, history, {"seconds": 4.0, "images_per_second": 32.0})


@pytest.fixture
def trainer(monkeypatch):
    made = Trainer({"plain-seed0": 0.5, "res-seed0": 0.75, "plain-seed1": 0.5, "res-seed1": 0.75})
    monkeypatch.setattr(runner, "_run", made)
    monkeypatch.setattr(estimate, "training_rate", lambda: 1e9)
    return made


@pytest.fixture
def undrawn(monkeypatch, trainer):
    """The trainer, without the second that a figure takes."""
    monkeypatch.setattr(figure, "draw", lambda *arguments: None)
    return trainer


def rows(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_study_writes_table_figure_and_verdict(tmp_path, trainer):
    lines = []
    outcome = studies.run(tiny(tmp_path), tmp_path / "out", say=lines.append)
    assert (outcome.verdict, outcome.failures) == ("shown", {})
    assert [(row["run"], row["net"], row["seed"]) for row in rows(tmp_path / "out")] == [
        ("plain-seed0", "plain", "0"),
        ("res-seed0", "res", "0"),
    ]
    first = rows(tmp_path / "out")[0]
    numbers = {name: float(first[name]) for name in ("train_error", "test_error", "parameters", "seconds", "step_time")}
    assert numbers == {"train_error": 50, "test_error": 60, "parameters": 7, "seconds": 4, "step_time": 500}
    text = (tmp_path / "out" / "table.md").read_text()
    assert "**The claim is: shown.**" in text and "| plain | 1 | 50.00 | 60.00 | 7 |" in text
    assert all((tmp_path / "out" / f"figure.{suffix}").stat().st_size > 1000 for suffix in ("png", "svg"))
    config = json.loads((tmp_path / "out" / "study.json").read_text())
    assert config["verdict"] == "shown" and config["images"] == {"train": 64, "test": 40}
    assert config["definition"]["claim"] == TINY["claim"] and "tensorflow" in config["versions"]
    assert lines[0].startswith("2 runs on 64 images of digits: about ")
    assert lines[1].startswith("[1/2] plain-seed0: training error 50.00 %, test error 60.00 %, 4 s, about ")


def test_the_report_of_a_study(cli, tmp_path, trainer):  # noqa: F811
    trainer.accuracies["plain-seed1"] = TrainingError("The loss <became> nan.")
    folder = tmp_path / "out"
    study = tiny(tmp_path, seeds=2)
    studies.run(study, folder, say=lambda line: None)
    assert cli("report", folder).status == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert f"<h1>{study.title}</h1>" in page and "The claim is shown." in page and study.claim in page
    for text in ("<td>50.00</td>", "res-seed1", "plain-seed1", "The loss &lt;became&gt; nan.", "tensorflow"):
        assert text.removeprefix("<td>").removesuffix("</td>") in page
    assert (
        page.count("data:image/svg+xml;base64,") == 1
        and "<script" not in page
        and "http" not in page.split("</style>")[1]
    )
    before = (folder / "report.html").stat().st_mtime_ns
    for words, says in (
        (("--limit", 3), f"{folder} holds a study; its report takes no data, split, limit or exports."),
        (("--out", tmp_path / "a.txt"), f"'{tmp_path / 'a.txt'}' must end in .html."),
    ):
        outcome = cli("report", folder, *words)
        assert (outcome.status, outcome.err) == (2, f"keras-deepnets: error: {says}\n")
    config = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(json.dumps(config | {"images": 3}))
    assert cli("report", folder).err.startswith(f"keras-deepnets: error: {folder} is not the folder of a study: ")
    del config["table"]
    (folder / "study.json").write_text(json.dumps(config))
    assert "holds an unfinished study; run the same `study` command again" in cli("report", folder).err
    assert (folder / "report.html").stat().st_mtime_ns == before


def test_a_failed_run_is_reported_and_the_rest_goes_on(tmp_path, undrawn):
    undrawn.accuracies["plain-seed0"] = TrainingError("The loss became nan.")
    lines = []
    outcome = studies.run(tiny(tmp_path), tmp_path / "out", say=lines.append)
    assert outcome.failures == {"plain-seed0": "The loss became nan."}
    assert outcome.verdict == "not shown"
    assert [row["run"] for row in rows(tmp_path / "out")] == ["res-seed0"]
    assert "| plain-seed0 | The loss became nan. |" in (tmp_path / "out" / "table.md").read_text()
    assert "[1/2] plain-seed0 failed: The loss became nan." in lines
    undrawn.accuracies["plain-seed0"] = 0.5  # the same call tries again
    assert studies.run(tiny(tmp_path), tmp_path / "out", say=lines.append).failures == {}
    assert undrawn.trained == ["plain-seed0", "res-seed0", "plain-seed0"]


def test_a_run_that_diverges_is_a_result(tmp_path, monkeypatch, cli):  # noqa: F811
    """Its errors are those of guessing. The same call does not train it again."""
    monkeypatch.setattr(figure, "draw", lambda *arguments: None)
    row = {"network": "{net}net", "recipe": "he2015_cifar"}
    runs = [
        row | {"net": "plain", "set": {"learning_rate": 1e30}},
        row | {"net": "res", "set": {"learning_rate": 0.05}},
    ]
    file, out = written(tmp_path / "tiny.yaml", runs=runs), tmp_path / "out"
    done = cli("study", file, "--out", out)
    assert done.status == 0, done.err
    assert "[1/2] plain-seed0: diverged. The loss became" in done.out
    plain, residual = rows(out)
    assert (plain["diverged"], float(plain["train_error"]), float(plain["test_error"])) == ("yes", 90.0, 90.0)
    assert (plain["parameters"], plain["seconds"]) == (
        str(trainable_parameters(kd.PlainNet(stem="cifar", depth=8))),
        "",
    )
    assert residual["diverged"] == "" and float(residual["seconds"]) > 0
    table = (out / "table.md").read_text()
    assert "| plain-seed0 | The loss became" in table and "Diverged runs count with the errors of guessing." in table
    config = json.loads((out / "study.json").read_text())
    assert (list(config["diverged"]), config["failed"], config["finished"]) == (["plain-seed0"], {}, ["res-seed0"])
    checkpoints = sorted((out / "runs" / "plain-seed0").rglob("*"))
    again = cli("study", file, "--out", out)
    assert again.status == 0 and "2 runs on 64 images of digits, 2 of them finished." in again.out
    assert rows(out) == [plain, residual]
    assert sorted((out / "runs" / "plain-seed0").rglob("*")) == checkpoints


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Preempted("SIGTERM ended the run")], ids=["interrupt", "signal"])
def test_an_interrupted_study_continues(tmp_path, undrawn, stop):
    undrawn.accuracies["res-seed0"] = stop
    study = tiny(tmp_path, seeds=2)
    with pytest.raises(type(stop)):
        studies.run(study, tmp_path / "out", say=lambda line: None)
    assert [row["run"] for row in rows(tmp_path / "out")] == ["plain-seed0"]
    assert not (tmp_path / "out" / "table.md").exists()
    undrawn.accuracies["res-seed0"] = 0.75
    lines = []
    studies.run(study, tmp_path / "out", say=lines.append)
    assert "4 runs on 64 images of digits, 1 of them finished: about " in lines[0]
    assert undrawn.trained == ["plain-seed0", "res-seed0", "res-seed0", "plain-seed1", "res-seed1"]
    studies.run(study, tmp_path / "out", say=lines.append)
    assert len(undrawn.trained) == 5


def test_another_definition_in_the_same_folder_is_refused(tmp_path, undrawn):
    studies.run(tiny(tmp_path), tmp_path / "out", say=lambda line: None)
    with pytest.raises(
        InputError, match=r"out holds a study with another definition: limit is 64 there, 32 here. Choose another"
    ):
        studies.run(tiny(tmp_path, limit=32), tmp_path / "out")
    with pytest.raises(InputError, match=r"settings.epochs is 2 there, 3 here"):
        studies.run(tiny(tmp_path, set=TINY["set"] | {"epochs": 3}), tmp_path / "out")
    studies.run(tiny(tmp_path, title="Another title"), tmp_path / "out", say=lambda line: None)
    assert len(undrawn.trained) == 2
    with pytest.raises(InputError, match="is not an empty folder and not that of a study; choose another --out"):
        studies.run(tiny(tmp_path), tmp_path)
    (tmp_path / "out" / "study.json").write_text("{}")
    with pytest.raises(InputError, match=r"study.json is not that of a study"):
        studies.run(tiny(tmp_path), tmp_path / "out")


def test_without_a_finished_run_there_is_no_result(tmp_path, undrawn):
    undrawn.accuracies = dict.fromkeys(undrawn.accuracies, TrainingError("The disk has a fault."))
    with pytest.raises(InputError, match=r"No run of the study has finished: The disk has a fault."):
        studies.run(tiny(tmp_path), tmp_path / "out", say=lambda line: None)


def test_the_cost_of_a_run(tmp_path):
    study = tiny(tmp_path)
    first, second = estimate.costs(studies.plan(study), estimate.Images(train=64, test=40, classes=10))
    # 64 images twice. Parameters are those of the network at 8 × 8 pixels.
    assert (first.images, first.validated, first.depth) == (128, 80, 8)
    assert second.parameters == 78_042
    # Seven convolutions at 8 × 8, 4 × 4 and 2 × 2 pixels with batch normalisation and ReLU, the mean, and the classifier.
    outputs = (3 * 64 * 16 + 2 * 16 * 32 + 2 * 4 * 64) * 3 + 64 + 10
    assert first.elements == outputs
    # The residual network adds three times, and two of its shortcuts project and normalise.
    assert second.elements == outputs + (64 * 16 + 16 * 32 + 4 * 64) + 2 * (16 * 32 + 4 * 64)
    # An image in validation takes 0.28 of the time of one in training, and an element that of 30 multiply-adds.
    work = second.multiply_adds + 30 * second.elements
    assert second.seconds(1e9) == pytest.approx(0.45 * 8 + (128 + 0.28 * 80) * work / 1e9)


def test_how_many_images_a_study_uses(tmp_path):
    assert estimate.images_of(tiny(tmp_path)) == (64, 40, 10)
    assert estimate.images_of(tiny(tmp_path, data="cifar100", limit=1000, test=None)) == (1000, 10_000, 100)
    assert estimate.images_of(tiny(tmp_path, data="cifar10", limit=None)) == (50_000, 40, 10)
    assert estimate.images_of(tiny(tmp_path, data="imagenet2012", limit=None, test=None)) == (1_281_167, 50_000, 1000)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "about 1 s"),
        (59, "about 59 s"),
        (90, "about 2 min"),
        (3600, "about 60 min"),
        (7300, "about 2 h"),
        (2e5, "about 2 days"),
    ],
)
def test_times_for_people(seconds, text):
    assert estimate.duration(seconds) == text


def test_the_command_lists_studies(cli):  # noqa: F811
    lines = cli("study", "--list").out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == studies.names()
    assert {entry["name"] for entry in cli("study", "--list", "--json").json} == set(studies.names())


def test_the_command_runs_a_file(cli, tmp_path, undrawn):  # noqa: F811
    file = written(tmp_path / "own.yaml")
    done = cli("study", file, "--out", tmp_path / "out")
    assert done.status == 0
    assert "The claim is: shown." in done.out
    found = cli("study", file, "--out", tmp_path / "out", "--json").json
    assert (found["verdict"], found["failed"]) == ("shown", {})
    assert [run["train_error"] for run in found["runs"]] == [50, 25]
    assert (
        "another definition: seeds is [0] there, [0, 1] here"
        in cli("study", file, "--out", tmp_path / "out", "--seeds", 2).error
    )
    undrawn.accuracies["plain-seed1"] = TrainingError("The loss became nan.")
    failed = cli("study", file, "--out", tmp_path / "more", "--seeds", 2)
    assert failed.status == 1
    assert failed.err.endswith("failed: 1 run of the study: plain-seed1\n")
    undrawn.accuracies["res-seed0"] = Preempted("SIGTERM ended the run after epoch 2.")
    stopped = cli("study", file, "--out", tmp_path / "stopped")
    assert (stopped.status, stopped.err.splitlines()[-1]) == (143, "SIGTERM ended the run after epoch 2.")


def test_the_command_plans_without_training(cli, tmp_path, undrawn):  # noqa: F811
    file = written(tmp_path / "own.yaml")
    found = cli("study", file, "--dry-run", "--json", "--set", "epochs=3").json
    assert [run["run"] for run in found["runs"]] == ["plain-seed0", "res-seed0"]
    assert found["runs"][0]["set"]["epochs"] == 3
    text = cli("study", file, "--dry-run").out
    assert "2 runs on 64 images: about " in text and "78,042" in text
    assert undrawn.trained == [] and not (tmp_path / "studies").exists()


def test_bad_input_is_one_line(cli, tmp_path):  # noqa: F811
    assert "There is no study 'nothing'." in cli("study", "nothing").error
    assert "key sedes: there is no such key" in cli("study", written(tmp_path / "own.yaml", sedes=1)).error
    assert "There is no recipe field" not in cli("study", "degradation", "--set", "epoch=1").error


@pytest.mark.slow
def test_a_killed_study_ends_as_one_that_was_not(tmp_path):
    """The process is killed inside the second run. The same command then finishes, with the errors of a whole study."""
    file = written(tmp_path / "own.yaml", set=TINY["set"] | {"epochs": 12}, limit=320)
    command = [sys.executable, "-m", "keras_deepnets.cli", "study", str(file), "--json", "--out"]
    environment = os.environ | {"TF_DETERMINISTIC_OPS": "1", "CUDA_VISIBLE_DEVICES": ""}
    whole = subprocess.run([*command, str(tmp_path / "whole")], env=environment, check=True, capture_output=True)
    killed = tmp_path / "killed"
    with subprocess.Popen(
        [*command, str(killed)], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        metrics = killed / "runs" / "res-seed0" / "metrics.csv"
        deadline = time.monotonic() + 300
        while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (killed / "runs" / "res-seed0" / "model.keras").exists()
    assert [row["run"] for row in rows(killed)] == ["plain-seed0"]
    done = subprocess.run([*command, str(killed)], env=environment, check=True, capture_output=True, text=True)
    assert "2 runs on 320 images of digits, 1 of them finished" in done.stderr
    expected, found = (json.loads(text)["runs"] for text in (whole.stdout, done.stdout))
    timed = {"seconds", "step_time"}
    for one, other in zip(expected, found, strict=True):
        for name in one.keys() - timed:
            assert other[name] == (one[name] if isinstance(one[name], str) else pytest.approx(one[name], abs=1e-4)), (
                name
            )
    assert (killed / "figure.png").exists() and (killed / "table.md").exists()
