import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the commands, whatever the processor

import gc
from pathlib import Path

import keras
import numpy as np
import pytest

# The modules of TensorFlow and Keras are a million objects, which each full collection would visit.
gc.collect()
gc.freeze()
gc.set_threshold(100_000, 20, 100)

SLOW = Path(__file__).with_name("slow.txt")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same seed, the float32 policy and an empty session."""
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark the tests of slow.txt as slow. A name there that its file no longer has is an error."""
    listed = set(SLOW.read_text(encoding="utf-8").splitlines())
    found = {item.nodeid for item in items}
    whole = {item.path for item in items} if not any("::" in str(argument) for argument in config.args) else set()
    stale = [name for name in listed - found if config.rootpath / name.partition("::")[0] in whole]
    if stale:
        raise pytest.UsageError(f"{SLOW} names tests that do not exist: {', '.join(sorted(stale))}; delete the lines.")
    for item in items:
        if item.nodeid in listed:
            item.add_marker(pytest.mark.slow)
