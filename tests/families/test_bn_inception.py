"""BN-Inception: what its appendix and the published weights say beyond the common battery."""

import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import layers
from keras_deepnets.benchmark.twins import stock_twin
from keras_deepnets.families.bn_inception import MODULES, BNInception
from keras_deepnets.families.inception import module_names
from tests.families.kinks import assert_like_torch_off_kinks

SMALL = [[[2, 2, 4, 2, 4, 2], [0, 2, 4, 2, 4, 0]], [[2, 2, 4, 2, 4, 2]]]


def test_modules_of_figure_5():
    assert [name for name, _ in module_names(MODULES)] == ["3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a", "5b"]
    model = BNInception()
    channels = [model.get_layer(f"inception_{name}_output").output.shape[1:] for name, _ in module_names(MODULES)]
    assert channels == [
        *[(28, 28, 256), (28, 28, 320), (14, 14, 576)],
        *[(14, 14, 576), (14, 14, 576), (14, 14, 608), (14, 14, 608), (7, 7, 1056)],
        *[(7, 7, 1024), (7, 7, 1024)],
    ]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 69 and all(layer.use_bias for layer in convolutions)
    assert (BNInception.facts.spec.depth, BNInception.facts.spec.total_stride) == (34, 32)


def test_poolings_before_projections():
    """The last one is a maximum; the others are averages that count the zeros of their padding."""
    model = BNInception(modules=SMALL, input_shape=(32, 32, 3))
    assert isinstance(model.get_layer("inception_4a_pool"), keras.layers.MaxPooling2D)
    x = np.ones((1, 4, 5, 2), "float32")
    inputs = keras.Input((4, 5, 2))
    pooled = keras.Model(inputs, layers.average_pool_with_zeros(inputs, 3, name="p"))(x).numpy()
    np.testing.assert_allclose(pooled[0, :, :, 0], np.outer([2, 3, 3, 2], [2, 3, 3, 3, 2]) / 9, rtol=1e-6)
    assert pooled.shape == x.shape


@pytest.mark.parametrize("size, strides", [(3, 2), (2, 2), (3, 3)])
@pytest.mark.parametrize("shape", [(7, 8), (9, 6), (8, 10)])
def test_ceil_padding_is_only_at_the_end(size, strides, shape, rng):
    x = rng.normal(size=(2, *shape, 3)).astype("float32") - 10  # a padding with zeros would be the maximum
    sides = [-(-(side - size) // strides) + 1 for side in shape]
    expected = np.empty((2, *sides, 3), "float32")
    for row in range(sides[0]):
        for column in range(sides[1]):
            top, left = row * strides, column * strides
            expected[:, row, column] = x[:, top : top + size, left : left + size].max((1, 2))
    layer = layers.MaxPooling2D(size, strides, "ceil", data_format="channels_last")
    assert layer.compute_output_shape(x.shape) == expected.shape
    np.testing.assert_array_equal(layer(x), expected)
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.MaxPooling2D.from_config(layer.get_config())(inputs))
    np.testing.assert_array_equal(model(x), expected)


@pytest.mark.parametrize("shape", [(47, 33), (50, 71)])
def test_any_size(shape, rng):
    x = rng.normal(size=(1, *shape, 3)).astype("float32")
    free = BNInception(modules=SMALL, input_shape=(None, None, 3), classes=3)
    fixed = BNInception(modules=SMALL, input_shape=(*shape, 3), classes=3)
    fixed.set_weights(free.get_weights())
    np.testing.assert_allclose(free(x), fixed(x), atol=1e-6)


def test_pyramid():
    pyramid = kd.feature_pyramid(BNInception(include_top=False, input_shape=(64, 64, 3)))
    shapes = {name: tuple(output.shape[1:]) for name, output in pyramid.output.items()}
    assert shapes == {"P3": (8, 8, 320), "P4": (4, 4, 608), "P5": (2, 2, 1024)}


def test_a_step_of_training(rng):
    model = BNInception(modules=SMALL, input_shape=(64, 64, 3), classes=5)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
    before = [weight.numpy() for weight in model.trainable_weights if weight.name != "bias"]
    assert np.isfinite(model.train_on_batch(rng.normal(size=(8, 64, 64, 3)).astype("float32"), np.arange(8) % 5))
    after = [weight.numpy() for weight in model.trainable_weights if weight.name != "bias"]
    assert all((old != new).any() for old, new in zip(before, after, strict=True))


def torch_network(modules):
    """The network of torch's operators, for images whose sides are multiples of 32."""

    def network(units, x):
        functional = units.torch.nn.functional
        x = units.max_pool(units.convolution(x, "conv1_7x7_s2", 2), 3, 2)
        x = units.max_pool(units.convolution(units.convolution(x, "conv2_3x3_reduce"), "conv2_3x3"), 3, 2)
        names = module_names(modules)
        for module, sizes in names:
            name, halves = f"inception_{module}", sizes[0] == 0
            y = units.convolution(units.convolution(x, f"{name}_3x3_reduce"), f"{name}_3x3", 1 + halves)
            z = units.convolution(units.convolution(x, f"{name}_double_3x3_reduce"), f"{name}_double_3x3_1")
            branches = [y, units.convolution(z, f"{name}_double_3x3_2", 1 + halves)]
            if halves:
                branches.append(units.max_pool(x, 3, 2))
            else:
                branches.insert(0, units.convolution(x, f"{name}_1x1"))
                last = module == names[-1][0]
                pooled = units.max_pool(x, 3, 1, padding=1) if last else functional.avg_pool2d(x, 3, 1, padding=1)
                branches.append(units.convolution(pooled, f"{name}_pool_proj"))
            x = units.torch.cat(branches, 1)
        return units.dense(x.mean((2, 3)), "predictions")

    return network


@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
def test_against_torch(size, rng):
    stage = [[8, 8, 16, 8, 16, 8], [0, 8, 16, 8, 16, 0]]
    modules = [stage, stage[:1] * 2]
    model = BNInception(modules=modules, input_shape=(*size, 3), classes=5, classifier_activation=None)
    assert_like_torch_off_kinks(model, torch_network(modules), size, rng)


@pytest.mark.parametrize(
    "modules, message",
    [
        ((), r"modules=\(\) must have a tuple per stage with six numbers per module"),
        (3, "modules=3 must have a tuple per stage"),
        ((((1, 2, 3),),), "six numbers per module"),
        ((((0, 2, 4, 2, 4, 2),),), r"in module \(0, 2, 4, 2, 4, 2\), the first and the last number must both be 0"),
        ((((2, 2, 4, 0, 4, 2),),), "must be a whole number of at least 1"),
    ],
)
def test_bad_modules(modules, message):
    with pytest.raises(ValueError, match=message):
        BNInception(modules=modules)


def test_the_twin_of_stock_layers():
    model = BNInception(modules=SMALL, input_shape=(32, 32, 3), classes=3)
    twin = stock_twin(model)
    assert type(twin.get_layer("pool1_3x3_s2")) is keras.layers.MaxPooling2D
    assert twin.get_layer("pool1_3x3_s2").padding == "same"
    assert [layer.output.shape for layer in twin.layers] == [layer.output.shape for layer in model.layers]
