"""Weights belong to the network's own layers, whatever stands before, around or beside it, and whatever prefix its layers have."""

import re

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.weights import MisfitError, naming_tables, open_model
from tests.weights.common import arrays, assert_same, fill, peer_tensors, tiny, write_hdf5_of_2019

pytestmark = pytest.mark.integration

SUFFIXES = (".safetensors", ".weights.h5", ".keras")
every_format = pytest.mark.parametrize("suffix", SUFFIXES)


def behind_a_convolution(**kwargs):
    """A network on grey images, which a layer that is not its own makes colour ones."""
    return tiny(input_shape=None, input_tensor=keras.layers.Conv2D(3, 1)(keras.Input((16, 16, 1))), **kwargs)


def in_a_functional_model(classes=5, **kwargs):
    """A network between two layers that are not its own."""
    inputs = keras.Input((16, 16, 1))
    x = tiny(include_top=False, pooling="avg", **kwargs)(keras.layers.Conv2D(3, 1)(inputs))
    return keras.Model(inputs, keras.layers.Dense(classes)(x))


def in_a_sequential_model(**kwargs):
    """A network behind a layer whose variables are no kernel and bias."""
    return keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Normalization(), tiny(**kwargs)])


AROUND = {
    "input_tensor": (behind_a_convolution, 2),
    "functional": (in_a_functional_model, 4),
    "sequential": (in_a_sequential_model, 3),
}
every_place = pytest.mark.parametrize("place", AROUND)


def numbers(model):
    return [np.array(weight) for weight in model.weights]


def own(model):
    """The numbers of the network's own layers, by name without prefix."""
    from keras_deepnets.weights.names import named_weights

    return {name: np.array(weight) for name, weight in named_weights(model).own.items()}


@every_format
def test_the_reported_case(tmp_path, suffix):
    path = kd.save_weights(fill(kd.ResNet20()), tmp_path / f"r20{suffix}")
    x = keras.layers.Conv2D(3, 1)(keras.Input((32, 32, 1)))
    model = kd.ResNet20(input_tensor=x, weights=path)
    expected = arrays(fill(kd.ResNet20()))
    assert len(expected) == 97
    found = own(model)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


@every_format
@every_place
def test_a_networks_file_fits_it_wherever_it_stands(tmp_path, suffix, place):
    build, others = AROUND[place]
    top = {} if place != "functional" else {"include_top": False, "pooling": "avg"}
    source = fill(tiny(**top), seed=3)
    path = kd.save_weights(source, tmp_path / f"alone{suffix}")
    model = build()
    before = [array for weight, array in zip(model.weights, numbers(model), strict=True)]
    report = kd.load_weights(model, path)
    assert report.complete and report.loaded == len(source.weights) and len(report.skipped) == others
    assert own(model).keys() == arrays(source).keys()
    for name, array in arrays(source).items():
        np.testing.assert_array_equal(own(model)[name], array)
    named = {id(weight) for weight in model.weights} - {
        id(weight) for weight in _network(model).weights if place != "input_tensor"
    }
    for weight, array in zip(model.weights, before, strict=True):
        if place != "input_tensor" and id(weight) in named:
            np.testing.assert_array_equal(weight, array)  # left as it was


def _network(model):
    from keras_deepnets.models import network_of

    return network_of(model)


@every_format
@every_place
def test_what_stands_around_is_saved_and_told_apart(tmp_path, suffix, place):
    build, others = AROUND[place]
    source = fill(build(), seed=5)
    path = kd.save_weights(source, tmp_path / f"all{suffix}")
    same = build()  # Keras calls the same layers conv2d_1, dense_1, …
    report = kd.load_weights(same, path)
    assert report.complete and report.loaded == len(source.weights) and not report.skipped
    for found, expected in zip(numbers(same), numbers(source), strict=True):
        np.testing.assert_array_equal(found, expected)
    top = {} if place != "functional" else {"include_top": False, "pooling": "avg"}
    alone = tiny(**top)
    report = kd.load_weights(alone, path)
    assert report.complete and report.loaded == len(alone.weights) and len(report.skipped) == others
    for name, array in own(source).items():
        np.testing.assert_array_equal(arrays(alone)[name], array)
    elsewhere = tiny(**top, layer_prefix="right_")
    assert kd.load_weights(elsewhere, source).complete  # a model as the source
    assert_same(alone, arrays(elsewhere))
    if suffix != ".keras" or place != "sequential":
        with pytest.raises(ValueError, match="more layers than the network itself"):
            open_model(path)


def test_layers_around_that_do_not_fit(tmp_path):
    path = kd.save_weights(fill(in_a_functional_model(classes=5)), tmp_path / "five.safetensors")
    other = in_a_functional_model(classes=6)
    before = numbers(other)
    with pytest.raises(MisfitError, match=r"of another shape: dense\w*/kernel.*the layer 'resnet'") as caught:
        kd.load_weights(other, path)
    for found, expected in zip(numbers(other), before, strict=True):
        np.testing.assert_array_equal(found, expected)
    name = re.search(r"the layer '(\w+)'", str(caught.value)).group(1)
    assert kd.load_weights(other.get_layer(name), path).complete  # the message's advice
    # To a network on an input_tensor they do not belong.
    report = kd.load_weights(behind_a_convolution(include_top=False, pooling="avg"), path)
    assert report.complete and len(report.skipped) == 4 + 2


def test_prefix_and_preprocessing_do_not_matter(tmp_path):
    source = fill(tiny(include_preprocessing=True, layer_prefix="left_"))
    for suffix in SUFFIXES:
        path = kd.save_weights(source, tmp_path / f"left{suffix}")
        for options in ({}, {"layer_prefix": "conv1_"}, {"block_layers": True, "layer_prefix": "right_"}):
            model = tiny(**options)
            report = kd.load_weights(model, path)
            assert report.complete and report.loaded == len(source.weights) and not report.skipped
            assert_same(model, arrays(source))
        again = tiny(weights=path, layer_prefix="b_")
        assert again.get_layer("b_conv1_conv") and again.architecture["options"]["layer_prefix"] == "b_"
        assert_same(again, arrays(source))
        opened = open_model(path)
        assert opened.architecture["options"]["layer_prefix"] == "left_"
        assert_same(opened, arrays(source))
    blocks = fill(tiny(block_layers=True, layer_prefix="deep_"), seed=9)
    for suffix in SUFFIXES:
        path = kd.save_weights(blocks, tmp_path / f"blocks{suffix}")
        model = tiny(layer_prefix="x_")
        kd.load_weights(model, path)
        assert_same(model, arrays(blocks))


@pytest.mark.parametrize(
    ("build", "name"),
    [
        (lambda **kwargs: kd.ResNet18(input_shape=(32, 32, 3), classes=3, **kwargs), naming_tables.TORCHVISION_RESNET),
        (lambda **kwargs: kd.ResNet(depth=14, stem="cifar", shortcut="A", **kwargs), naming_tables.PLAIN_CIFAR_RESNET),
        (lambda **kwargs: kd.ResNet18V2(input_shape=(32, 32, 3), classes=3, **kwargs), naming_tables.TIMM_RESNETV2),
        (
            lambda **kwargs: kd.DenseNet(blocks=(2, 2), growth_rate=4, memory_efficient=True, **kwargs),
            naming_tables.TORCHVISION_DENSENET,
        ),
    ],
    ids=["torchvision", "plain", "timm", "densenet"],
)
def test_a_peers_weights_load_under_a_prefix(build, name):
    source = fill(build())
    model = build(layer_prefix="left_")
    assert kd.load_weights(model, peer_tensors(source, name)).complete
    assert_same(model, arrays(source))


def test_keras_applications_weights_load_under_a_prefix(tmp_path):
    source = fill(kd.ResNet50(input_shape=(32, 32, 3), classes=3))
    write_hdf5_of_2019(source, tmp_path / "w.h5", head="probs")
    model = kd.ResNet50(input_shape=(32, 32, 3), classes=3, layer_prefix="left_")
    report = kd.load_weights(model, tmp_path / "w.h5")
    assert report.complete and report.naming == "Keras" and report.loaded == len(source.weights)
    from keras_deepnets.layers.normalization import EPSILON

    loaded = arrays(model)
    for key, array in arrays(source).items():  # keras.applications' epsilon goes into the variances
        shift = 1.001e-5 - EPSILON if key.endswith("moving_variance") else 0
        np.testing.assert_allclose(loaded[key], array + shift, rtol=1e-6)


def test_two_networks_of_one_name_are_told(tmp_path):
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, keras.layers.Average()([tiny(name="a")(inputs), tiny(name="b")(inputs)]))
    with pytest.raises(ValueError, match=r"two of its weights are called 'conv1_conv/kernel'.*layer_prefix='left_'"):
        kd.save_weights(model, tmp_path / "w.safetensors")
    model.save(tmp_path / "w.keras")
    with pytest.raises(ValueError, match="two of its layers are called 'conv1_bn'"):
        kd.load_weights(tiny(), tmp_path / "w.keras")
    # The advice of both messages.
    parts = [tiny(layer_prefix=prefix)(inputs) for prefix in ("left_", "right_")]
    kd.save_weights(keras.Model(inputs, keras.layers.Average()(parts)), tmp_path / "w.safetensors")
    nested = keras.saving.load_model(tmp_path / "w.keras").get_layer("a")
    assert kd.load_weights(tiny(), nested).complete


def test_classifier_and_folding_behind_other_layers(rng):
    model = fill(behind_a_convolution())
    x = rng.normal(size=(2, 16, 16, 1)).astype("float32")
    folded = kd.fold_batchnorm(model)
    np.testing.assert_allclose(folded(x), model(x), atol=1e-5)
    assert folded.architecture["before"] == model.architecture["before"]
    new = kd.replace_classifier(model, 7)
    assert new(x).shape == (2, 7)
    report = kd.load_weights(new, tiny(), skip_head=True)
    assert report.complete
    nested = keras.Sequential([keras.Input((16, 16, 3)), tiny(name="inner")])
    with pytest.raises(ValueError, match=r"call replace_classifier on it, model.get_layer\('inner'\)"):
        kd.replace_classifier(nested, 7)
    assert kd.replace_classifier(nested.get_layer("inner"), 7).output_shape == (None, 7)
    nested = kd.fold_batchnorm(in_a_sequential_model())
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in nested.layers[-1].layers)
