"""The measurement of augmenting layers, on batches that take no time."""

import itertools

import numpy as np
import pytest

from benchmarks import augmenting


@pytest.mark.parametrize("method", ["MixUp", "random erasing"])
def test_ours_repeats_and_keras_does_not(method):
    kinds = {"ours": augmenting.ours(method), "Keras": augmenting.of_layer(augmenting.keras_layer(method), method)}
    datasets = {name: augmenting.pipeline(augment, 4, 16) for name, augment in kinds.items()}
    assert {name: augmenting.repeats(dataset) for name, dataset in datasets.items()} == {"ours": True, "Keras": False}
    for name, dataset in datasets.items():
        found = list(itertools.islice(dataset.as_numpy_iterator(), 8))
        for images, targets in found:
            assert (images.shape, images.dtype, targets.shape) == ((4, 16, 16, 3), "uint8", (4, 10))
            np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
        # Maps that run side by side may read the state of Keras' seed before either writes it: two of its batches may be alike.
        different = len({images.tobytes() for images, _ in found})
        assert different == 8 if name == "ours" else different > 1


def test_rate():
    """A clock that is a quarter of a second further on whenever it is read: three batches a window."""
    times = itertools.count(0, 0.25)
    found = augmenting.rate(itertools.repeat(None), 8, augmenting.WINDOWS * 1.0, lambda: next(times))
    assert found == 24.0
