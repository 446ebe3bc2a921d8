"""Processes of a run on this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

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
