import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same seed, the float32 policy and an empty session."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
