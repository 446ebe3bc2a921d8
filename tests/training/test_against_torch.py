"""Fifty steps of loss against the same network, batches and recipe in torch; see `tests.golden.training`."""

import json

import numpy as np
import pytest

from keras_deepnets.training.losses import BinaryCrossentropy, SmoothedCrossentropy
from keras_deepnets.training.optimizers import optimizer
from tests.golden import training
from tests.golden.compare import build, fill

# The others compile for ten seconds each.
QUICK = [name for name in training.RUNS if name not in ("huang2017_cifar", "wightman2021_a3")]


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in training.RUNS]
)
def test_fifty_steps_of_loss(name):
    case, recipe = training.case_of(training.RUNS[name][0]), training.recipe_of(name)
    model = build(case, training.SIDE, training.SIDE)
    fill(case, model)
    mixed = recipe.loss == "binary_crossentropy"
    loss = (BinaryCrossentropy if mixed else SmoothedCrossentropy)(recipe.label_smoothing, from_logits=True)
    model.compile(optimizer(recipe, recipe.total_steps(390), 390), loss)
    found = [float(model.train_on_batch(*batch)) for batch in training.batches(mixed)]
    expected = json.loads(training.PATH.read_text())[name]
    assert np.mean(expected[-10:]) < 0.9 * expected[0]  # it learns, so the steps matter
    np.testing.assert_allclose(found, expected, rtol=1e-3)
