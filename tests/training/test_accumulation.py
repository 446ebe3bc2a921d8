"""A batch in parts trains as the whole batch does."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_deepnets import training
from keras_deepnets.errors import InputError
from keras_deepnets.training.accumulation import in_parts

pytestmark = pytest.mark.integration


def network():
    keras.utils.set_random_seed(2)
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(keras.layers.Flatten()(x)))
    loss = keras.losses.SparseCategoricalCrossentropy()
    model.compile(keras.optimizers.SGD(0.3, momentum=0.9, clipnorm=0.5), loss, metrics=["accuracy"])
    return model


@pytest.mark.parametrize("weighted", [False, True])
def test_parts_equal_the_whole_batch(weighted):
    rng = np.random.default_rng(0)
    images, labels = rng.normal(size=(24, 8, 8, 1)).astype("float32"), rng.integers(0, 3, 24)
    weights = (rng.uniform(0.5, 2, 24).astype("float32"),) if weighted else ()
    whole, parts = network(), network()
    in_parts(parts, 4)
    for step in range(6):
        logs = [model.train_on_batch(images, labels, *weights, return_dict=True) for model in (whole, parts)]
        assert logs[1] == pytest.approx(logs[0], rel=2e-5), step
    for ours, theirs in zip(parts.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_the_other_backends(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    command = [sys.executable, "-m", "pytest", __file__, "-m", "integration", "-k", "whole_batch or run_in_parts"]
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.startswith("..."), done.stdout[-3000:]


@pytest.mark.slow
def test_a_run_in_parts(tmp_path):
    options = {"epochs": 1, "limit": 64, "batch_size": 16, "verbose": 0, "validation": False, "learning_rate": 1e-3}
    options |= {"precision": "float32"}
    one, four = (
        training.train("fitnet1", "digits", run_dir=tmp_path / str(parts), accumulate=parts, **options)
        for parts in (1, 4)
    )
    assert four.history["loss"] == pytest.approx(one.history["loss"], rel=1e-4)
    assert four.history["step"] == one.history["step"] == [4]


def test_a_batch_that_does_not_divide_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"batch_size=10 is computed in 4 parts \(accumulate\), so it must be divisible by 4"
    ):
        training.train("fitnet1", "digits", run_dir=tmp_path / "run", batch_size=10, accumulate=4)
    with pytest.raises(InputError, match="accumulate=0"):
        training.get_recipe("fast", accumulate=0)
