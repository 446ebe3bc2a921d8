"""The forward passes of other libraries' networks with the same weights, at every stage and at the logits.

`tests/golden` says how the golden outputs were made; its weights depend on names and shapes only, so nothing here needs torch.
"""

import dataclasses

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.families import densenet
from keras_deepnets.weights.names import weights_by_name
from keras_deepnets.weights.naming import our_array
from tests.golden import store
from tests.golden.cases import CASES
from tests.golden.compare import TOLERANCE, build, differences, fill
from tests.golden.deterministic import golden_input, golden_weights, summary

BY_PEER = {case.peer: case for case in CASES}


def marks(quick):
    return () if quick else pytest.mark.slow


@pytest.mark.parametrize("case", [pytest.param(case, id=case.peer, marks=marks(case.quick)) for case in CASES])
def test_outputs_are_the_peers(case):
    usual, odd = case.style.sizes
    fixed, free = build(case, *usual), build(case)
    assert fill(case, fixed) == store.load()[case.peer].digest
    free.set_weights(fixed.get_weights())
    for model, size in ((fixed, usual), (free, odd)):
        found = differences(case, model, size)
        assert max(found.values()) < TOLERANCE, f"{case.peer} at {size}: {found}"


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(case, id=case.peer) for case in CASES if case.quick])
def test_outputs_do_not_depend_on_what_is_known_of_the_size(case):
    usual, odd = case.style.sizes
    fixed, free = build(case, *odd), build(case)
    fill(case, fixed)
    free.set_weights(fixed.get_weights())
    for model, size in ((fixed, odd), (free, usual)):
        assert max(differences(case, model, size).values()) < TOLERANCE


def test_recomputing_layers_take_the_same_weights():
    case = BY_PEER["pytorchcv/densenet40_k12_bc_cifar10"]
    lean = dataclasses.replace(case, options=case.options | {"memory_efficient": True})
    model = build(lean)
    assert fill(lean, model) == store.load()[case.peer].digest
    assert max(differences(lean, model, (37, 29)).values()) < TOLERANCE


def test_goldens_are_those_of_the_cases_and_small():
    assert set(store.load()) == set(BY_PEER)
    assert store.PATH.stat().st_size < 300_000


def test_a_stride_in_the_wrong_convolution_shows_at_its_stage():
    case = BY_PEER["pytorchcv/resnext29_32x4d_cifar10"]
    wrong = dataclasses.replace(case, options=case.options | {"downsample": "1x1"})
    model = build(wrong, 32, 32)
    right = build(case, 32, 32)
    fill(case, right)
    model.set_weights(right.get_weights())
    found = differences(wrong, model, (32, 32))
    assert found["stage 1"] < TOLERANCE and found["stage 2"] > 0.01


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (0, 0, 8, 3), (0, 6, 0, 5), (0, 6, 8, 2), (0, 3, 4, 1)])
def test_summaries_move_with_every_number(place, rng):
    tensor = rng.normal(size=(1, 7, 9, 6))
    changed = tensor.copy()
    changed[place] += 0.1
    assert np.abs(summary(changed) - summary(tensor)).max() > TOLERANCE * np.abs(tensor).max()


def test_scaling_at_inference_folds_into_the_last_norm():
    # The paper multiplies a branch by its survival at inference; the peer divides in training and leaves inference alone.
    peer = BY_PEER["pytorchcv/resdropresnet20_cifar10"]
    case = dataclasses.replace(peer, options=peer.options | {"drop_unit": "batch", "block_layers": False})
    model = build(case, 32, 32)
    fill(case, model)
    assert differences(case, model, (32, 32))["stage 1"] > 0.01
    for layer in model.layers:
        if layer.name.endswith("_drop"):
            norm = model.get_layer(layer.name.replace("_drop", "_2_bn"))
            norm.gamma.assign(norm.gamma / layer.survival)
            norm.beta.assign(norm.beta / layer.survival)
    assert max(differences(case, model, (32, 32)).values()) < TOLERANCE


APPLICATIONS = {
    "ResNet50": (kd.ResNet50, {"downsample": "1x1"}),
    "ResNet101": (kd.ResNet101, {"downsample": "1x1"}),
    "ResNet152": (kd.ResNet152, {"downsample": "1x1"}),
    "DenseNet121": (densenet.DenseNet121, {}),
    "DenseNet169": (densenet.DenseNet169, {}),
    "DenseNet201": (densenet.DenseNet201, {}),
}


def randomize(model):
    """Golden weights for a network of keras.applications."""
    parts = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
    parts |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    for name, weight in weights_by_name(model).items():
        layer, part = name.split("/")
        shape = tuple(weight.shape)
        shape = tuple(shape[axis] for axis in (3, 2, 0, 1)) if len(shape) == 4 else shape[::-1]
        values = golden_weights(f"{layer}.{parts[part]}", shape, r"_3_bn\.(weight|bias|running_mean)$")
        weight.assign(our_array(values, len(shape)))


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_outputs_are_those_of_keras_applications(name):
    constructor, options = APPLICATIONS[name]
    image = keras.Input((None, None, 3))
    common = {"weights": None, "classes": 10, "classifier_activation": None}
    theirs = getattr(keras.applications, name)(input_tensor=image, **common)
    ours = constructor(input_shape=(None, None, 3), **common, **options)
    randomize(theirs)
    kd.load_weights(ours, theirs)
    ends = [layer.name for layer in ours.layers if layer.name.endswith(("_out", "_concat", "pool", "predictions"))]
    pair = [keras.Model(model.inputs[0], [model.get_layer(end).output for end in ends]) for model in (theirs, ours)]
    for size in ((224, 224), (215, 193)):
        expected, found = (model(golden_input(*size), training=False) for model in pair)
        for end, wanted, value in zip(ends, expected, found, strict=True):
            wanted = np.asarray(wanted)
            assert np.abs(wanted - value).max() < TOLERANCE * np.abs(wanted).max(), (end, size)
