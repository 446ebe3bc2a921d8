"""What a parent and its workers say to each other, and how they end."""

import io
import signal
import subprocess
import sys
import time

import pytest

from keras_deepnets.benchmark import process
from keras_deepnets.benchmark.jobs import Job
from keras_deepnets.benchmark.pairs import Plan, take_turns
from keras_deepnets.benchmark.process import WorkerError
from keras_deepnets.errors import InputError

from .common import fake, gone, start_fake
from .fake_worker import FACTS

pytestmark = pytest.mark.integration


def test_a_job_survives_its_line():
    job = Job(library="timm", peer=("resnet18", {"layers": [1, 2]}), options={"shortcut": "B"}, batch=3)
    assert "\n" not in job.to_json()
    assert Job.from_json(job.to_json()) == job


def test_protocol():
    with start_fake(fake(sleep=0.05)) as worker:
        assert worker.built() == FACTS == worker.facts
        assert 0.05 <= worker.step() < 5
        memory = worker.ask("memory")
        assert memory["activation_source"] == "resident memory"
        assert memory["activation_bytes"] is None or 0 <= memory["activation_bytes"] < 10**8
        assert 10**6 < worker.quit()["process_peak_bytes"] < 10**9
    assert gone(worker.pid)


def test_what_a_framework_prints_is_no_answer():
    with start_fake(fake(chatter='{"seconds": 1}\n')) as worker:
        assert worker.built() == FACTS
        assert worker.step() < 1


def test_waiting_costs_nothing():
    with start_fake(fake()) as worker:
        worker.built()
        ticks = []
        for _ in range(2):
            with open(f"/proc/{worker.pid}/stat") as file:  # noqa: PTH123
                ticks.append(sum(map(int, file.read().rpartition(")")[2].split()[11:13])))
            time.sleep(0.3)
    assert ticks[1] - ticks[0] <= 1


def test_threads_and_other_variables_of_a_worker(monkeypatch):
    """They are what the frameworks read; what the user has set himself stays."""
    environments = []
    monkeypatch.setattr(process, "busy_elsewhere", lambda: True)
    monkeypatch.setattr(process.subprocess, "Popen", lambda *args, env, **kwargs: environments.append(env) or Deaf())
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    process.Worker(Job(), "ours")
    process.Worker(Job(library="timm", threads=3), "timm")
    ours, timm = environments
    assert ours["TF_FORCE_GPU_ALLOW_GROWTH"] == timm["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"
    assert "OMP_NUM_THREADS" not in ours and "GOMP_SPINCOUNT" not in ours
    assert timm["OMP_NUM_THREADS"] == timm["TF_NUM_INTRAOP_THREADS"] == "3"
    assert timm["GOMP_SPINCOUNT"] == "3000"


class Deaf:
    """A process that nobody has started."""

    stdin = io.StringIO()


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ({"die": 2}, "fake ended with status 3: the last word"),
        ({"kill": 2}, "fake was killed by SIGKILL, as the system does when memory runs out"),
        ({"stop": 2}, "fake: ValueError: two lines"),
    ],
)
def test_a_worker_that_fails(does, message):
    with pytest.raises(WorkerError) as error, start_fake(fake(**does)) as worker:
        worker.built()
        worker.step()
        worker.step()
    assert str(error.value) == message
    assert gone(worker.pid)


def test_bad_input_that_only_a_worker_can_see():
    with pytest.raises(InputError, match=r"^too small$"), start_fake(fake(bad=1)) as worker:
        worker.built()
        worker.step()


def test_an_unknown_command():
    with start_fake(fake()) as worker:
        worker.built()
        with pytest.raises(WorkerError, match="no such command: 'jump'"):
            worker.ask("jump")


def pids(log):
    return [int(line.split()[1]) for line in log.read_text().splitlines() if not line.endswith("step")]


def test_when_one_dies_the_other_goes_too(tmp_path):
    log = tmp_path / "log"
    jobs = {"ours": fake("ours", log=str(log)), "theirs": fake("theirs", log=str(log), kill=4)}
    with pytest.raises(WorkerError, match=r"^theirs \(a test\) was killed by SIGKILL"):
        take_turns(jobs, "a test", Plan(pairs=5), start_fake)
    assert len(pids(log)) == 2
    assert all(gone(pid) for pid in pids(log))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_parent_leaves_nothing_behind(tmp_path, how):
    log = tmp_path / "log"
    program = (
        "import sys; from tests.benchmark.common import fake, start_fake; from keras_deepnets.benchmark.pairs import *;"
        "jobs = {name: fake(name, log=sys.argv[1], sleep=60 if name == 'theirs' else 0) for name in ('ours', 'theirs')};"
        "take_turns(jobs, 'a test', Plan(), start_fake)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(log)], stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 30
    while not (log.exists() and "theirs step" in log.read_text()) and time.monotonic() < end:
        time.sleep(0.05)
    parent.send_signal(how)
    _, err = parent.communicate(timeout=20)
    assert parent.returncode == -how, err
    assert len(pids(log)) == 2
    assert all(gone(pid) for pid in pids(log))
