"""The files of `examples/distributed/`: parsed, checked, and run where this machine can."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from keras_deepnets.cli import main
from keras_deepnets.training import read_metrics
from tests.distribution.common import ROOT, free_ports

EXAMPLES = ROOT / "examples" / "distributed"


@pytest.mark.slow
def test_the_script_trains_on_two_ports_of_this_machine(tmp_path):
    tool = tmp_path / "bin" / "keras-deepnets"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec {sys.executable} -m keras_deepnets.cli "$@"\n')
    tool.chmod(0o755)
    arguments = ["resnet20", "digits", "--limit", "128", "--epochs", "1", "--set", "batch_size=32", "--run-dir"]
    environment = os.environ | {
        "PATH": f"{tool.parent}:{os.environ['PATH']}",
        "WORKERS": " ".join(f"localhost:{port}" for port in free_ports(2)),
        "PYTHONPATH": str(ROOT),
    }
    processes = [
        subprocess.Popen(
            [EXAMPLES / "two_machines.sh", *arguments, tmp_path / f"run-{index}"],
            env=environment | {"INDEX": str(index)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(2)
    ]
    outputs = [process.communicate(timeout=180)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert [row["step"] for row in read_metrics(tmp_path / "run-0" / "metrics.csv")] == [4]
    assert not (tmp_path / "run-1").exists()  # only worker 0 writes
    assert "Worker 1 of 2 is done" in outputs[1]


def test_the_slurm_script(tmp_path):
    """With a stand-in for srun that prints its arguments."""
    text = (EXAMPLES / "slurm.sh").read_text()
    options = dict(line[8:].partition("=")[::2] for line in text.splitlines() if line.startswith("#SBATCH"))
    assert options["--signal"].startswith("USR1@") and options["--ntasks-per-node"] == options["--gpus-per-node"]
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    done = subprocess.run(
        ["bash", EXAMPLES / "slurm.sh", "resnet50", "a folder"],
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    command = done.stdout.splitlines()
    assert command[1:] == ["keras-deepnets", "train", "resnet50", "a folder", "--distribute", "multiworker"]


def test_the_manifest():
    job = yaml.safe_load((EXAMPLES / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "TFJob")
    (kind, worker), *others = job["spec"]["tfReplicaSpecs"].items()
    assert kind == "Worker" and not others and worker["replicas"] == 2
    # Not ExitCode: workers that lose another one end with status 2, which that policy does not restart.
    assert worker["restartPolicy"] == "OnFailure" and job["spec"]["runPolicy"]["backoffLimit"] > 0
    pod = worker["template"]["spec"]
    (container,) = pod["containers"]
    assert container["name"] == "tensorflow"  # the operator sets TF_CONFIG in the container of this name
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    words = [*container["command"], *container["args"]]
    assert words[:2] == ["keras-deepnets", "train"] and words[-2:] == ["--distribute", "multiworker"]
    with pytest.raises(SystemExit) as ended:  # the options exist, and the data does not
        raise SystemExit(main([*words[1:-2], "--distribute", "none"]))
    assert ended.value.code == 2


def test_the_scripts_are_executable():
    assert os.access(EXAMPLES / "two_machines.sh", os.X_OK)
    assert Path(EXAMPLES / "slurm.sh").read_text().startswith("#!/bin/bash\n")
