"""Fifty steps of loss against the same network, batches and recipe in torch; see `tests.golden.training`."""

import json

import numpy as np
import pytest

from keras_deepnets.training import SmoothedCrossentropy, get_recipe
from keras_deepnets.training.optimizers import optimizer
from tests.golden import training
from tests.golden.compare import build, fill


@pytest.mark.parametrize("peer", list(training.RUNS))
def test_fifty_steps_of_loss(peer):
    case = training.case_of(peer)
    name, changes = training.RUNS[peer]
    recipe = get_recipe(name, **changes)
    model = build(case, training.SIDE, training.SIDE)
    fill(case, model)
    steps = recipe.total_steps(390)
    model.compile(optimizer(recipe, steps, 390), SmoothedCrossentropy(recipe.label_smoothing, from_logits=True))
    found = [float(model.train_on_batch(images, labels)) for images, labels in training.batches()]
    expected = json.loads(training.PATH.read_text())[peer]
    assert np.mean(expected[-10:]) < 0.9 * expected[0]  # it learns, so the steps matter
    np.testing.assert_allclose(found, expected, rtol=1e-3)
