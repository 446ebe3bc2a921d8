"""The workers of a job, as Kubernetes, Slurm or a script describe them to each process."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from keras_deepnets.errors import InputError

CONFIG = "TF_CONFIG"
_FIRST_PORT = 20_000
_PORTS = 20_000


@dataclass(frozen=True)
class Cluster:
    """The workers of a job and the place of this process among them.

    Attributes:
        workers: Address of each worker, ``host:port``.
        index: Number of this worker, from 0. Worker 0 is the chief: it writes the run folder.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def size(self) -> int:
        """Number of workers."""
        return len(self.workers)

    @property
    def local_index(self) -> int:
        """Number of this worker among those with the same host."""
        host = self.workers[self.index].rpartition(":")[0]
        return sum(worker.rpartition(":")[0] == host for worker in self.workers[: self.index])

    def tf_config(self) -> str:
        """The value of ``TF_CONFIG`` that describes the cluster."""
        return json.dumps({"cluster": {"worker": list(self.workers)}, "task": {"type": "worker", "index": self.index}})


def from_environment(environment: Mapping[str, str] | None = None) -> Cluster | None:
    """The cluster that ``TF_CONFIG`` or Slurm's variables describe. None without such a variable, or for only one worker.

    Args:
        environment: Environment variables. None: those of the process.

    Raises:
        InputError: A variable cannot be read.
    """
    environment = os.environ if environment is None else environment
    if environment.get(CONFIG):
        found = _of_config(environment[CONFIG])
    elif int(environment.get("SLURM_NTASKS") or 1) > 1 and "SLURM_PROCID" in environment:
        found = _of_slurm(environment)
    else:
        return None
    return found if found.size > 1 else None


def _of_config(text: str) -> Cluster:
    """Read ``TF_CONFIG``: ``{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}``."""
    form = '{"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
    try:
        values = json.loads(text)
        jobs, task = values["cluster"], values["task"]
        workers = [*jobs.get("chief", []), *jobs.get("worker", [])]
        kind, index = task["type"], int(task["index"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{CONFIG}={text!r} cannot be read ({error}); give {form}.") from None
    if kind not in ("chief", "worker") or set(jobs) - {"chief", "worker", "evaluator"}:
        raise InputError(
            f"{CONFIG} has a task of type {kind!r} and jobs {', '.join(jobs)}; only workers are supported: give {form}."
        )
    place = index + (len(jobs.get("chief", [])) if kind == "worker" else 0)
    if not 0 <= place < len(workers):
        raise InputError(f"{CONFIG} gives this process number {index}, and there are {len(workers)} workers.")
    if broken := [worker for worker in workers if not re.fullmatch(r"\S+:\d+", str(worker))]:
        raise InputError(f"{CONFIG} has the worker {broken[0]!r}; give host:port.")
    return Cluster(tuple(workers), place)


def _of_slurm(environment: Mapping[str, str]) -> Cluster:
    """Read the variables that `srun` sets for each task. All tasks derive the same ports from the number of the job."""
    names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE")
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise InputError(f"{missing[0]} is not set; start the workers with srun, or set {CONFIG}.")
    hosts = expand_hosts(environment["SLURM_STEP_NODELIST"])
    counts = expand_counts(environment["SLURM_STEP_TASKS_PER_NODE"])
    size = int(environment["SLURM_NTASKS"])
    if len(hosts) != len(counts) or sum(counts) != size:
        raise InputError(
            f"SLURM_STEP_NODELIST has {len(hosts)} hosts and SLURM_STEP_TASKS_PER_NODE {sum(counts)} tasks, and SLURM_NTASKS is {size}."
        )
    first = _FIRST_PORT + int(environment.get("SLURM_JOB_ID", "0")) % _PORTS
    workers = [f"{host}:{first + at}" for host, count in zip(hosts, counts, strict=True) for at in range(count)]
    return Cluster(tuple(workers), int(environment["SLURM_PROCID"]))


def expand_hosts(text: str) -> list[str]:
    """The hosts of a Slurm list: ``"gpu[01-03,7],login"`` is gpu01, gpu02, gpu03, gpu7, login.

    Raises:
        InputError: The list cannot be read.
    """
    found: list[str] = []
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", text):
        pieces = [""]
        for word, ranges in re.findall(r"([^\[\]]+)|\[([^\]]*)\]", part):
            ends = [word] if word else [end for span in ranges.split(",") for end in _span(span, text)]
            pieces = [piece + end for piece in pieces for end in ends]
        found += pieces
    if not found:
        raise InputError(f"{text!r} is not a list of hosts, such as gpu[01-04].")
    return found


def _span(text: str, whole: str) -> list[str]:
    first, _, last = text.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        raise InputError(f"{whole!r} is not a list of hosts, such as gpu[01-04].")
    return [str(number).zfill(len(first)) for number in range(int(first), int(last or first) + 1)]


def expand_counts(text: str) -> list[int]:
    """The numbers of a Slurm list: ``"2(x3),1"`` is 2, 2, 2, 1.

    Raises:
        InputError: The list cannot be read.
    """
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part.strip())
        if match is None:
            raise InputError(f"{text!r} is not a list of task counts, such as 2(x3),1.")
        found += [int(match[1])] * int(match[2] or 1)
    return found
