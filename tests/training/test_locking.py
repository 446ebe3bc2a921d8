"""One process at a time trains in a run folder."""

import subprocess
import sys

import pytest

from keras_deepnets.errors import InputError
from keras_deepnets.training import train
from tests.training.common import images, network

SHORT = {"epochs": 3, "batch_size": 32, "learning_rate": 0.1, "augmentation": None, "verbose": 0}

HOLD = """
import sys
from keras_deepnets.training import RunFolder
with RunFolder(sys.argv[1]).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_processes_in_one_folder(tmp_path):
    """Also of a run that has not begun; and a killed process does not hold the folder."""
    path = tmp_path / "run"
    words = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError) as error:
            train(network(), images(), "fast", path, **SHORT)
        assert str(error.value) == (
            f"Run folder {path} is being trained by another process (pid {process.pid}). Wait until it ends, or choose another folder."
        )
        assert sorted(entry.name for entry in path.iterdir()) == [".lock", ".pid"]
        process.kill()
    run = train(network(), images(), "fast", path, **SHORT)
    assert len(run.history["loss"]) == 3
    assert not (path / ".pid").exists()
