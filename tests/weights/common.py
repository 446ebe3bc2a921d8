"""What the tests of weights share."""

import numpy as np

import keras_deepnets as kd
from keras_deepnets.weights.loading import weights_by_name


def tiny(**kwargs):
    """A residual network with labels and another scaling than its default."""
    kwargs = {"blocks": (1, 1), "filters": (8, 16), "stem": "cifar", "input_shape": (16, 16, 3), "classes": 4} | kwargs
    return kd.ResNet(**kwargs)


def fill(model, seed=0):
    """Random weights and statistics in the place of those of a new network."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        positive = weight.path.endswith(("moving_variance", "gamma"))
        values = rng.uniform(0.5, 1.5, weight.shape) if positive else rng.normal(0, 0.3, weight.shape)
        weight.assign(values.astype("float32"))
    return model


def arrays(model):
    """Name to array."""
    return {name: np.array(weight) for name, weight in weights_by_name(model).items()}


def assert_same(model, expected):
    """Every weight has the expected number, bit for bit."""
    found = arrays(model)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def peer_tensors(model, naming, prefix=""):
    """The weights of `model` under a peer's names, in its layout."""
    found = {}
    for name, array in arrays(model).items():
        if naming.layout == "torch" and array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif naming.layout == "torch" and array.ndim == 3:
            array = array.transpose()
        elif naming.layout == "torch" and array.ndim == 2:
            array = array.T[:, :, None, None] if naming.convolutional_classifier else array.T
        found[prefix + naming.theirs(name)] = array
    return found
