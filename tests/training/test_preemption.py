"""A signal saves the state inside an epoch, and the run goes on with the same batches. Real processes and signals."""

import json
import os
import signal

import keras
import numpy as np
import pytest

from keras_deepnets import training
from keras_deepnets.errors import InputError
from keras_deepnets.training import CheckpointStore, read_metrics
from keras_deepnets.training.interim import interval
from tests.distribution.common import finished, log, record, started, wait_for
from tests.distribution.test_workers import SHORT

pytestmark = pytest.mark.integration

RUN = SHORT | {"epochs": 3, "recipe": "fast", "ema": 0.9, "validation": 0.2}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run without an interruption: its folder and what it recorded."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, finished(1, folder, RUN)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "epoch", "step"), [(signal.SIGTERM, 1, 3), (signal.SIGUSR1, 0, 4)])
def test_a_signal_saves_the_state_and_the_run_goes_on(tmp_path, whole, kind, epoch, step):
    whole, uncut = whole
    cut, done = tmp_path, 10 * epoch + step
    (process,) = started(1, cut, RUN, pause=done)
    paused = record(cut, 0).with_suffix(".json.paused")
    wait_for(paused.exists, [process])
    process.send_signal(kind)
    paused.with_suffix(".go").touch()
    assert process.wait(60) == 143
    name = signal.Signals(kind).name
    assert f"{name} ended the run after epoch {epoch + 1}, step {step}. The state is saved" in log(cut, 0)
    assert (cut / "run" / "checkpoints" / f"epoch-{epoch:05d}-step-{step:06d}").is_dir()
    assert not (cut / "run" / "model.keras").exists()
    (rest,) = finished(1, cut, RUN)
    assert f"after epoch {epoch} of 3, step {step}." in log(cut, 0)
    assert rest["weights"] == uncut["weights"]
    np.testing.assert_array_equal(rest["losses"], uncut["losses"][done:])
    for ours, theirs in zip(*(read_metrics(folder / "run" / "metrics.csv") for folder in (cut, whole)), strict=True):
        same = {"epoch", "step", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
        assert {key: ours[key] for key in same} == {key: theirs[key] for key in same}


class Terminate(keras.callbacks.Callback):
    """Send SIGTERM to this process after a step of an epoch, or when the first epoch ends."""

    def __init__(self, epoch=0, step=None):
        super().__init__()
        self._epoch, self._step, self._current = epoch, step, 0

    def on_epoch_begin(self, epoch, logs=None):
        self._current = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self._current, batch + 1) == (self._epoch, self._step):
            os.kill(os.getpid(), signal.SIGTERM)

    def on_epoch_end(self, epoch, logs=None):
        if self._step is None and epoch == self._epoch:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_inside_an_epoch(tmp_path):
    options = {"recipe": "fast", "epochs": 2, "limit": 96, "batch_size": 16, "ema": 0.9, "verbose": 0}
    options |= {"validation": False, "model_options": {"depth": 8, "stem": "cifar"}}
    whole = training.train("PlainNet", "digits", run_dir=tmp_path / "whole", **options)
    with pytest.raises(training.Preempted, match=r"SIGTERM ended the run after epoch 2, step 2\. The state is saved"):
        training.train("PlainNet", "digits", run_dir=tmp_path / "cut", callbacks=[Terminate(1, 2)], **options)
    cut = training.train("PlainNet", "digits", run_dir=tmp_path / "cut", **options)
    for ours, theirs in zip(cut.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert cut.history["loss"] == whole.history["loss"]


def test_sigterm_after_the_last_step(tmp_path):
    """The run is complete, but a program that trains several networks must not begin the next one."""
    options = {"recipe": "fast", "epochs": 1, "limit": 64, "batch_size": 16, "verbose": 0, "run_dir": tmp_path / "run"}
    options |= {"model_options": {"depth": 8, "stem": "cifar"}}
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(training.Preempted, match=r"SIGTERM came after the last step\. The run is finished") as raised:
        training.train("PlainNet", "digits", callbacks=[Terminate()], **options)
    assert raised.value.code == 143
    assert signal.getsignal(signal.SIGTERM) == before
    found = training.train("PlainNet", "digits", **options)
    assert len(found.history["loss"]) == 1 and (tmp_path / "run" / "model.keras").exists()


# Features are kept, and a convolution as classifier.
@pytest.mark.parametrize("model", ["fitnet1", pytest.param("nin", marks=pytest.mark.slow)])
def test_a_signal_between_two_phases(tmp_path, model):
    """The state belongs to the first phase and its optimizer, although the second phase has begun."""
    options = {"head_epochs": 1, "epochs": 1, "limit": 64, "batch_size": 16, "verbose": 0, "validation": False}
    whole = training.train(model, "digits", run_dir=tmp_path / "whole", **options)
    with pytest.raises(training.Preempted, match=r"SIGTERM ended the run after epoch 1\. The state is saved"):
        training.train(model, "digits", run_dir=tmp_path / "cut", callbacks=[Terminate()], **options)
    cut = training.train(model, "digits", run_dir=tmp_path / "cut", **options)
    assert cut.history["phase"] == whole.history["phase"] == [1, 2]
    np.testing.assert_allclose(cut.history["loss"], whole.history["loss"], rtol=1e-4)


@pytest.mark.slow
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
