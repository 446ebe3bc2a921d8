"""Workers that hang or fail, through the command line: real processes on this machine."""

import os
import signal
import subprocess
import sys
import time

import pytest

from keras_deepnets.distribution import Cluster
from tests.distribution.common import ROOT, free_ports, log

pytestmark = pytest.mark.slow


@pytest.fixture
def job(tmp_path):
    """A function that starts workers of one job by their numbers, and their addresses."""
    addresses = tuple(f"localhost:{port}" for port in free_ports(3))
    running = []

    def start(count, *indices, **more):
        words = ["train", "resnet20", "digits", "--limit", "96", "--epochs", "500", "--set", "batch_size=48"]
        words += ["--precision", "float32", "--validation", "none", "--run-dir", str(tmp_path / "run")]
        words += ["--distribute", "multiworker", *more.get("words", [])]
        for index in indices:
            environment = os.environ | {
                "TF_CONFIG": Cluster(addresses[:count], index).tf_config(),
                "CUDA_VISIBLE_DEVICES": "-1",
                "PYTHONUNBUFFERED": "1",
            }
            with (tmp_path / f"worker-{index}.log").open("w") as output:
                command = [sys.executable, "-m", "keras_deepnets.cli", *words]
                running.append(
                    subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
                )
        return running

    yield start, addresses
    for process in running:
        process.kill()
        process.wait()


def wait_for(folder, index, text, seconds=150):
    end = time.monotonic() + seconds
    while text not in log(folder, index):
        assert time.monotonic() < end, log(folder, index)
        time.sleep(0.1)


@pytest.mark.parametrize("hung", [0, 1])
def test_a_hung_worker_stops_the_other(job, tmp_path, hung):
    start, addresses = job
    processes = start(2, 0, 1)
    wait_for(tmp_path, 0, " 2/500")
    processes[hung].send_signal(signal.SIGSTOP)
    begin = time.monotonic()
    assert processes[1 - hung].wait(90) == 2
    seconds = time.monotonic() - begin
    (line,) = [line for line in log(tmp_path, 1 - hung).splitlines() if "keras-deepnets: error" in line]
    print(f"{seconds:.1f} s: {line}")
    assert seconds < 60
    assert (
        f"Worker {1 - hung} of 2 stops, because there is no sign of life from worker {hung} ({addresses[hung]})."
        in line
    )
    assert "Start all workers again with the same command" in line and "Traceback" not in log(tmp_path, 1 - hung)


def test_a_worker_that_fails_while_others_connect(job, tmp_path):
    start, addresses = job
    processes = start(3, 0, 1)
    wait_for(tmp_path, 0, f"Waiting for worker 2 ({addresses[2]}).")
    wait_for(tmp_path, 1, f"Waiting for worker 2 ({addresses[2]}).")  # it is connected
    processes[1].kill()
    begin = time.monotonic()
    assert processes[0].wait(90) == 2 and time.monotonic() - begin < 60
    assert f"error: Worker 1 ({addresses[1]}) stopped before all workers were connected" in log(tmp_path, 0)


def test_a_worker_that_never_comes(job, tmp_path):
    start, addresses = job
    processes = start(3, 0, 1, words=["--connect-within", "25 seconds"])
    assert [process.wait(120) for process in processes] == [2, 2]
    for index in (0, 1):
        assert f"error: Worker 2 ({addresses[2]}) did not connect within 25 s" in log(tmp_path, index)
    assert not (tmp_path / "run").exists()
