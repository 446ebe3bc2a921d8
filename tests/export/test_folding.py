"""Folding changes no output, leaves out what it may and leaves alone what it may not."""

import keras
import numpy as np
import pytest
from keras import layers as kl

import keras_deepnets as kd
from keras_deepnets import layers
from keras_deepnets.errors import InputError
from keras_deepnets.export import fold_batchnorm
from keras_deepnets.models import flat_layers
from tests.export.conftest import norms, unsettle

TOLERANCE = 1e-5


def assert_same(model, folded, shape=(16, 16, 3)):
    """Outputs equal to 1e-5 of the largest one."""
    images = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    expected, found = model.predict(images, verbose=0), folded.predict(images, verbose=0)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def network(*stack, shape=(16, 16, 3)):
    inputs = x = keras.Input(shape)
    for layer in stack:
        x = layer(x)
    return unsettle(keras.Model(inputs, x))


@pytest.mark.parametrize(
    "linear",
    [
        kl.Conv2D(6, 3, padding="same", use_bias=False),
        kl.Conv2D(6, 3, strides=2, bias_initializer="random_normal"),
        kl.Conv2D(6, 3, dilation_rate=2, groups=3, padding="same"),
        layers.Conv2D(6, 3, 2, "symmetric", groups=3),
        kl.DepthwiseConv2D(3, depth_multiplier=2),
        kl.Conv2DTranspose(5, 3, strides=2),
        kl.Dense(7),
    ],
    ids=lambda layer: f"{type(layer).__name__}-{getattr(layer, 'groups', 1)}",
)
@pytest.mark.parametrize("kind", [kl.BatchNormalization, layers.BatchNormalization])
def test_every_linear_layer_folds(linear, kind):
    model = network(type(linear).from_config(linear.get_config()), kind())
    folded = fold_batchnorm(model)
    assert norms(folded) == []
    assert_same(model, folded)


@pytest.mark.parametrize(
    "shape, linear", [((12, 3), kl.Conv1D(4, 3)), ((6, 6, 6, 2), kl.Conv3D(4, 3)), ((9,), kl.Dense(4))]
)
def test_other_dimensions_fold(shape, linear):
    model = network(linear, kl.BatchNormalization(), shape=shape)
    folded = fold_batchnorm(model)
    assert norms(folded) == []
    assert_same(model, folded, shape)


@pytest.mark.parametrize("scale, center", [(False, True), (True, False), (False, False)])
def test_norms_without_gamma_or_beta_fold(scale, center):
    model = network(kl.Conv2D(4, 3), kl.BatchNormalization(scale=scale, center=center), kl.ReLU())
    folded = fold_batchnorm(model)
    assert norms(folded) == []
    assert_same(model, folded)


def test_resnet20_folds_whole_and_stays_itself(resnet20, pictures):
    before = [weight.copy() for weight in resnet20.get_weights()]
    folded = fold_batchnorm(resnet20)
    assert len(norms(resnet20)) == 19 and norms(folded) == []
    images = pictures.astype("float32")
    np.testing.assert_allclose(folded.predict(images, verbose=0), resnet20.predict(images, verbose=0), atol=1e-5)
    assert all(np.array_equal(old, new) for old, new in zip(before, resnet20.get_weights(), strict=True))
    assert (folded.labels, folded.scaling) == (resnet20.labels, resnet20.scaling)
    assert folded.architecture == resnet20.architecture | {"folded": True}
    assert folded.includes_preprocessing


def test_a_folded_model_saves_and_loads(resnet20, pictures, tmp_path):
    folded = fold_batchnorm(resnet20)
    folded.save(tmp_path / "folded.keras")
    again = keras.saving.load_model(tmp_path / "folded.keras")
    np.testing.assert_allclose(
        again.predict(pictures, verbose=0), folded.predict(pictures, verbose=0), rtol=1e-5, atol=1e-6
    )
    assert again.labels == resnet20.labels


def depthwise(model):
    return sorted(layer.name for layer in flat_layers(model) if type(layer) is kl.DepthwiseConv2D)


def test_what_cannot_be_folded_exactly_only_scales_and_shifts():
    inputs = keras.Input((16, 16, 3))
    first = kl.BatchNormalization(name="at_the_input")(inputs)
    read_twice = kl.Conv2D(4, 3, padding="same")(first)
    x = kl.Add()([read_twice, kl.BatchNormalization(name="after_a_tensor_that_is_read_twice")(read_twice)])
    x = kl.BatchNormalization(name="after_an_activation")(kl.Conv2D(4, 3, activation="relu")(x))
    x = kl.BatchNormalization(axis=1, name="over_the_rows")(kl.Conv2D(4, 3)(x))
    shared = kl.BatchNormalization(name="shared")
    x = kl.Add()([shared(kl.Conv2D(4, 1)(x)), shared(kl.Conv2D(4, 1)(x))])
    model = unsettle(keras.Model(inputs, x))
    folded = fold_batchnorm(model)
    assert norms(folded) == ["over_the_rows"]
    assert depthwise(folded) == sorted(set(norms(model)) - {"over_the_rows"})
    assert_same(model, folded)


@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_preactivation_networks_and_densenets(blocks, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    if blocks:
        model = kd.PreActResNet(
            depth=20, stem="cifar", block_layers=True, input_shape=(16, 16, 3), classifier_activation=None
        )
    else:
        model = kd.DenseNet(
            depth=22, stem="cifar", growth_rate=6, dropout=0.2, input_shape=(16, 16, 3), classifier_activation=None
        )
    unsettle(model)
    folded = fold_batchnorm(model)
    assert norms(folded) == []
    assert depthwise(folded)
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype("uint8")
    expected = model.predict(images, verbose=0)
    assert expected.std() > 0.05
    atol = (TOLERANCE if policy == "float32" else 0.03) * np.abs(expected).max()
    np.testing.assert_allclose(folded.predict(images, verbose=0), expected, rtol=0, atol=atol)
    folded.save(tmp_path / "folded.keras")
    again = keras.saving.load_model(tmp_path / "folded.keras")
    np.testing.assert_allclose(
        again.predict(images, verbose=0), folded.predict(images, verbose=0), rtol=1e-5, atol=1e-6
    )


def test_a_recomputing_densenet_folds_as_the_plain_one_does():
    options = {"depth": 16, "stem": "cifar", "growth_rate": 6, "dropout": 0.2, "input_shape": (16, 16, 3)}
    plain = unsettle(kd.DenseNet(**options))
    recomputing = kd.DenseNet(**options, memory_efficient=True)
    kd.load_weights(recomputing, plain)
    found, expected = fold_batchnorm(recomputing), fold_batchnorm(plain)
    assert [(layer.name, type(layer)) for layer in found.layers] == [
        (layer.name, type(layer)) for layer in expected.layers
    ]
    for ours, theirs in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert_same(recomputing, found)


@pytest.mark.parametrize(
    "build",
    [
        lambda: kd.DenseNet(depth=16, stem="cifar", dropout=0.2, memory_efficient=True, input_shape=(16, 16, 3)),
        lambda: kd.ResNet(depth=14, stem="cifar", stochastic_depth=0.5, input_shape=(16, 16, 3)),
        lambda: kd.StochasticDepthResNet110(input_shape=(16, 16, 3)),
        lambda: kd.ResNet(
            depth=14, stem="cifar", stochastic_depth=0.5, drop_unit="batch", block_layers=False, input_shape=(16, 16, 3)
        ),
        lambda: kd.WideResNet(depth=10, widen_factor=2, dropout=0.3, input_shape=(16, 16, 3)),
    ],
)
def test_what_serves_training_alone_is_left_out(build):
    model = build()
    unsettle(model)
    for weight in model.weights:  # branches that neither vanish nor overflow
        if weight.name == "gamma":
            weight.assign(0.3 * weight)
    folded = fold_batchnorm(model)
    kinds = (layers.Dropout, layers.StochasticDepth, layers.RecomputedConv2D, layers.Activation, layers.Concatenate)
    assert not [layer.name for layer in folded.layers if type(layer) in kinds]
    assert_same(model, folded)


def test_dropout_that_is_always_on_stays():
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, kl.Dropout(0.5)(kl.Conv2D(4, 3)(inputs), training=True))
    assert [type(layer) for layer in fold_batchnorm(model).layers[1:]] == [kl.Conv2D, kl.Dropout]


def test_a_strangers_convolution_is_not_trusted():
    class Standardised(kl.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel - keras.ops.mean(kernel))

    model = network(Standardised(4, 3), kl.BatchNormalization())
    folded = fold_batchnorm(model)
    assert len(depthwise(folded)) == 1
    assert_same(model, folded)


def test_a_norm_in_training_mode_stays():
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, kl.BatchNormalization()(kl.Conv2D(4, 3)(inputs), training=True))
    folded = fold_batchnorm(model)
    assert len(norms(folded)) == 1
    assert depthwise(folded) == []


def test_nested_models_operations_and_dictionaries_of_outputs():
    inner_input = keras.Input((16, 16, 4))
    inner = keras.Model(
        inner_input, kl.BatchNormalization()(kl.Conv2D(4, 3, padding="same")(inner_input)), name="inner"
    )
    tail = keras.Sequential([kl.Conv2D(5, 1), kl.BatchNormalization(), kl.Dropout(0.5)], name="tail")
    inputs = keras.Input((16, 16, 3))
    x = kl.BatchNormalization()(kl.Conv2D(4, 3, padding="same")(inputs))
    x = inner(inner(keras.ops.relu(x)) * 2.0 + 1.0)[:, ::-1]
    model = unsettle(keras.Model(inputs, {"deep": tail(x), "shallow": keras.ops.mean(x, axis=(1, 2))}))
    folded = fold_batchnorm(model)
    assert norms(folded) == []
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    expected, found = model.predict(images, verbose=0), folded.predict(images, verbose=0)
    for name in ("deep", "shallow"):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5 * np.abs(expected[name]).max())


def test_a_compiled_sequential_model_gives_an_uncompiled_functional_one():
    model = keras.Sequential([keras.Input((16, 16, 3)), kl.Conv2D(4, 3), kl.BatchNormalization(), kl.ReLU()])
    model.compile("adam", "mse")
    unsettle(model)
    folded = fold_batchnorm(model)
    assert not folded.compiled and norms(folded) == []
    assert_same(model, folded)


def test_a_thousand_calls_in_a_row_do_not_exhaust_the_stack():
    again = kl.Activation("tanh")
    with kd.models.deep_graphs():
        model = network(kl.Conv2D(1, 1), kl.BatchNormalization(), *[again] * 1000, shape=(2, 2, 1))
    folded = fold_batchnorm(model)
    assert norms(folded) == []
    assert_same(model, folded, (2, 2, 1))


def test_unbuilt_and_subclassed_models_are_refused():
    class Own(keras.Model):
        pass

    with pytest.raises(InputError, match="not built"):
        fold_batchnorm(keras.Sequential([kl.Dense(3)], name="later"))
    with pytest.raises(InputError, match=r"keras.Model\(inputs, model\(inputs\)\)"):
        fold_batchnorm(Own())


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_blocks_fold_as_the_flat_network_does(policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    arguments = {
        "depth": 29,
        "block": "bottleneck",
        "stem": "cifar",
        "shortcut": "B",
        "classes": 3,
        "input_shape": (16, 16, 3),
    }
    arguments |= {"stochastic_depth": 0.3, "drop_unit": "batch"}
    blocks, flat = (kd.ResNet(block_layers=layers, **arguments) for layers in (True, False))
    rng = np.random.default_rng(0)
    flat.set_weights(
        [weight + rng.uniform(0.1, 0.5, weight.shape) for weight in flat.get_weights() if weight.dtype == "float32"]
    )
    blocks.set_weights(flat.get_weights())
    folded, expected = kd.fold_batchnorm(blocks), kd.fold_batchnorm(flat)
    assert len(folded.layers) == len(blocks.layers) - 1  # the stem's; the others are inside
    assert [weight.path for weight in folded.weights] == [weight.path for weight in expected.weights]
    for ours, theirs in zip(folded.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    images = rng.integers(0, 256, (2, 16, 16, 3)).astype("uint8")
    path = kd.export.saved_model(blocks, tmp_path)
    probabilities = kd.export.predict(path, images)["probabilities"]
    np.testing.assert_allclose(
        probabilities,
        kd.export.predict(kd.export.saved_model(flat, tmp_path / "flat"), images)["probabilities"],
        atol=1e-5,
    )
    lite = kd.export.tflite(blocks, tmp_path / "model.tflite")
    np.testing.assert_allclose(kd.export.predict(lite, images)["probabilities"], probabilities, atol=1e-4)
