import math

import keras
import numpy as np
import pytest

from keras_deepnets.training import HalfCosine, OneCycle, PiecewiseDrops, WarmUp, get_recipe
from keras_deepnets.training.schedules import learning_rate


def rates(schedule, *steps):
    return [float(schedule(step)) for step in steps]


def test_piecewise_drops_at_the_papers_iterations():
    schedule = learning_rate(get_recipe("he2015_cifar"), 64_000)
    found = rates(schedule, 0, 31_999, 32_000, 47_999, 48_000, 63_999)
    np.testing.assert_allclose(found, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-7)


def test_milestones_follow_a_changed_length():
    schedule = learning_rate(get_recipe("he2015_cifar", steps=100), 100)
    np.testing.assert_allclose(rates(schedule, 49, 50, 74, 75), [0.1, 0.01, 0.01, 0.001], rtol=1e-6)


def test_warmup_of_110_layers():
    schedule = learning_rate(get_recipe("he2015_cifar").for_model("resnet110"), 64_000)
    np.testing.assert_allclose(rates(schedule, 0, 399, 400, 32_000), [0.01, 0.01, 0.1, 0.01], rtol=1e-6)


def test_linear_warmup():
    schedule = WarmUp(0.8, steps=4, learning_rate=0.0)
    np.testing.assert_allclose(rates(schedule, 0, 1, 2, 3, 4, 9), [0, 0.2, 0.4, 0.6, 0.8, 0.8], rtol=1e-6)


def test_one_cycle():
    schedule = OneCycle(0.5, steps=100, peak_at=0.3)
    np.testing.assert_allclose(
        rates(schedule, 0, 15, 30, 65, 99, 100, 200), [0.02, 0.26, 0.5, 0.25, 0.5 / 70, 0, 0], rtol=1e-6
    )
    np.testing.assert_allclose(rates(OneCycle(0.5, 10, 0.0), 0, 5), [0.5, 0.25], rtol=1e-6)


def test_half_cosine():
    schedule = HalfCosine(0.4, steps=10)
    expected = [0.2 * (1 + math.cos(math.pi * step / 10)) for step in (0, 3, 5, 9, 10)] + [0]
    np.testing.assert_allclose(rates(schedule, 0, 3, 5, 9, 10, 25), expected, atol=1e-7)


def test_constant_and_plateau_leave_a_settable_number():
    for name in ("constant", "plateau"):
        assert learning_rate(get_recipe("fast", schedule=name, learning_rate=0.3), 10) == 0.3


@pytest.mark.parametrize(
    "schedule",
    [
        PiecewiseDrops(0.1, [3, 6], 0.2),
        OneCycle(0.1, 10, 0.3),
        HalfCosine(0.1, 10),
        WarmUp(OneCycle(0.1, 10, 0.3), 3, 0.01, "constant"),
        WarmUp(0.1, 3),
    ],
    ids=lambda schedule: type(schedule).__name__,
)
def test_serialises(schedule):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert rates(again, 0, 2, 3, 5, 9) == rates(schedule, 0, 2, 3, 5, 9)
