"""GoogLeNet: what its paper and torchvision say beyond the common battery."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import layers, models
from keras_deepnets.families.googlenet import MODULES, GoogLeNet
from keras_deepnets.families.inception import module_names
from keras_deepnets.layers.fast import sums
from keras_deepnets.weights import cards, naming_tables
from tests.families.kinks import assert_like_torch_off_kinks
from tests.weights.common import arrays, fill, peer_tensors

NARROW = [[[2, 2, 4, 2, 4, 2]] * len(stage) for stage in MODULES]
"""The modules of Table 1 with few channels."""
SMALL = [[[8, 8, 16, 8, 16, 8]], [[8, 8, 16, 8, 16, 8]]]
DEEP = [[[8, 8, 16, 8, 16, 8]], [[8, 8, 16, 8, 16, 8]] * 4]


def test_table_1():
    assert [name for name, _ in module_names(MODULES)] == ["3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
    model = GoogLeNet()
    shapes = [model.get_layer(f"inception_{name}_output").output.shape[1:] for name, _ in module_names(MODULES)]
    channels = [256, 480, 512, 512, 512, 528, 832, 832, 1024]
    assert shapes == [(side, side, count) for side, count in zip([28] * 2 + [14] * 5 + [7] * 2, channels, strict=True)]
    assert (GoogLeNet.facts.spec.depth, GoogLeNet.facts.spec.total_stride) == (22, 32)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    # "1.5 billion multiply-adds at inference time"
    assert models.multiply_adds(model) == pytest.approx(1.5e9, rel=0.06)


def test_torchvisions_network():
    model = GoogLeNet(batch_norm=True)
    assert models.trainable_parameters(model) == 6_624_904
    assert model.get_layer("inception_3a_5x5_conv").kernel_size == (3, 3)
    assert model.get_layer("pool4_2x2_s2").pool_size == (2, 2)
    assert model.get_layer("pool5_dropout").rate == 0.2
    assert not any(isinstance(layer, layers.LocalResponseNormalization) for layer in model.layers)
    assert not any(layer.use_bias for layer in model.layers if isinstance(layer, keras.layers.Conv2D))


@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_local_response_normalisation(beta, rng):
    x = rng.normal(size=(2, 3, 4, 11)).astype("float32") * 30
    expected = np.empty_like(x)
    for channel in range(11):
        near = x[..., max(channel - 2, 0) : channel + 3]
        expected[..., channel] = x[..., channel] / (1 + 1e-2 * (near**2).sum(-1) / 5) ** beta
    layer = layers.LocalResponseNormalization(5, 1e-2, beta)
    np.testing.assert_allclose(layer(x), expected, rtol=1e-5)
    again = layers.LocalResponseNormalization.from_config(layer.get_config())
    np.testing.assert_allclose(again(x), layer(x), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="size=4 must be odd"):
        layers.LocalResponseNormalization(4)


@pytest.mark.parametrize("beta", [0.75, 0.5])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("run", [lambda step: step, tf.function], ids=["eager", "graph"])
def test_local_response_normalisation_against_tensorflow(beta, training, run, rng, monkeypatch):
    """Outputs and gradients. TensorFlow takes the sum where Caffe takes the mean."""
    monkeypatch.setattr(sums, "FUSED_ELEMENTS", 1)
    x, d_outputs = (tf.constant(rng.normal(size=(2, 3, 4, 11)) * 30, "float32") for _ in range(2))
    layer = layers.LocalResponseNormalization(5, 1e-2, beta)
    results = []
    for function in (
        lambda x: layer(x, training=training),
        lambda x: tf.nn.local_response_normalization(x, 2, 1.0, 1e-2 / 5, beta),
    ):

        @run
        def step(x, function=function):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            return y, tape.gradient(y, x, d_outputs)

        results.append(step(x))
    for found, expected in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_auxiliary_classifiers_in_a_file_are_skipped():
    source = fill(GoogLeNet(batch_norm=True, modules=NARROW, input_shape=(32, 32, 3), classes=5))
    naming = naming_tables.TORCHVISION_GOOGLENET
    tensors = peer_tensors(source, naming) | {
        "aux1.conv.conv.weight": np.zeros((128, 512, 1, 1), "float32"),
        "aux2.fc1.bias": np.zeros(1024, "float32"),
    }
    model = GoogLeNet(batch_norm=True, modules=NARROW, input_shape=(32, 32, 3), classes=5)
    report = kd.load_weights(model, tensors)
    assert report.complete and set(report.skipped) == {"aux1_1x1_conv/kernel", "aux2_fc/bias"}
    kernels = [name for name in arrays(model) if name.endswith("kernel")]
    for name in kernels:
        np.testing.assert_array_equal(arrays(model)[name], arrays(source)[name])
    with pytest.raises(ValueError, match="batch_norm"):
        kd.load_weights(GoogLeNet(modules=NARROW, input_shape=(32, 32, 3), classes=5), peer_tensors(source, naming))


def test_weights_of_torchvision_scale_to_one():
    """Its `transform_input` undoes the usual statistics."""
    [card] = [card for card in cards.cards_of("GoogLeNet") if card.name.startswith("torchvision")]
    assert card.scaling.mean == card.scaling.std == (127.5,) * 3
    assert card.options == {"batch_norm": True}


def test_pyramid():
    pyramid = kd.feature_pyramid(GoogLeNet(include_top=False, input_shape=(64, 64, 3)))
    shapes = {name: tuple(output.shape[1:]) for name, output in pyramid.output.items()}
    assert shapes == {"P3": (8, 8, 480), "P4": (4, 4, 832), "P5": (2, 2, 1024)}


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_step_of_training(batch_norm, rng):
    model = GoogLeNet(modules=SMALL, batch_norm=batch_norm, input_shape=(64, 64, 3), classes=5)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    before = [weight.numpy() for weight in model.trainable_weights]
    assert np.isfinite(model.train_on_batch(rng.normal(size=(8, 64, 64, 3)).astype("float32"), np.arange(8) % 5))
    changed = [(old != new.numpy()).any() for old, new in zip(before, model.trainable_weights, strict=True)]
    assert np.mean(changed) > 0.9


def torch_network(modules, batch_norm):
    """The network of torch's operators. It has the auxiliary classifiers whose weights it is given."""

    def network(units, x):
        functional, outputs = units.torch.nn.functional, {}
        units.epsilon = 1e-3  # torchvision's

        def normalise(x):
            return x if batch_norm else functional.local_response_norm(x, 5, 1e-4, 0.75, 1.0)

        x = normalise(units.max_pool(units.convolution(x, "conv1_7x7_s2", 2), 3, 2))
        x = units.convolution(units.convolution(x, "conv2_3x3_reduce"), "conv2_3x3")
        x = units.max_pool(normalise(x), 3, 2)
        for module, _ in module_names(modules):
            if module.endswith("a") and module != "3a":
                x = units.max_pool(x, 2 if batch_norm and module == f"{2 + len(modules)}a" else 3, 2)
            name = f"inception_{module}"
            branches = [units.convolution(x, f"{name}_1x1")]
            for size in ("3x3", "5x5"):
                branches.append(units.convolution(units.convolution(x, f"{name}_{size}_reduce"), f"{name}_{size}"))
            branches.append(units.convolution(units.max_pool(x, 3, 1, padding=1), f"{name}_pool_proj"))
            x = units.torch.cat(branches, 1)
            head = {"4a": "aux1", "4d": "aux2"}.get(module)
            if f"{head}_fc/kernel" in units.weights:
                y = functional.adaptive_avg_pool2d(x, 4) if batch_norm else functional.avg_pool2d(x, 5, 3)
                y = units.convolution(y, f"{head}_1x1").permute(0, 2, 3, 1).flatten(1)
                outputs[head] = units.dense(units.hidden(y, f"{head}_fc"), f"{head}_predictions")
        return outputs | {"predictions": units.dense(x.mean((2, 3)), "predictions")}

    return network


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("modules, auxiliary, size", [(SMALL, False, (64, 72)), (DEEP, True, (80, 96))])
def test_against_torch(modules, auxiliary, batch_norm, size, rng):
    options = {"modules": modules, "batch_norm": batch_norm, "auxiliary": auxiliary, "input_shape": (*size, 3)}
    model = GoogLeNet(**options, dropout=0.0, classes=5, classifier_activation=None)
    scale = 1.0
    if not batch_norm:
        # Local response normalisation acts on numbers of this size. The logits stay as small as otherwise.
        scale = 60.0
        for layer in model.layers:
            if layer.name.endswith("predictions"):
                layer.kernel.assign(layer.kernel / scale)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    assert_like_torch_off_kinks(model, torch_network(modules, batch_norm), size, rng, scale)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"modules": ()}, "must have a tuple per stage with six numbers per module"),
        ({"modules": (((1, 2),),)}, "six numbers per module"),
        ({"modules": (((0, 2, 4, 2, 4, 2),),)}, "must be a whole number of at least 1"),
        ({"dropout": 1}, "dropout=1 must be a drop probability"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        GoogLeNet(**options)
