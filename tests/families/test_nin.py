"""NIN, All-CNN and the classifiers of both: what their papers and definitions say beyond the common battery."""

import functools

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import export, layers, models, surgery
from keras_deepnets.training import heads
from tests.families.against_torch import assert_like_torch
from tests.weights.common import fill


def test_layers_of_nin():
    model = kd.NIN()
    maps = [layer.output.shape[1:] for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert maps == [
        *[(32, 32, count) for count in (192, 160, 96)],
        *[(16, 16, 192)] * 3,
        *[(8, 8, count) for count in (192, 192, 10)],
    ]
    assert all(layer.activation is keras.activations.relu for layer in model.layers if hasattr(layer, "kernel"))
    assert models.trainable_parameters(kd.NIN(classes=100)) == 984_356
    assert (kd.NIN.facts.spec.depth, kd.NIN.facts.spec.total_stride) == (9, 4)
    assert isinstance(model.get_layer("pool2"), keras.layers.MaxPooling2D)
    assert isinstance(kd.NIN(pool2="avg").get_layer("pool2"), keras.layers.AveragePooling2D)


@pytest.mark.parametrize("side", [8, 9, 12, 13])
@pytest.mark.parametrize("known", [True, False])
def test_average_pooling_to_the_end_is_caffes(side, known, rng):
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, side, side + 1, 3)).astype("float32")
    inputs = keras.Input((side, side + 1, 3) if known else (None, None, 3))
    model = keras.Model(inputs, layers.average_pool(inputs, 3, 2, padding="ceil"))
    theirs = torch.nn.AvgPool2d(3, 2, ceil_mode=True)(torch.from_numpy(x).permute(0, 3, 1, 2))
    np.testing.assert_allclose(model(x), theirs.permute(0, 2, 3, 1), rtol=1e-5, atol=1e-6)
    if known:
        assert model.output_shape == (None, *theirs.shape[2:], 3)
    again = keras.Model.from_config(model.get_config())
    np.testing.assert_allclose(again(x), model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["nin", "dsn"])
def test_the_classifier_averages_the_maps_of_a_convolution(kind, rng):
    model = fill(kd.create_model(kind, classes=3, input_shape=(12, 16, 3)))
    x = rng.normal(size=(2, 12, 16, 3)).astype("float32")
    last = model.get_layer("predictions")
    maps = np.asarray(keras.Model(model.input, last.input)(x)) @ np.asarray(last.kernel)[0, 0] + np.asarray(last.bias)
    if kind == "nin":
        maps = np.maximum(maps, 0)
    logits = maps.mean((1, 2))
    expected = np.exp(logits - logits.max(-1, keepdims=True))
    np.testing.assert_allclose(model(x), expected / expected.sum(-1, keepdims=True), rtol=2e-5, atol=1e-6)
    logits_model = kd.create_model(kind, classes=3, classifier_activation=None, input_shape=(12, 16, 3))
    logits_model.set_weights(model.get_weights())
    np.testing.assert_allclose(logits_model(x), logits, rtol=2e-5, atol=1e-5)


def test_a_new_classifier_and_a_frozen_network():
    model = kd.NIN(input_shape=(16, 16, 3))
    new = kd.replace_classifier(model, 4, None)
    assert new.output_shape == (None, 4)
    assert new.get_layer("predictions").activation is keras.activations.relu
    assert new.get_layer("conv1_1_conv") is model.get_layer("conv1_1_conv")
    kd.freeze(new)
    assert [layer.name for layer in new.layers if layer.trainable and layer.weights] == ["predictions"]
    headless = kd.NIN(input_shape=(16, 16, 3), include_top=False, pooling="avg")
    assert surgery.classifier_of(headless) is None
    with pytest.raises(ValueError, match="not a fully connected classifier; build it with include_top=True"):
        kd.replace_classifier(headless, 4)
    foreign = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(5, 1),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Softmax(),
        ]
    )
    assert kd.replace_classifier(foreign, 2).output_shape == (None, 2)


def test_a_new_classifier_starts_and_computes_like_the_old_one(rng):
    new = kd.replace_classifier(kd.NIN(input_shape=(8, 8, 3), layer_prefix="a_"), 500)
    assert [layer.name for layer in new.layers[-3:]] == ["a_predictions", "a_avg_pool", "a_predictions_activation"]
    assert np.std(new.get_layer("a_predictions").kernel) == pytest.approx(0.05, rel=0.02)
    layers_of = [keras.layers.Conv2D(5, 1), keras.layers.Activation("relu"), keras.layers.GlobalAveragePooling2D()]
    foreign = keras.Sequential([keras.Input((4, 4, 3)), *layers_of])
    new = kd.replace_classifier(foreign, 6, None)
    x = rng.normal(size=(2, 4, 4, 3)).astype("float32")
    kernel = np.asarray(new.layers[1].kernel)[0, 0]
    np.testing.assert_allclose(new(x), np.maximum(x @ kernel, 0).mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_the_classifier_alone_computes_the_outputs(rng):
    model = fill(kd.NIN(classes=3, input_shape=(8, 8, 3)))
    found = heads.classifier_of(model)
    x = rng.normal(size=(2, 8, 8, 3)).astype("float32")
    maps = keras.Model(model.input, found.input)(x)
    np.testing.assert_allclose(heads.HeadOnly(found.layers)(maps), model(x), rtol=1e-6)


def test_features_of_an_exported_network_are_averages(rng, tmp_path):
    import tensorflow as tf

    model = fill(kd.NIN(classes=3, input_shape=(8, 8, 3), include_preprocessing=True))
    path = export.saved_model(model, tmp_path / "nin", features=True)
    x = rng.integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    found = tf.saved_model.load(str(path)).signatures["serving_images"](images=tf.constant(x))
    maps = keras.Model(model.input, model.get_layer("predictions").input)(x.astype("float32"))
    np.testing.assert_allclose(found["features"], np.asarray(maps).mean((1, 2)), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["probabilities"], model(x.astype("float32")), atol=1e-4)


@pytest.mark.parametrize(
    "base, plain, deep", [("A", 839_242, 1_254_250), ("B", 885_610, 1_300_618), ("C", 954_730, 1_369_738)]
)
def test_all_cnn_and_the_networks_that_it_replaces(base, plain, deep):
    constructor = kd.create_model(f"allcnn_{base}").architecture["constructor"]
    build = getattr(kd, constructor)
    for reduction, parameters in (("pool", plain), ("stride", plain), ("conv_pool", deep), ("conv", deep)):
        model = build(reduction=reduction)
        assert models.trainable_parameters(model) == parameters
        # "global averaging over 6 × 6 spatial dimensions"
        assert model.get_layer("predictions").output.shape == (None, 6, 6, 10)
        poolings = [layer for layer in model.layers if isinstance(layer, keras.layers.MaxPooling2D)]
        assert len(poolings) == (2 if "pool" in reduction else 0)
        assert build.facts.spec_with({"reduction": reduction}).depth == sum(
            isinstance(layer, keras.layers.Conv2D) for layer in model.layers
        )


def test_dropout_of_all_cnn():
    rates = {layer.name: layer.rate for layer in kd.AllCNN_C().layers if isinstance(layer, keras.layers.Dropout)}
    assert rates == {"input_dropout": 0.2, "stage1_dropout": 0.5, "stage2_dropout": 0.5}


def convolution(torch, weights, x, name, relu=True, **kwargs):
    kernel, bias = weights[f"{name}/kernel"], weights[f"{name}/bias"]
    x = torch.nn.functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, **kwargs)
    return x.relu() if relu else x


def nin(last_relu, pool2="max"):
    """NIN, or DSN without companions, of torch's operators."""

    def network(torch, weights, x):
        functional = torch.nn.functional
        for stage, size, count in ((1, 5, 3), (2, 5, 3), (3, 3, 2)):
            if stage > 1:
                kind = functional.max_pool2d if stage == 2 or pool2 == "max" else functional.avg_pool2d
                x = kind(x, 3, 2, ceil_mode=True)
            for number in range(1, count + 1):
                padding = size // 2 if number == 1 else 0
                x = convolution(torch, weights, x, f"conv{stage}_{number}_conv", padding=padding)
        return convolution(torch, weights, x, "predictions", last_relu).mean((2, 3))

    return network


def all_cnn_c(torch, weights, x):
    for stage in (1, 2):
        for number in (1, 2, 3):
            x = convolution(torch, weights, x, f"conv{stage}_{number}_conv", stride=1 + number // 3, padding=1)
    x = convolution(torch, weights, x, "conv3_1_conv")
    return convolution(torch, weights, convolution(torch, weights, x, "conv3_2_conv"), "predictions").mean((2, 3))


@pytest.mark.parametrize(
    "build, network, size",
    [
        (functools.partial(kd.NIN, dropout=0.0), nin(True), (32, 32)),
        (functools.partial(kd.NIN, dropout=0.0, pool2="avg"), nin(True, "avg"), (21, 18)),
        (functools.partial(kd.DSN, dropout=0.0), nin(False), (21, 18)),
        (functools.partial(kd.AllCNN_C, dropout=0.0, input_dropout=0.0), all_cnn_c, (32, 32)),
        (functools.partial(kd.AllCNN_C, dropout=0.0, input_dropout=0.0), all_cnn_c, (21, 18)),
    ],
)
def test_against_torch(build, network, size, rng):
    model = build(classes=5, classifier_activation=None, input_shape=(*size, 3))
    assert_like_torch(model, network, size, rng)


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: kd.NIN(pool2="sum"), "pool2='sum' is not one of 'max', 'avg'"),
        (lambda: kd.NIN(pool_padding="same"), "pool_padding='same' is not one of"),
        (lambda: kd.AllCNN_C(reduction="none"), "reduction='none' is not one of"),
        (lambda: kd.AllCNN_C(input_dropout=1.0), "must be a drop probability"),
        (lambda: kd.AllCNN_C(input_shape=(8, 8, 3)), "too small"),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
