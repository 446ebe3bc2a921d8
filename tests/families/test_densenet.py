"""DenseNets: what their paper says, and that the memory-efficient form is the same network."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets import models
from keras_deepnets.families import densenet
from keras_deepnets.families.densenet import DenseNet, DenseNet121, DenseNetBC100_12
from keras_deepnets.layers.dense_connectivity import RecomputedConv2D
from keras_deepnets.weights import load_weights

PARAMETERS = {
    # torchvision
    "DenseNet121": 7_978_856,
    "DenseNet161": 28_681_000,
    "DenseNet169": 14_149_480,
    "DenseNet201": 20_013_928,
    # the authors' code
    "DenseNetBC100_12": 769_162,
    "DenseNetBC250_24": 15_324_406,
    "DenseNetBC190_40": 25_624_430,
}
MILLIONS = {"DenseNet40_12": 1.0, "DenseNet100_12": 7.0, "DenseNet100_24": 27.2, "DenseNet264": 33.3}
# torchvision's weight records; CondenseNet (Huang et al. 2018), Table 3, for the last
FLOPS = {
    "DenseNet121": 2.834e9,
    "DenseNet161": 7.728e9,
    "DenseNet169": 3.36e9,
    "DenseNet201": 4.291e9,
    "DenseNetBC190_40": 9.388e9,
}


def slow_but(*quick):
    names = sorted({*PARAMETERS, *MILLIONS})
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", slow_but("DenseNet121", "DenseNet40_12", "DenseNetBC100_12"))
def test_parameters_and_flops(name):
    model = getattr(densenet, name)()
    parameters = models.trainable_parameters(model)
    if name in PARAMETERS:
        assert parameters == PARAMETERS[name]
    else:
        assert round(parameters / 1e6, 1) == MILLIONS[name]
    if name in FLOPS:
        assert models.multiply_adds(model) == pytest.approx(FLOPS[name], rel=0.02)


def test_depth_as_in_the_names():
    for name in {*PARAMETERS, *MILLIONS} - {"DenseNet264"}:
        facts = getattr(densenet, name).facts
        assert str(facts.spec.depth) in name
    assert densenet.DenseNet264.facts.spec.blocks == (6, 12, 64, 48)


def test_layer_names_are_those_of_keras_applications():
    theirs = keras.applications.DenseNet121(weights=None)
    ours = {layer.name: tuple(layer.output.shape) for layer in DenseNet121().layers}
    # Padding is part of our convolutions and poolings.
    wanted = {layer.name: tuple(layer.output.shape) for layer in theirs.layers[1:] if "padding" not in layer.name}
    assert {name: ours.get(name) for name in wanted} == wanted
    assert len(wanted) > 400


def tiny(**kwargs):
    """Four or three blocks of two layers."""
    arguments = {"depth": 16, "growth_rate": 3, "stem": "cifar", "input_shape": (13, 10, 3), "classes": 4}
    if kwargs.get("stem") == "imagenet":
        arguments |= {"depth": None, "blocks": (2, 1, 2, 1), "input_shape": (75, 67, 3)}
    if kwargs.get("bottleneck") is False:
        arguments |= {"depth": 10, "compression": 1.0}
    return DenseNet(**(arguments | kwargs))


def randomize(model, rng):
    """Weights that leave nothing at its neutral value."""
    for weight in model.weights:
        shape = tuple(weight.shape)
        value = rng.normal(0, 0.3, shape) if len(shape) > 1 else rng.uniform(0.5, 1.5, shape)
        if weight.path.rpartition("/")[2] in ("beta", "moving_mean"):
            value = rng.normal(0, 0.3, shape)
        weight.assign(value)


def reference(model, x, stem, blocks, bottleneck):
    """The network in float64 from the paper's text: plain TensorFlow ops on the weights of `model`."""
    weights = {
        "/".join(weight.path.split("/")[-2:]): tf.constant(weight.numpy(), "float64") for weight in model.weights
    }

    def conv(x, name, strides=1):
        kernel = weights[f"{name}_conv/kernel"]
        margin = kernel.shape[0] // 2
        return tf.nn.conv2d(x, kernel, strides, [[0, 0], [margin] * 2, [margin] * 2, [0, 0]])

    def bn_relu(x, name):
        gamma, beta, mean, variance = (
            weights[f"{name}/{key}"] for key in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return tf.nn.relu((x - mean) / tf.sqrt(variance + 1e-5) * gamma + beta)

    x = conv(tf.constant(x, "float64"), "conv1", 1 if stem == "cifar" else 2)
    if stem == "imagenet":
        x = tf.pad(bn_relu(x, "conv1_bn"), [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = tf.nn.max_pool2d(x, 3, 2, "VALID")
    for stage, count in enumerate(blocks, start=2):
        maps = [x]
        for number in range(1, count + 1):
            name = f"conv{stage}_block{number}"
            y = conv(bn_relu(tf.concat(maps, -1), f"{name}_0_bn"), f"{name}_1")
            maps.append(conv(bn_relu(y, f"{name}_1_bn"), f"{name}_2") if bottleneck else y)
        x = tf.concat(maps, -1)
        if stage <= len(blocks):
            x = tf.nn.avg_pool2d(conv(bn_relu(x, f"pool{stage}_bn"), f"pool{stage}"), 2, 2, "VALID")
    x = tf.reduce_mean(bn_relu(x, "bn"), (1, 2))
    return x @ weights["predictions/kernel"] + weights["predictions/bias"]


VARIANTS = {
    "bc": {},
    "plain": {"bottleneck": False},
    "imagenet": {"stem": "imagenet"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_pass_is_the_papers_at_odd_sizes(variant, rng):
    model = tiny(**VARIANTS[variant], classifier_activation=None)
    randomize(model, rng)
    x = rng.normal(size=(2, *model.input_shape[1:]))
    blocks = (2, 1, 2, 1) if variant == "imagenet" else (2, 2, 2)
    expected = reference(model, x, "imagenet" if variant == "imagenet" else "cifar", blocks, variant != "plain").numpy()
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_channels_grow_by_k_and_transitions_compress():
    model = tiny(growth_rate=5, compression=0.5)
    shapes = {layer.name: layer.output.shape[-1] for layer in model.layers}
    assert shapes["conv1_conv"] == 10
    assert [shapes[f"conv2_block{number}_concat"] for number in (1, 2)] == [15, 20]
    assert (shapes["conv2_block1_1_conv"], shapes["conv2_block1_2_conv"]) == (20, 5)
    assert (shapes["pool2_conv"], shapes["conv3_block2_concat"], shapes["pool3_conv"]) == (10, 20, 10)
    odd = tiny(growth_rate=5, compression=0.37)
    assert odd.get_layer("pool2_conv").filters == math.floor(0.37 * 20)


def test_plain_variants_start_with_16_and_keep_all_channels():
    model = tiny(bottleneck=False, growth_rate=5)
    shapes = {layer.name: layer.output.shape[-1] for layer in model.layers}
    assert shapes["conv1_conv"] == 16
    assert shapes["pool2_conv"] == shapes["conv2_block2_concat"] == 26
    assert "conv1_bn" not in shapes and "conv2_block1_2_conv" not in shapes


@pytest.mark.parametrize("growth_rate, filters", [(32, 64), (48, 96)])
def test_imagenet_stem_is_twice_the_growth_rate(growth_rate, filters):
    model = DenseNet(blocks=(1,), growth_rate=growth_rate)
    assert model.get_layer("conv1_conv").filters == filters
    assert model.get_layer("pool1").output.shape == (None, 56, 56, filters)


@pytest.mark.parametrize("bottleneck", [True, False])
def test_dropout_follows_every_convolution_but_the_first(bottleneck):
    model = tiny(bottleneck=bottleneck, dropout=0.2)
    names = [layer.name for layer in model.layers]
    convolutions = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    for name in convolutions[1:]:
        after = model.layers[names.index(name) + 1]
        assert isinstance(after, keras.layers.Dropout) and after.rate == 0.2
        assert after.name == name.removesuffix("conv") + "dropout"
        assert after.input is model.get_layer(name).output
    assert sum("dropout" in name for name in names) == len(convolutions) - 1
    assert not [layer for layer in tiny().layers if isinstance(layer, keras.layers.Dropout)]


def test_average_pooling_leaves_out_an_odd_row():
    model = tiny(input_shape=(13, 10, 3))
    assert model.get_layer("pool2_pool").output.shape[1:3] == (6, 5)
    assert model.get_layer("pool3_pool").output.shape[1:3] == (3, 2)


def twins(**kwargs):
    """A plain network and the memory-efficient one with its weights."""
    plain, efficient = tiny(**kwargs), tiny(**kwargs, memory_efficient=True)
    efficient.set_weights(plain.get_weights())
    return plain, efficient


def step(model, x, y, mode):
    """Logits and gradients of one training step; the moving statistics move."""

    def run(x, y):
        with tf.GradientTape() as tape:
            logits = tf.cast(model(x, training=True), "float32")
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        return logits, *tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    run = {"eager": run, "graph": tf.function(run), "xla": tf.function(run, jit_compile=True)}[mode]
    return [value.numpy() for value in run(x, y)]


def errors(found, expected, atol=0.0):
    """The largest error of each array, in its largest number."""
    pairs = list(zip(found, expected, strict=True))
    assert all(np.isfinite(one).all() for one, _ in pairs)
    return [(np.abs(one - other).max() - atol) / np.abs(other).max() for one, other in pairs]


MEMORY_EFFICIENT = [
    ("bc", "float32", "eager"),
    ("bc", "float32", "graph"),
    ("bc", "mixed_bfloat16", "graph"),
    ("plain", "mixed_float16", "graph"),
    pytest.param("bc", "float32", "xla", marks=pytest.mark.slow),
    pytest.param("plain", "mixed_bfloat16", "xla", marks=pytest.mark.slow),
    pytest.param("imagenet", "float32", "graph", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("variant, policy, mode", MEMORY_EFFICIENT)
def test_memory_efficient_training_is_the_plain_networks(variant, policy, mode, rng):
    exact, _ = twins(**VARIANTS[variant], classifier_activation=None)
    keras.config.set_dtype_policy(policy)
    plain, efficient = twins(**VARIANTS[variant], classifier_activation=None)
    plain.set_weights(exact.get_weights())
    efficient.set_weights(exact.get_weights())
    x, y = rng.normal(size=(4, *plain.input_shape[1:])).astype("float32"), np.arange(4)
    found, expected = step(efficient, x, y, mode), step(plain, x, y, mode)
    if policy == "float32":
        # Some gradients are zero but for rounding: of what the next BN takes away.
        assert max(errors(found, expected, atol=1e-6)) <= 1e-5
    else:
        # The two round at different places: neither is much farther from the network in float32.
        truth = step(exact, x, y, mode)
        assert np.mean(errors(found, truth)) <= 2 * np.mean(errors(expected, truth)) < 0.6
    # Each moving statistic was updated, once.
    for one, other in zip(efficient.non_trainable_weights, plain.non_trainable_weights, strict=True):
        np.testing.assert_allclose(
            one.numpy(),
            other.numpy(),
            rtol=1e-4 if policy == "float32" else 4e-3,
            atol=1e-5 if policy == "float32" else 1e-3,
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_memory_efficient_has_the_weights_and_tensors_of_the_plain_network(variant, rng, tmp_path):
    plain, efficient = tiny(**VARIANTS[variant]), tiny(**VARIANTS[variant], memory_efficient=True)
    assert [(w.path, w.shape) for w in efficient.weights] == [(w.path, w.shape) for w in plain.weights]
    assert models.trainable_parameters(efficient) == models.trainable_parameters(plain)
    shapes = {layer.name: layer.output.shape for layer in plain.layers}
    for layer in efficient.layers:
        if isinstance(layer, RecomputedConv2D):
            assert layer.output.shape == shapes[layer.convolution.name] and layer.norm.name in shapes
        else:
            assert layer.output.shape == shapes[layer.name]
    randomize(plain, rng)
    x = rng.normal(size=(2, *plain.input_shape[1:])).astype("float32")
    for source, target in ((plain, efficient), (efficient, plain)):
        source.save(tmp_path / "model.keras")
        load_weights(target, tmp_path / "model.keras")
        np.testing.assert_allclose(target(x), source(x), rtol=1e-6, atol=1e-6)
        randomize(target, rng)


def test_memory_efficient_saves_and_loads(rng, tmp_path):
    model = tiny(memory_efficient=True, dropout=0.1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.normal(size=(2, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(model(x), loaded(x), rtol=1e-5, atol=1e-6)
    assert loaded.architecture["options"]["memory_efficient"] is True
    model.save_weights(tmp_path / "model.weights.h5")
    again = tiny(memory_efficient=True, dropout=0.1, weights=tmp_path / "model.weights.h5")
    np.testing.assert_allclose(model(x), again(x), rtol=1e-5, atol=1e-6)


def test_memory_efficient_dropout_follows_every_convolution_but_the_first():
    plain, efficient = (tiny(dropout=0.2, memory_efficient=choice) for choice in (False, True))
    names = [
        [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
        for model in (plain, efficient)
    ]
    assert names[0] == names[1] and len(names[0]) == 14


def test_memory_efficient_fits():
    """In `fit` the loss falls as it does for the plain network."""
    plain, efficient = twins()
    x = np.random.default_rng(0).normal(size=(8, 13, 10, 3)).astype("float32")
    losses = []
    for model in (plain, efficient):
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        losses.append(model.fit(x, np.arange(8) % 4, batch_size=4, epochs=3, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
    assert losses[1][-1] < losses[1][0]


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: DenseNet(depth=41, stem="cifar", bottleneck=False),
            r"depth=41 is not 3n\+4 .*without bottlenecks.*e\.g\. 40",
        ),
        (lambda: DenseNet(depth=40, stem="cifar", growth_rate=0), "growth_rate=0 must be a whole number"),
        (lambda: DenseNet(depth=99, stem="cifar"), r"depth=99 is not 6n\+4 .*with bottlenecks.*e\.g\. 94"),
        (lambda: DenseNet(depth=4, stem="cifar"), r"depth=4 is not 6n\+4 .*e\.g\. 10"),
        (lambda: DenseNet(depth=40.0, stem="cifar"), "depth=40.0 must be a whole number"),
        (lambda: DenseNet(depth=121), r"give blocks=\(…\) with stem='imagenet'"),
        (lambda: DenseNet(), "give blocks"),
        (lambda: DenseNet(blocks=()), r"blocks=\(\) is empty"),
        (lambda: DenseNet(blocks=(6, 0)), r"blocks=\(6, 0\) must be a whole number of at least 1"),
        (lambda: DenseNet(blocks=(6, 12, 24, 16), depth=120), r"depth=120 contradicts blocks=\(6, 12, 24, 16\)"),
        (lambda: DenseNet(blocks=(1,), compression=0), r"compression=0 must be a share in \(0, 1\]"),
        (lambda: DenseNet(blocks=(1,), compression=1.1), "compression=1.1"),
        (lambda: tiny(compression=0.01), "compression=0.01 leaves none of the 12 channels"),
        (lambda: DenseNet(blocks=(1,), initial_filters=0), "initial_filters=0"),
        (lambda: DenseNet(blocks=(1,), stem="mnist"), "stem='mnist' is not one of 'imagenet', 'cifar'"),
        (lambda: DenseNet121(memory_efficient="yes"), "memory_efficient='yes' is not one of True, False"),
        (lambda: DenseNet121(dropout=1.0), "dropout=1.0 must be a drop probability"),
        (lambda: DenseNet121(input_shape=(31, 224, 3)), "each side must be at least 32"),
        (lambda: DenseNetBC100_12(input_shape=(3, 32, 3)), "each side must be at least 4"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
