"""Processes of a run on this machine."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from keras_deepnets.training import read_metrics

ROOT = Path(__file__).parents[2]


def free_ports(count):
    """Ports that no process uses now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("localhost", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def started(count, folder, options, each=None, pause=""):
    """Start the processes of one run. `each` gives further options of single workers by their number."""
    ports = free_ports(count)
    processes = []
    for index in range(count):
        given = options | (each or {}).get(index, {})
        environment = dict(os.environ)
        environment.pop("TF_CONFIG", None)
        if count > 1:
            cluster = {"worker": [f"localhost:{port}" for port in ports]}
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
            given = {"distribute": "multiworker"} | given
        command = [sys.executable, "-m", "tests.distribution.worker", str(folder / "run"), str(record(folder, index))]
        command += [json.dumps(given), str(pause)]
        output = (folder / f"worker-{index}.log").open("w")
        processes.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, text=True)
        )
        output.close()
    return processes


def record(folder, index):
    """File in which a worker records its losses."""
    return folder / f"worker-{index}.json"


def log(folder, index):
    """What a worker printed."""
    return (folder / f"worker-{index}.log").read_text()


def finished(count, folder, options, each=None):
    """Run the processes of a run to their end, and return what each recorded."""
    folder.mkdir(parents=True, exist_ok=True)
    processes = started(count, folder, options, each)
    statuses = [process.wait(300) for process in processes]
    assert statuses == [0] * count, "\n".join(log(folder, index)[-3000:] for index in range(count))
    return [json.loads(record(folder, index).read_text()) for index in range(count)]


def wait_for(ready, processes, seconds=120):
    """Wait until a condition holds while all processes run."""
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end and all(process.poll() is None for process in processes)
        time.sleep(0.1)


def interrupted(count, folder, options, step, number):
    """Start the processes of a run, and send a signal to the second one when all have done so many steps."""
    processes = started(count, folder, options, pause=step)
    wait_for(
        lambda: all(record(folder, index).with_suffix(".json.paused").exists() for index in range(count)), processes
    )
    processes[1].send_signal(number)
    for index in range(count):
        record(folder, index).with_suffix(".json.go").touch()
    return processes


def check_kill_and_resume(folder, options):
    """Kill one of three workers in the middle of the second epoch. The others say so and stop, and the run resumes there."""
    options = options | {"epochs": 3, "checkpoint_every": "4 steps"}
    processes = interrupted(3, folder, options, 16, signal.SIGKILL)
    begin = time.monotonic()
    assert [process.wait(100) for process in (processes[0], processes[2])] == [1, 1]
    assert time.monotonic() - begin < 60
    for index in (0, 2):
        assert re.search(
            r"because (another worker stopped|there is no sign of life from .*worker 1 \(localhost)", log(folder, index)
        )
        assert "Start all workers again with the same command" in log(folder, index)
    assert max(path.name for path in (folder / "run" / "checkpoints").iterdir()).startswith("epoch-00001-step-")
    again = finished(3, folder, options)
    assert "Resuming" in log(folder, 0) and ", step " in log(folder, 0)
    assert len({worker["weights"] for worker in again}) == 1
    rows = read_metrics(folder / "run" / "metrics.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3] and rows[-1]["step"] == 30


def check_signal_and_resume(folder, options):
    """SIGTERM to one of two workers ends both. One process resumes the run."""
    options = options | {"epochs": 8, "limit": 240}  # long enough: the workers ask each other once per second
    processes = interrupted(2, folder, options, 8, signal.SIGTERM)
    assert [process.wait(60) for process in processes] == [143, 143]
    assert "SIGTERM: the state is saved after this step." in log(folder, 1)
    assert "A signal to another worker ended the run after epoch " in log(folder, 0)
    (alone,) = finished(1, folder, options)
    assert f"Resuming {folder / 'run'} after epoch " in log(folder, 0)
    assert len(alone["history"]["loss"]) == 8
