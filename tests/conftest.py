import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gc

import keras
import numpy as np
import pytest

# The modules of TensorFlow and Keras are a million objects, which each full collection would visit.
gc.collect()
gc.freeze()
gc.set_threshold(100_000, 20, 100)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same seed, the float32 policy and an empty session."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
