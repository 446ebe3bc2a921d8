"""The commands, as a user gives them."""

import importlib.util
import subprocess
import sys

import pytest

from benchmarks import memory
from keras_deepnets.benchmark import pairs
from keras_deepnets.benchmark.process import WorkerError
from keras_deepnets.benchmark.results import read_csv
from keras_deepnets.cli import problems
from keras_deepnets.errors import InputError
from tests.cli.conftest import cli  # noqa: F401 - a fixture

from .common import start_fake

pytestmark = pytest.mark.integration


@pytest.fixture
def nothing_starts(monkeypatch):
    def started(*args, **kwargs):
        raise AssertionError("a worker was started")

    monkeypatch.setattr(subprocess, "Popen", started)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("resnet21", "Unknown model 'resnet21'. Did you mean resnet"),
        ("resnet20 resnet21", "Unknown model 'resnet21'"),
        ("resnet20 --mode learn", "--mode 'learn' is not one of train, inference, export."),
        ("resnet20 --dtype float32,int8", "--dtype 'int8' is not one of float32, bfloat16, float16."),
        ("resnet20 --against keras,mxnet", "--against 'mxnet' is not one of keras, keras-twin, torchvision, "),
        ("resnet20 --against ,", "--against is empty"),
        ("resnet20 --batch 0", "--batch '0' is not a whole number from 1."),
        ("resnet20 --batch 1,many", "--batch 'many' is not a whole number from 1."),
        ("resnet20 --batch 2.5", "--batch '2.5'"),
        ("resnet20 --option cardinality=3", "resnet20 has no option 'cardinality'"),
        ("resnet20 --fold", "--fold is for --mode inference"),
        ("resnet20 --mode export --dtype bfloat16", "--mode export measures SavedModels, which compute in float32"),
        ("resnet20 --pairs 0", "Invalid value for '--pairs'"),
        ("resnet20 --warmup 1", "Invalid value for '--warmup'"),
        ("", "Missing argument 'MODEL…'"),
        ("resnet20 --out FILE", "FILE is a file; name a folder."),
        ("resnet20 --out FILE/folder", "--out FILE/folder cannot be written: Not a directory."),
    ],
)
def test_bad_input(cli, nothing_starts, tmp_path, monkeypatch, words, message):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    assert message in cli("benchmark", *words.split()).error


def test_looking_at_the_help_loads_no_framework():
    code = (
        "import sys; from keras_deepnets.cli import main; main(['benchmark', '--help']);"
        "from keras_deepnets.cli import benchmark; from benchmarks import memory;"
        "sys.exit(', '.join({'tensorflow', 'keras', 'torch', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def fakes(monkeypatch):
    """Workers that build nothing; what they were told."""
    jobs = []

    def start(job, name):
        jobs.append(job)
        return start_fake(job, name)

    for function in (pairs.measure, pairs.ceiling):
        monkeypatch.setattr(function, "__kwdefaults__", (function.__kwdefaults__ or {}) | {"start": start})
    return jobs


@pytest.mark.slow
def test_a_table_and_files(cli, fakes, tmp_path):  # noqa: F811
    words = ("resnet20", "resnet50", "--dtype", "float32,bfloat16", "--batch", "2,4", "--pairs", "2")
    done = cli("benchmark", *words, "--threads", "3", "--out", tmp_path / "new" / "out")
    assert done.status == 0, done.err
    lines = done.out.splitlines()
    assert [line for line in lines if line.startswith("resnet")] == [
        "resnet20, train, 32 × 32 pixels",
        "resnet50, train, 32 × 32 pixels",
    ]
    assert lines[1].split()[:6] == ["dtype", "batch", "side", "img/s", "ms/step", "ratio"]
    rows = [line for line in lines if line.startswith(("float32", "bfloat16"))]
    assert len(rows) == 2 * 2 * 2 * 2
    assert rows[0].split()[:3] == ["float32", "2", "ours"]
    assert rows[-1].split()[:4] == ["bfloat16", "4", "keras.applications", "ResNet50"]
    assert rows[0].count("×") == 1 and rows[1].count("×") == 0
    assert str(tmp_path / "new" / "out" / "benchmark.png") in done.out
    table = read_csv(tmp_path / "new" / "out" / "benchmark.csv")
    assert [row["against"] for row in table] == ["keras-twin"] * 8 + ["keras.applications"] * 8
    assert {row["ceiling_gflops"] for row in table} == {"12.5"}
    assert (tmp_path / "new" / "out" / "benchmark.png").stat().st_size > 10_000
    assert {row["threads"] for row in table} == {"3"} and {job.threads for job in fakes} == {3}
    assert [job.dtype for job in fakes if job.kind == "ceiling"] == ["float32", "bfloat16"]
    assert [job.library for job in fakes if job.kind == "network"][:2] == ["ours", "keras-twin"]
    assert [job.batch for job in fakes if job.kind == "network"][:4] == [2, 2, 4, 4]
    assert done.err.count("ratio") == 8


def test_peers_that_cannot_be_measured_are_named(cli, fakes, monkeypatch):  # noqa: F811
    real = importlib.util.find_spec
    installed = {"torch": None, "timm": None, "torchvision": real("json")}  # whatever this environment has
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed[name] if name in installed else real(name))
    words = ("resnet20", "--pairs", "2", "--batch", "2", "--no-ceiling", "--against", "timm,keras")
    done = cli("benchmark", *words)
    assert done.status == 0, done.err
    assert "timm was skipped; torch and timm are missing: pip install torch timm." in done.out.splitlines()
    assert "stock Keras twin" in done.out
    values = cli("benchmark", *words[:-1], "timm", "--json").json
    assert values["left_out"] == ["timm was skipped; torch and timm are missing: pip install torch timm"]
    (ours,) = values["results"]  # which is left
    assert (ours["side"], ours["ratio"], ours["batch"]) == ("ours", None, 2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    values = cli("benchmark", *words[:-1], "timm,torchvision", "--json").json
    assert values["left_out"] == ["timm has no resnet20", "torchvision has no resnet20"]
    values = cli("benchmark", "resnet18", *words[1:-1], "timm", "--mode", "export", "--json").json
    assert values["left_out"] == ["timm writes no SavedModel, so --mode export skips it"]


def test_one_that_fails_does_not_take_the_others_along(cli, monkeypatch, tmp_path, fakes):  # noqa: F811
    real = pairs.measure

    def measure(configuration, *args, **kwargs):
        if configuration.batch == 4:
            raise WorkerError("ours (resnet20) was killed by SIGKILL")
        return real(configuration, *args, **kwargs)

    monkeypatch.setattr(pairs, "measure", measure)
    words = ("resnet20", "--batch", "2,4,8", "--pairs", "2", "--no-ceiling", "--out", tmp_path)
    done = cli("benchmark", *words)
    assert done.status == 1
    assert done.err.splitlines()[-1] == (
        "keras-deepnets: failed: 1 of 3 could not be measured: ours (resnet20) was killed by SIGKILL"
    )
    assert [row["batch"] for row in read_csv(tmp_path / "benchmark.csv")] == ["2", "2", "8", "8"]


def test_what_only_a_worker_can_see_is_bad_input_too(cli, monkeypatch):  # noqa: F811
    def measure(*args, **kwargs):
        raise InputError("ResNet20: input_shape=(2, 2, 3) is too small.")

    monkeypatch.setattr(pairs, "measure", measure)
    done = cli("benchmark", "resnet20", "--image-size", "2", "--no-ceiling", "--json")
    assert done.error == "ResNet20: input_shape=(2, 2, 3) is too small."


@pytest.mark.slow
def test_a_real_pair(cli, tmp_path):  # noqa: F811
    words = ("resnet20", "--image-size", "8", "--batch", "2", "--pairs", "3", "--no-ceiling", "--json")
    values = cli("benchmark", *words, "--out", tmp_path).json
    ours, theirs = values["results"]
    assert (ours["side"], theirs["side"]) == ("ours", "keras-twin")
    assert values["files"] == [str(tmp_path / "benchmark.csv"), str(tmp_path / "benchmark.png")]
    assert ours["parameters"] == theirs["parameters"] == 269_722
    assert ours["multiply_adds"] == theirs["multiply_adds"] == (40_551_040 - 640) // 16 + 640
    assert ours["ms_per_step"] == pytest.approx(2000 / ours["images_per_second"])
    assert ours["pairs"] == 3
    assert ours["activation_bytes"] is None or ours["activation_bytes"] >= 0  # too little for an arena of chunks
    assert ours["process_peak_bytes"] > 10**8
    assert ours["first_step_seconds"] > ours["ms_per_step"] / 1000
    assert all(side["import_seconds"] > 0.1 for side in (ours, theirs))


@pytest.mark.slow
def test_every_mode_and_torch(cli):  # noqa: F811
    pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is missing")
    words = ("resnet18", "--image-size", "32", "--batch", "2", "--pairs", "2", "--against", "keras,torchvision")
    for mode, sides in (("train", 4), ("inference", 4), ("export", 2)):
        values = cli("benchmark", *words, "--mode", mode, "--json").json
        assert len(values["results"]) == sides
        assert all(row["share_of_ceiling"] > 0 for row in values["results"])
    values = cli("benchmark", *words, "--mode", "inference", "--fold", "--json").json
    assert [row["side"] for row in values["results"]] == ["ours-folded", "keras-twin", "ours-folded", "torchvision"]


def memory_command(*words):
    return problems.status_of(lambda: memory.run([str(word) for word in words]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--depths 41", "depth=41 is not 6n+4"),
        ("--depths 40,x", "--depths 'x' is not a whole number from 1."),
        ("--batch 0", "--batch '0'"),
        ("--dtype int8", "--dtype 'int8' is not one of"),
        ("--out FILE", "--out FILE is a file; name a folder."),
    ],
)
def test_bad_input_of_memory(nothing_starts, tmp_path, monkeypatch, capfd, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("")
    assert memory_command(*words.split()) == 2
    _, err = capfd.readouterr()
    assert message in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_memory_against_depth(tmp_path, monkeypatch, capfd):
    jobs = []

    def start(job, name):
        jobs.append(job)
        return start_fake(job, name)

    monkeypatch.setattr(memory.measure, "__kwdefaults__", memory.measure.__kwdefaults__ | {"start": start})
    assert memory_command("--depths", "22,16", "--growth-rate", "4", "--batch", "3", "--out", tmp_path) == 0
    rows = read_csv(tmp_path / "memory.csv")
    assert [(row["depth"], row["memory_efficient"]) for row in rows] == [
        ("16", "False"),
        ("16", "True"),
        ("22", "False"),
        ("22", "True"),
    ]
    assert [job.options["depth"] for job in jobs] == [16, 16, 22, 22]
    assert jobs[1].options == {
        "depth": 16,
        "growth_rate": 4,
        "bottleneck": True,
        "compression": 0.5,
        "stem": "cifar",
        "memory_efficient": True,
    }
    out, _ = capfd.readouterr()
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["depth", "16", "16"]
    assert (tmp_path / "memory.png").stat().st_size > 10_000


@pytest.mark.slow
def test_memory_grows_less_when_it_is_recomputed(tmp_path):
    words = ("--depths", "16,40", "--batch", "8", "--image-size", "16", "--out", tmp_path)
    assert memory_command(*words) == 0
    held = {(row["depth"], row["memory_efficient"]): row for row in read_csv(tmp_path / "memory.csv")}
    known = {key: int(row["activation_bytes"] or 0) for key, row in held.items()}
    assert known["40", "True"] < 0.8 * known["40", "False"]
    assert held["40", "True"]["parameters"] == held["40", "False"]["parameters"]
