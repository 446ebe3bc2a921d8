"""What Keras and its applications save, in today's forms and in those of 2019."""

import importlib

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.weights import naming_tables
from tests.weights.common import arrays, fill, peer_tensors, write_hdf5_of_2019

pytestmark = pytest.mark.integration

SHAPE, CLASSES = (64, 64, 3), 5
BLOCKS = {
    "ResNet": {"blocks": (1, 2), "filters": (64, 16), "block": "bottleneck"},
    "PreActResNet": {"blocks": (2, 2), "filters": (64, 16), "block": "bottleneck"},
    "DenseNet": {"blocks": (1, 2, 1, 1)},
}
NEEDED = {"ResNet": {"downsample": "1x1"}, "PreActResNet": {"form": "keras"}, "DenseNet": {}}
ENDS = {
    "ResNet": ("conv2_block1_out", "conv3_block2_out", "predictions"),
    "PreActResNet": ("conv2_block2_out", "conv3_block2_out", "predictions"),
    "DenseNet": ("conv2_block1_concat", "pool3_pool", "predictions"),
}
HEADS = {"ResNet": "probs", "PreActResNet": "probs", "DenseNet": "fc1000"}


def applications(kind):
    """A small network of keras.applications' own functions, with moving variances as small as its epsilon."""
    kwargs = {"weights": None, "input_shape": SHAPE, "classes": CLASSES, "classifier_activation": None}
    row = BLOCKS[kind]
    if kind == "DenseNet":
        model = importlib.import_module("keras.src.applications.densenet").DenseNet(list(row["blocks"]), **kwargs)
    else:
        module = importlib.import_module("keras.src.applications.resnet")
        stack = module.stack_residual_blocks_v1 if kind == "ResNet" else module.stack_residual_blocks_v2

        strides = (1, 2) if kind == "ResNet" else (2, 1)  # V2's stages end with the strides that V1's begin with

        def stages(x):
            for at, (filters, blocks) in enumerate(zip(row["filters"], row["blocks"], strict=True)):
                x = stack(x, filters, blocks, stride1=strides[at], name=f"conv{at + 2}")
            return x

        model = module.ResNet(stages, kind == "PreActResNet", True, **kwargs)
    for weight in fill(model).weights:
        if weight.path.endswith("moving_variance"):
            weight.assign(weight * 1e-4)
    return model


def ours(kind, **options):
    """The same network, as it must be built for those weights unless `options` say otherwise."""
    return getattr(kd, kind)(**BLOCKS[kind] | NEEDED[kind] | {"input_shape": SHAPE} | options)


def assert_computes_the_same(model, peer, kind):
    ends = [name for name in ENDS[kind] if name in [layer.name for layer in model.layers]]
    x = np.random.default_rng(0).normal(size=(2, *SHAPE)).astype("float32")
    expected = keras.Model(peer.input, [peer.get_layer(name).output for name in ends])(x)
    found = keras.Model(model.input, [model.get_layer(name).output for name in ends])(x)
    for theirs, own in zip(expected, found, strict=True):
        np.testing.assert_allclose(own, theirs, atol=1e-4 * np.abs(theirs).max())


@pytest.mark.parametrize("suffix", [".h5", ".weights.h5"])
@pytest.mark.parametrize("kind", BLOCKS)
def test_the_published_files_of_2019(tmp_path, kind, suffix):
    peer = applications(kind)
    path = tmp_path / f"published{suffix}"
    write_hdf5_of_2019(peer, path, HEADS[kind], slashes=kind == "DenseNet")
    # The constructor sets what the weights need.
    model = getattr(kd, kind)(**BLOCKS[kind], weights=path, input_shape=SHAPE, classifier_activation=None)
    assert model.output_shape == (None, CLASSES)
    assert_computes_the_same(model, peer, kind)
    headless = ours(kind, include_top=False)
    report = kd.load_weights(headless, path)
    assert sorted(report.skipped) == ["predictions/bias", "predictions/kernel"] and report.complete
    assert_computes_the_same(headless, peer, kind)


def test_two_dense_layers_are_not_renamed(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Sequential([inputs, keras.layers.Dense(3, name="one"), keras.layers.Dense(2, name="two")])
    write_hdf5_of_2019(model, tmp_path / "x.h5")
    with pytest.raises(ValueError, match="unused: one/kernel, one/bias, two/kernel, two/bias"):
        kd.load_weights(ours("ResNet"), tmp_path / "x.h5")


def test_the_epsilons_of_a_model_saved_whole(tmp_path):
    peer = applications("ResNet")
    for layer in peer.layers:
        if hasattr(layer, "epsilon"):
            layer.epsilon = 1e-3
    write_hdf5_of_2019(peer, tmp_path / "whole.h5", epsilon=1e-3)
    model = ours("ResNet", weights=tmp_path / "whole.h5", classifier_activation=None)
    assert_computes_the_same(model, peer, "ResNet")


@pytest.mark.parametrize("form", ["model", ".keras", ".weights.h5", ".h5"])
@pytest.mark.parametrize("kind, wrong", [("ResNet", {"downsample": "3x3"}), ("PreActResNet", {"form": "paper"})])
def test_a_network_that_computes_something_else_is_refused(tmp_path, kind, wrong, form):
    """In every form in which keras.applications' weights come, and whether or not all must fit."""
    source = peer = applications(kind)
    if form != "model":
        source = tmp_path / f"peer{form}"
        (peer.save_weights if form == ".weights.h5" else peer.save)(source)
    model = ours(kind, classes=CLASSES, classifier_activation=None)
    assert kd.load_weights(model, source).complete
    assert_computes_the_same(model, peer, kind)
    ((option, value),) = wrong.items()
    other = fill(ours(kind, classes=CLASSES, **wrong), seed=1)
    before = arrays(other)
    for strict in (True, False):
        with pytest.raises(ValueError, match=f"need {option}='.*', but it was built with {option}='{value}'"):
            kd.load_weights(other, source, strict=strict)
    for name, array in arrays(other).items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("form", ["model", ".keras", ".weights.h5", ".h5"])
@pytest.mark.parametrize(
    "kind, other, name",
    [
        ("DenseNet", "ResNet", "DenseNet"),
        ("PreActResNet", "ResNet", "ResNet with pre-activation"),
        ("ResNet", "DenseNet", "ResNet"),
    ],
)
def test_another_familys_weights_are_named(tmp_path, kind, other, name, form):
    source = applications(kind)
    if form != "model":
        path = tmp_path / f"peer{form}"
        (source.save_weights if form == ".weights.h5" else source.save)(path)
        source = path
    model = ours(other, classes=CLASSES)
    message = f"are those of a {name}, but {model.name} is a {other} of family {other}"
    with pytest.raises(ValueError, match=message):
        kd.load_weights(model, source)


def test_a_vd_network_that_projects_first_says_so():
    options = {"blocks": (1, 2), "filters": (8, 8), "deep_stem": (4, 4, 8), "shortcut": "D", "input_shape": (32, 32, 3)}
    tensors = peer_tensors(fill(kd.ResNet(**options, project_first=True)), naming_tables.KERAS_HUB_RESNET_D)
    with pytest.raises(ValueError, match="need project_first=True, but it was built with project_first=False"):
        kd.load_weights(kd.ResNet(**options), tensors)
