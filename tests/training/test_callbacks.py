import io
import math
import os
import platform
import types
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from keras_deepnets.files import written_aside
from keras_deepnets.training import MetricsFile, StopOnNonFinite, TrainingError, progress_callback, read_metrics
from keras_deepnets.training import precision as precisions
from keras_deepnets.training.callbacks import not_finite, plateaus
from keras_deepnets.training.errors import is_disk_full
from tests.training.common import images, network


def test_plateaus():
    assert plateaus([], 2) == 0
    assert plateaus([0.5, 0.4, 0.3], 2) == 0
    assert plateaus([0.5, 0.5, 0.5], 2) == 1
    assert plateaus([0.5, 0.6, 0.5, 0.5, 0.5], 2) == 2
    assert plateaus([0.5, 0.6, 0.4, 0.5, 0.3], 2) == 0


def test_every_callback_works_in_a_plain_fit(tmp_path):
    """As the documentation promises: no `train` around them."""
    model, history = network(), []
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        images().batches(32),
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=[StopOnNonFinite(), MetricsFile(tmp_path / "metrics.csv", history, 32)],
    )
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.csv")] == [3, 6]
    assert read_metrics(tmp_path / "metrics.csv") == history
    model.layers[-1].kernel.assign(np.full(model.layers[-1].kernel.shape, math.nan))
    with pytest.raises(TrainingError, match="The loss became nan in epoch 1, step 1"):
        model.fit(images().batches(32), shuffle=False, verbose=0, callbacks=[StopOnNonFinite()])


def test_the_bar_counts_every_step():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=160)
    model, history = network(), []
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    bar = progress_callback("auto", 6, 32, history, console)
    model.fit(images().batches(32), epochs=2, shuffle=False, verbose=0, callbacks=[MetricsFile(None, history, 32), bar])
    shown = text.getvalue()
    for part in ("compiling", "epoch 1/2", "epoch 2/2", "trained", "step 6/6", "img/s", "accuracy", "lr 0.01"):
        assert part in shown


def test_which_progress():
    terminal = Console(file=io.StringIO(), force_terminal=True)
    plain = Console(file=io.StringIO(), force_terminal=False)
    kinds = [
        type(progress_callback(verbose, 1, 1, [], console)).__name__
        for verbose, console in (("auto", terminal), ("auto", plain), (1, plain), (2, terminal), (0, terminal))
    ]
    assert kinds == ["Bar", "EpochLines", "Bar", "EpochLines", "NoneType"]


def test_written_aside(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("before")
    with pytest.raises(RuntimeError), written_aside(path) as aside:
        aside.write_text("half")
        raise RuntimeError
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    with written_aside(path) as aside:
        aside.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append(os.fstat(handle).st_ino), fsync(handle)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (calls.append("rename"), replace(self, to)))
    with written_aside(tmp_path / "folder") as aside:
        (aside / "inner").mkdir(parents=True)
        (aside / "inner" / "file").write_text("1")
    folder = tmp_path / "folder"
    expected = [folder / "inner" / "file", folder / "inner", folder]
    assert calls == [*(path.stat().st_ino for path in expected), "rename", tmp_path.stat().st_ino]


def test_growth_of_memory_is_set_or_its_lack_is_said(monkeypatch):
    device = types.SimpleNamespace(name="/physical_device:GPU:0")
    grown = []

    def set_growth(device, value):
        if grown:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        grown.append(value)

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [device])
    monkeypatch.setattr(tf.config.experimental, "get_memory_growth", lambda device: False)
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", set_growth)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        precisions.prepare_gpus()
    assert grown == [True]
    with pytest.warns(UserWarning, match=r"takes all memory of /physical_device:GPU:0 .*prepare_gpus\(\) before"):
        precisions.prepare_gpus()
    monkeypatch.setattr(tf.config.experimental, "get_memory_growth", lambda device: True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        precisions.prepare_gpus()


def test_circumstances_in_one_line(monkeypatch):
    model = network()
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
    monkeypatch.setattr(precisions, "devices", lambda: {"gpus": ["NVIDIA H100", "NVIDIA H100"], "tf32": True})
    line = precisions.circumstances(model, "mixed_bfloat16", "auto: compute capability 9.0")
    assert line == (
        "On NVIDIA H100, NVIDIA H100 in mixed_bfloat16 (auto: compute capability 9.0), TF32 on for float32 products, XLA on."
    )
    monkeypatch.setattr(precisions, "devices", lambda: {"gpus": []})
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    assert (
        precisions.circumstances(model, "float32", "as requested") == "On the CPU in float32 (as requested), XLA off."
    )
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    for has, warning in (
        (True, ""),
        (False, " This CPU has no bfloat16 instructions: float32 is several times faster."),
    ):
        monkeypatch.setattr(precisions.processor, "has_bfloat16", lambda has=has: has)
        line = precisions.circumstances(model, "mixed_bfloat16", "as requested")
        assert line == f"On the CPU in mixed_bfloat16 (as requested), XLA off.{warning}"


def test_not_finite_names_the_variable():
    model = network()
    model.compile(keras.optimizers.SGD(momentum=0.9), "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    assert not_finite([*model.weights, *model.optimizer.variables]) is None
    assert not_finite([]) is None
    normalization = model.layers[2]
    normalization.moving_variance.assign([1.0, math.inf, 1.0, 1.0])
    assert not_finite(model.weights) == normalization.moving_variance.path


def test_disk_full_is_recognised():
    assert is_disk_full(OSError(28, "No space left on device"))
    assert is_disk_full(
        RuntimeError("Can't flush (file write failed: errno = 28, error message = 'No space left on device')")
    )
    assert not is_disk_full(OSError(13, "Permission denied"))
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise ValueError("while saving") from error
    except ValueError as error:
        assert is_disk_full(error)


def test_policies(monkeypatch):
    with precisions.policy("mixed_bfloat16"):
        model = network()
    assert precisions.policy_of(model) == "mixed_bfloat16"
    assert precisions.policy_of(network()) == "float32"
    assert keras.config.dtype_policy().name == "float32"
