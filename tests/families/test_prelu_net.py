"""PReLU-nets: Table 3, the spatial pyramid, torch."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import layers, models
from keras_deepnets.families.prelu_net import ACTIVATIONS, PReLUNet, PReLUNetA, PReLUNetB, PReLUNetC
from keras_deepnets.layers.fast import sums
from tests.families.against_torch import assert_like_torch
from tests.families.expected import PARAMETERS
from tests.weights.common import arrays, fill

TINY = {"convolutions": (2, 1), "filters": (6, 8), "stem_filters": 4, "hidden": (12, 9), "classes": 5}
BINS = 49 + 9 + 4 + 1


@pytest.mark.parametrize(
    "constructor, depth, kernels, hidden, slopes",
    [
        (PReLUNetA, 19, 25_007_904, 132_120_576, 14_688),
        (PReLUNetB, 22, 30_316_320, 132_120_576, 15_968),
        (PReLUNetC, 22, 78_497_568, 231_211_008, 20_576),
    ],
)
def test_table_3(constructor, depth, kernels, hidden, slopes):
    """Depth, and the parameters of the recorded count, from the rows of the table alone."""
    spec = constructor.facts.spec
    assert (spec.depth, spec.total_stride, spec.pyramid, spec.hidden) == (depth, 16, (7, 3, 2, 1), (4096, 4096))
    widths = [channels for count, channels in zip(spec.convolutions, spec.filters, strict=True) for _ in range(count)]
    channels = [spec.stem_filters, *widths]
    assert 49 * 3 * 96 + sum(9 * a * b for a, b in itertools.pairwise(channels)) == kernels
    assert widths[-1] * BINS * 4096 == hidden
    assert sum(channels) + 8192 == slopes
    rest = 4096 * 4096 + 4096 * 1000 + sum(channels) + 8192 + 1000
    assert PARAMETERS[constructor.__name__.lower()] == kernels + hidden + slopes + rest


def test_layers_of_model_a():
    model = PReLUNetA(include_top=False, input_shape=(224, 224, 3))
    shapes = {layer.name: tuple(layer.output.shape[1:]) for layer in model.layers}
    assert [shapes[name] for name in ("conv1", "pool1", "conv2_5", "pool2", "conv3_5", "pool3", "conv4_5_prelu")] == [
        *((112, 112, 96), (56, 56, 96), (56, 56, 256), (28, 28, 256), (28, 28, 512), (14, 14, 512), (14, 14, 512))
    ]
    assert model.layers[-1].name == "conv4_5_prelu"
    assert models.trainable_parameters(model) == 25_007_904 + 2 * (96 + 5 * (256 + 512 + 512))
    pyramid = kd.feature_pyramid(model)
    assert {name: output.shape[1:3] for name, output in pyramid.output.items()} == {
        "P1": (112, 112),
        "P2": (56, 56),
        "P3": (28, 28),
        "P4": (14, 14),
    }


def slope_count(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights if weight.name == "alpha")


def test_the_activations():
    """Slopes of channels, of layers, none."""
    channels = 4 + 2 * 6 + 8 + 12 + 9
    found = {kind: slope_count(PReLUNet(**TINY, activation=kind)) for kind in ACTIVATIONS}
    assert found == {"prelu": channels, "shared_prelu": 6, "relu": 0}


def torch_network(torch, weights, x, counts=(2, 1), levels=(7, 3, 2, 1)):
    """Logits of the network with this library's weights, by torch's operators. Images are ``[n, 3, h, w]``."""
    functional = torch.nn.functional

    def activated(x, name):
        slopes = weights.get(f"{name}_prelu/alpha")
        return functional.relu(x) if slopes is None else functional.prelu(x, slopes)

    def convolution(x, name, **kwargs):
        return activated(
            functional.conv2d(x, weights[f"{name}/kernel"].permute(3, 2, 0, 1), weights[f"{name}/bias"], **kwargs), name
        )

    x = convolution(x, "conv1", stride=2, padding=3)
    for stage, count in enumerate(counts, start=2):
        x = functional.max_pool2d(x, 2)
        for number in range(1, count + 1):
            x = convolution(x, f"conv{stage}_{number}", padding=1)
    x = torch.cat([functional.adaptive_max_pool2d(x, level).permute(0, 2, 3, 1).flatten(1) for level in levels], 1)
    for name in ("fc1", "fc2"):
        x = activated(x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"], name)
    return x @ weights["predictions/kernel"] + weights["predictions/bias"]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [(56, 56), (61, 45), (8, 17), (None, None)])
def test_against_torch(shape, activation, rng, monkeypatch):
    """Logits, and the gradient of each weight. The rectifiers take their compiled passes."""
    monkeypatch.setattr(sums, "FUSED_ELEMENTS", 1)
    model = PReLUNet(**TINY, activation=activation, dropout=0.0, input_shape=(*shape, 3), classifier_activation=None)
    assert_like_torch(model, torch_network, shape if shape[0] else (49, 70), rng, ("bias", "alpha"))


def bins(x, levels):
    """The pyramid of He et al. 2014, Appendix A, bin by bin."""
    height, width = x.shape[1:3]
    parts = []
    for level in levels:
        for row in range(level):
            for column in range(level):
                top, bottom = row * height // level, -(-(row + 1) * height // level)
                left, right = column * width // level, -(-(column + 1) * width // level)
                parts.append(x[:, top:bottom, left:right].max((1, 2)))
    return np.concatenate(parts, 1)


@pytest.mark.parametrize("shape", [(14, 14), (13, 10), (7, 7), (23, 6), (2, 5), (1, 1)])
@pytest.mark.parametrize("levels", [(7, 3, 2, 1), (4,), (1, 2)])
def test_spatial_pyramid_pooling(shape, levels, rng):
    x = rng.normal(size=(2, *shape, 3)).astype("float32")
    expected = bins(x, levels)
    layer = layers.SpatialPyramidPooling(levels)
    np.testing.assert_array_equal(layer(x), expected)
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.SpatialPyramidPooling.from_config(layer.get_config())(inputs))
    assert model.output_shape == (None, 3 * sum(level**2 for level in levels))
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape, size", [((12, 9), 3), ((14, 11), 3), ((3, 5), 4)])
def test_adaptive_max_pooling_against_torch(shape, size, rng):
    """Outputs and gradients, with a size that is known and one that is not."""
    torch = pytest.importorskip("torch")
    x = rng.normal(size=(2, *shape, 3)).astype("float32")
    d_outputs = rng.normal(size=(2, size, size, 3)).astype("float32")
    theirs = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.adaptive_max_pool2d(theirs.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)
    expected.backward(torch.tensor(d_outputs))
    layer = layers.AdaptiveMaxPooling2D(size)
    assert layer.compute_output_shape((None, None, None, 3)) == (None, size, size, 3)
    assert layers.AdaptiveMaxPooling2D.from_config(layer.get_config()).size == size
    for signature in (x.shape, (None, None, None, 3)):

        @tf.function(input_signature=[tf.TensorSpec(signature, tf.float32)])
        def step(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x)
            return y, tape.gradient(y, x, d_outputs)

        found, gradient = step(x)
        np.testing.assert_array_equal(found, expected.detach().numpy())
        np.testing.assert_allclose(gradient, theirs.grad.numpy(), atol=1e-6)


def test_at_224_pixels_three_levels_are_poolings():
    """14×14 pixels divide into 7, 2 and 1 bins, not into 3."""
    layer = layers.SpatialPyramidPooling()
    graph = tf.function(lambda x: layer(x)).get_concrete_function(tf.TensorSpec((1, 14, 14, 8))).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("MaxPool") == 3 and kinds.count("Max") == 6
    assert not {"GatherV2", "Range"} & {*kinds}


def test_other_pyramids_and_no_hidden_layers(rng):
    model = PReLUNet(**TINY | {"hidden": (), "pyramid": [4, 1]}, input_shape=(32, 40, 3))
    assert model.get_layer("predictions").kernel.shape == (8 * 17, 5)
    assert model(rng.normal(size=(2, 32, 40, 3)).astype("float32")).shape == (2, 5)


@pytest.mark.parametrize("suffix", [".weights.h5", ".safetensors", ".keras"])
def test_every_kind_of_weight_file_has_the_slopes(suffix, tmp_path):
    source = fill(PReLUNet(**TINY, input_shape=(32, 32, 3)))
    path = tmp_path / f"w{suffix}"
    if suffix == ".safetensors":
        kd.save_weights(source, path)
    else:
        (source.save if suffix == ".keras" else source.save_weights)(path)
    model = PReLUNet(**TINY, input_shape=(32, 32, 3))
    assert kd.load_weights(model, path).complete
    for name, value in arrays(source).items():
        np.testing.assert_array_equal(arrays(model)[name], value)
    assert "conv2_1_prelu/alpha" in arrays(model)


def test_weights_with_a_top_fit_a_network_without(tmp_path):
    source = fill(PReLUNet(**TINY, input_shape=(32, 32, 3)))
    path = kd.save_weights(source, tmp_path / "w.safetensors")
    bare = PReLUNet(**TINY, include_top=False)
    report = kd.load_weights(bare, path)
    assert report.complete
    skipped = {name.rpartition("/")[0] for name in report.skipped}
    assert skipped == {"fc1", "fc1_prelu", "fc2", "fc2_prelu", "predictions"}
    for name, value in arrays(bare).items():
        np.testing.assert_array_equal(value, arrays(source)[name])


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_agrees(rng, policy):
    x = rng.normal(size=(2, 48, 40, 3)).astype("float32")
    full = PReLUNet(**TINY, input_shape=(48, 40, 3))
    keras.config.set_dtype_policy(policy)
    half = PReLUNet(**TINY, input_shape=(48, 40, 3))
    half.set_weights(full.get_weights())
    np.testing.assert_allclose(half(x), full(x), atol=0.05)


def test_signal_reaches_the_classifier(rng):
    """He's initial weights keep the second moment of rectified signals over 16 convolutions."""
    model = PReLUNet(convolutions=(5, 5, 5), filters=(64, 64, 64), include_top=False, input_shape=(48, 48, 3))
    y = model(rng.normal(size=(4, 48, 48, 3)).astype("float32"))
    assert 0.2 < np.sqrt(np.mean(np.square(y))) < 10


def test_slopes_and_kernels_learn(rng):
    model = PReLUNet(**TINY, input_shape=(32, 32, 3))
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    before = [weight.numpy() for weight in model.trainable_weights]
    x, y = rng.normal(size=(8, 32, 32, 3)).astype("float32"), np.arange(8) % 5
    assert np.isfinite(model.train_on_batch(x, y))
    assert all((old != new.numpy()).any() for old, new in zip(before, model.trainable_weights, strict=True))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: PReLUNet(convolutions=(1, 1), filters=(4,)), "must each have one number per stage"),
        (lambda: PReLUNet(convolutions=(), filters=()), "must be a tuple of at least one number"),
        (lambda: PReLUNet(convolutions=3), "convolutions=3 must be a tuple"),
        (lambda: PReLUNet(filters=(256, 0, 512)), "must be a whole number of at least 1"),
        (lambda: PReLUNet(activation="elu"), "activation='elu' is not one of 'prelu', 'shared_prelu', 'relu'"),
        (lambda: PReLUNetA(pyramid=()), r"pyramid=\(\) must be a tuple"),
        (lambda: PReLUNetA(dropout=1), "dropout=1 must be a drop probability"),
        (lambda: PReLUNetA(input_shape=(15, 64, 3)), "each side must be at least 16"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
