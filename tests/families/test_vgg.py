"""VGG: what its paper and torchvision say beyond the common battery."""

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import layers, models
from keras_deepnets.families.vgg import VGG, VGG11, VGG13, VGG16, VGG16_BN, VGG16C, VGG19
from tests.families.against_torch import assert_like_torch
from tests.weights.common import arrays, fill

TINY = {"convolutions": (1, 2), "filters": (4, 8), "hidden": (12, 6), "input_shape": (32, 32, 3), "classes": 5}


@pytest.mark.parametrize("constructor, depth", [(VGG11, 11), (VGG13, 13), (VGG16, 16), (VGG16C, 16), (VGG19, 19)])
def test_depth_of_table_1(constructor, depth):
    spec = constructor.facts.spec
    assert (spec.depth, spec.total_stride, spec.hidden) == (depth, 32, (4096, 4096))


def test_configuration_c_ends_three_stages_in_1x1():
    model = VGG16C(include_top=False, input_shape=(32, 32, 3))
    kernels = [layer.kernel_size[0] for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert kernels == [3, 3, 3, 3, 3, 3, 1, 3, 3, 1, 3, 3, 1]
    assert models.trainable_parameters(model) == 9_996_096


@pytest.mark.parametrize("constructor, parameters", [(VGG11, 9_220_480), (VGG16, 14_714_688), (VGG19, 20_024_384)])
def test_without_the_top_there_are_no_hidden_layers(constructor, parameters):
    model = constructor(include_top=False, input_shape=(64, 32, 3))
    assert models.trainable_parameters(model) == parameters
    assert model.layers[-1].name == "block5_pool" and model.output_shape == (None, 2, 1, 512)


def test_the_hidden_layers_see_a_map_of_one_size(rng):
    """At 224 pixels the map has that size. At others it is pooled to it, and the weights are the same."""
    assert "pooled" not in {layer.name for layer in VGG(**TINY | {"input_shape": (28, 28, 3)}).layers}
    fixed, free = VGG(**TINY), VGG(**TINY | {"input_shape": (None, None, 3)})
    free.set_weights(fixed.get_weights())
    assert fixed.get_layer("fc1").kernel.shape == (7 * 7 * 8, 12)
    x = rng.normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(fixed(x), free(x), atol=1e-6)
    assert free(rng.normal(size=(1, 45, 23, 3)).astype("float32")).shape == (1, 5)


@pytest.mark.parametrize("shape, size", [((23, 17), 7), ((3, 5), 7), ((14, 14), 7), ((7, 9), 3), ((8, 6), 1)])
def test_adaptive_average_pooling(shape, size, rng):
    x = rng.normal(size=(2, *shape, 3)).astype("float32")
    expected = np.empty((2, size, size, 3))
    for row in range(size):
        for column in range(size):
            (top, bottom), (left, right) = (
                (cell * side // size, -(-(cell + 1) * side // size))
                for cell, side in zip((row, column), shape, strict=True)
            )
            expected[:, row, column] = x[:, top:bottom, left:right].mean((1, 2))
    layer = layers.AdaptiveAveragePooling2D(size)
    np.testing.assert_allclose(layer(x), expected, atol=1e-6)
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.AdaptiveAveragePooling2D.from_config(layer.get_config())(inputs))
    assert model.output_shape == (None, size, size, 3)
    np.testing.assert_allclose(model(x), expected, atol=1e-6)


def test_batch_normalisation_follows_convolutions_with_biases():
    model = VGG16_BN(include_top=False, input_shape=(32, 32, 3))
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 13 and all(layer.use_bias for layer in convolutions)
    assert sum(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers) == 13


def test_weights_with_a_top_fit_a_network_without(tmp_path):
    source = fill(VGG(**TINY))
    path = kd.save_weights(source, tmp_path / "w.safetensors")
    bare = VGG(**TINY, include_top=False)
    report = kd.load_weights(bare, path)
    assert report.complete
    assert {name.rpartition("/")[0] for name in report.skipped} == {"fc1", "fc2", "predictions"}
    for name, value in arrays(bare).items():
        np.testing.assert_array_equal(value, arrays(source)[name])
    with pytest.raises(ValueError, match="fc2"):
        kd.load_weights(VGG(**TINY | {"hidden": (12,)}), path)


def test_new_classes_keep_the_hidden_layers(tmp_path):
    source = fill(VGG(**TINY))
    model = VGG(**TINY | {"classes": 3})
    report = kd.load_weights(model, kd.save_weights(source, tmp_path / "w.safetensors"), skip_head=True)
    assert {name.rpartition("/")[0] for name in report.skipped} == {"predictions"}
    np.testing.assert_array_equal(model.get_layer("fc2").kernel, source.get_layer("fc2").kernel)


def test_pyramid_has_the_poolings():
    pyramid = kd.feature_pyramid(VGG16(include_top=False, input_shape=(64, 64, 3)))
    assert {name: output.shape[1] for name, output in pyramid.output.items()} == {
        "P1": 32,
        "P2": 16,
        "P3": 8,
        "P4": 4,
        "P5": 2,
    }


def torch_network(torch, weights, x):
    functional = torch.nn.functional
    for stage, count in ((1, 1), (2, 2)):
        for number in range(1, count + 1):
            name = f"block{stage}_conv{number}"
            kernel = weights[f"{name}/kernel"].permute(3, 2, 0, 1)
            x = functional.conv2d(x, kernel, weights[f"{name}/bias"], padding=1).relu()
        x = functional.max_pool2d(x, 2)
    x = functional.adaptive_avg_pool2d(x, 7).permute(0, 2, 3, 1).flatten(1)
    for name in ("fc1", "fc2"):
        x = (x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]).relu()
    return x @ weights["predictions/kernel"] + weights["predictions/bias"]


@pytest.mark.parametrize("size", [(28, 28), (37, 30)])
def test_against_torch(size, rng):
    options = TINY | {"input_shape": (*size, 3), "dropout": 0.0}
    assert_like_torch(VGG(**options, classifier_activation=None), torch_network, size, rng)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_a_step_of_training(batch_norm, rng):
    model = VGG(**TINY, batch_norm=batch_norm)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    before = [weight.numpy() for weight in model.trainable_weights]
    x, y = rng.normal(size=(8, 32, 32, 3)).astype("float32"), np.arange(8) % 5
    assert np.isfinite(model.train_on_batch(x, y))
    assert all((old != new.numpy()).any() for old, new in zip(before, model.trainable_weights, strict=True))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: VGG(convolutions=(1, 1), filters=(4,)), "must each have one number per stage"),
        (lambda: VGG(convolutions=()), "must be a tuple of at least one number"),
        (lambda: VGG(convolutions=3), r"convolutions=3 must be a tuple"),
        (lambda: VGG(filters=(64, 128, 0, 512, 512)), "must be a whole number of at least 1"),
        (lambda: VGG(last_kernels=(3, 3, 2, 1, 1)), r"last_kernels=\(3, 3, 2, 1, 1\) must be odd"),
        (lambda: VGG16(dropout=1), "dropout=1 must be a drop probability"),
        (lambda: VGG16(pooled_size=0), "pooled_size=0"),
        (lambda: VGG16(input_shape=(31, 64, 3)), "each side must be at least 32"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()
