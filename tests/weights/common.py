"""What the tests of weights share."""

import json

import numpy as np

import keras_deepnets as kd
from keras_deepnets.weights.names import weights_by_name


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
            layer = name.rpartition("/")[0]
            side = naming.convolutions.get(layer) or naming.flattened.get(layer, 1)
            array = array.reshape(side, side, -1, array.shape[1]).transpose(3, 2, 0, 1)
            array = array if layer in naming.convolutions else array.reshape(len(array), -1)
        found[prefix + naming.theirs(name)] = array
    return found


def write_hdf5_of_2019(model, path, head=None, slashes=False, epsilon=None):
    """A weights file as Keras 2 wrote them: a group a layer, its weights in an attribute, their values under ``layer/kernel:0``.

    Args:
        model: whose weights.
        path: of the file.
        head: what the classifier is called.
        slashes: ``conv1/bn`` in place of ``conv1_bn``, as in DenseNets then.
        epsilon: of all BN, in a model's config such as `model.save` writes.
    """
    import h5py

    def name_of(layer):
        name = head if head and layer.name == "predictions" else layer.name
        return name.replace("conv1_", "conv1/") if slashes and name in ("conv1_conv", "conv1_bn") else name

    with h5py.File(path, "w") as file:
        group = file
        if epsilon is not None:
            layers = [
                {"class_name": type(layer).__name__, "config": {"name": name_of(layer), "epsilon": epsilon}}
                for layer in model.layers
                if hasattr(layer, "epsilon")
            ]
            file.attrs["model_config"] = json.dumps({"class_name": "Model", "config": {"layers": layers}})
            group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name_of(layer).encode() for layer in model.layers]
        for layer in model.layers:
            own = group.create_group(name_of(layer))
            names = [f"{name_of(layer)}/{weight.name}:0" for weight in layer.weights]
            own.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                own[name] = np.array(weight)
