"""A signal saves the state inside an epoch, and the run goes on with the same batches. Real processes and signals."""

import json
import signal

import numpy as np
import pytest

from keras_deepnets.errors import InputError
from keras_deepnets.training import CheckpointStore, read_metrics
from keras_deepnets.training.interim import interval
from tests.distribution.common import finished, log, record, started
from tests.distribution.test_workers import SHORT, wait_for

RUN = SHORT | {"epochs": 3, "recipe": "fast", "ema": 0.9, "validation": 0.2}


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_the_state_and_the_run_goes_on(tmp_path, kind):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    (uncut,) = finished(1, whole, RUN)
    cut.mkdir()
    (process,) = started(1, cut, RUN, pause=13)
    paused = record(cut, 0).with_suffix(".json.paused")
    wait_for(paused.exists, [process])
    process.send_signal(kind)
    paused.with_suffix(".go").touch()
    assert process.wait(60) == 143
    name = signal.Signals(kind).name
    assert f"{name} ended the run after epoch 2, step 3. The state is saved" in log(cut, 0)
    assert (cut / "run" / "checkpoints" / "epoch-00001-step-000003").is_dir()
    assert not (cut / "run" / "model.keras").exists()
    (rest,) = finished(1, cut, RUN)
    assert "after epoch 1 of 3, step 3." in log(cut, 0)
    assert rest["weights"] == uncut["weights"]
    np.testing.assert_array_equal(rest["losses"], uncut["losses"][13:])
    for ours, theirs in zip(*(read_metrics(folder / "run" / "metrics.csv") for folder in (cut, whole)), strict=True):
        same = {"epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
        assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}


def test_checkpoints_by_steps(tmp_path):
    finished(1, tmp_path, RUN | {"epochs": 1, "checkpoint_every": "4 steps"})
    names = [path.name for path in CheckpointStore(tmp_path / "run" / "checkpoints").paths()]
    assert names == ["epoch-00001", "epoch-00000-step-000008"]
    state = json.loads((tmp_path / "run" / "checkpoints" / names[1] / "state.json").read_text())
    assert (state["epoch"], state["batch"], state["step"]) == (0, 8, 8) and state["seconds"] > 0


def test_intervals():
    assert interval("500 steps") == (500, None) and interval("1 step") == (1, None)
    assert interval("1.5 minutes") == (None, 90.0) and interval("2 hours") == (None, 7200.0)
    for text in ("5", "0 steps", "2.5 steps", "ten minutes", "-1 minutes"):
        with pytest.raises(InputError, match="give a number of steps or minutes"):
            interval(text)
