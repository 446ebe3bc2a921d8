"""The parts that published variants add: deep stems, pooled shortcuts, attention, anti-aliasing, group normalisation."""

import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import layers
from keras_deepnets.weights import open_model
from keras_deepnets.weights.cards.networks import NETWORKS as NETWORKS_OF_TIMM
from tests.weights.common import arrays, assert_same, fill

pytestmark = pytest.mark.integration


def test_squeezed_channels_are_timms():
    from keras_deepnets.layers.attention import squeezed

    assert [squeezed(channels) for channels in (64, 128, 256, 512, 1024, 2048)] == [8, 8, 16, 32, 64, 128]
    assert [squeezed(channels, 0.25) for channels in (40, 256, 2048)] == [8, 64, 512]


def test_a_channels_neighbours_are_timms():
    from keras_deepnets.layers.attention import neighbours

    assert [neighbours(channels) for channels in (8, 64, 128, 256, 512, 1024, 2048)] == [3, 3, 5, 5, 5, 5, 7]


def test_squeeze_excitation_by_hand(rng):
    import keras

    inputs = keras.Input((4, 5, 16))
    model = keras.Model(inputs, layers.squeeze_excitation(inputs, name="se"))
    x = rng.normal(size=(2, 4, 5, 16)).astype("float32")
    first, second = model.get_layer("se_1_conv"), model.get_layer("se_2_conv")
    for layer in (first, second):
        layer.bias.assign(rng.normal(size=layer.bias.shape).astype("float32"))
    hidden = np.maximum(x.mean((1, 2)) @ np.array(first.kernel)[0, 0] + np.array(first.bias), 0)
    gate = 1 / (1 + np.exp(-(hidden @ np.array(second.kernel)[0, 0] + np.array(second.bias))))
    np.testing.assert_allclose(model(x), x * gate[:, None, None], rtol=2e-5, atol=1e-6)


def test_efficient_channel_attention_by_hand(rng):
    import keras

    inputs = keras.Input((4, 5, 16))
    model = keras.Model(inputs, layers.efficient_channel_attention(inputs, name="se"))
    x = rng.normal(size=(2, 4, 5, 16)).astype("float32")
    (kernel,) = model.get_weights()
    assert kernel.shape == (3, 1, 1)
    means = np.pad(x.mean((1, 2)), [(0, 0), (1, 1)])
    gate = 1 / (1 + np.exp(-sum(means[:, i : i + 16] * kernel[i, 0, 0] for i in range(3))))
    np.testing.assert_allclose(model(x), x * gate[:, None, None], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("height, width", [(5, 4), (2, 7)])
def test_blur_by_hand(rng, height, width):
    import keras

    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, layers.antialiased(inputs, "blur", name="pool"))
    x = rng.normal(size=(2, height, width, 3)).astype("float32")
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], "reflect")
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    both = (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4
    np.testing.assert_allclose(model(x), both[:, ::2, ::2], rtol=2e-5, atol=1e-6)
    assert not model.weights and model.layers[-1].compute_output_shape((2, height, width, 3)) == model(x).shape


def test_averages_by_hand(rng):
    import keras

    inputs = keras.Input((5, 4, 3))
    pooled, stem = (
        keras.Model(inputs, pool(inputs, "average", name="pool"))
        for pool in (layers.antialiased, layers.antialiased_max_pool)
    )
    x = rng.normal(size=(2, 5, 4, 3)).astype("float32")
    rows = np.stack([x[:, 0:2].mean(1), x[:, 2:4].mean(1), x[:, 4]], 1)
    both = np.stack([rows[:, :, 0:2].mean(2), rows[:, :, 2:4].mean(2)], 2)
    np.testing.assert_allclose(pooled(x), both, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(stem(x), both[:, :2], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options, expected",
    [
        (
            {"antialias": "average", "downsample": "3x3", "block": "bottleneck"},
            {"conv1_conv", "pool1_pool", "conv3_block1_2_pool", "conv3_block1_0_conv"},
        ),
        (
            {"antialias": "blur", "downsample": "1x1", "block": "bottleneck", "shortcut": "D"},
            {"conv1_conv", "pool1_pool", "conv3_block1_1_pool", "conv3_block1_0_pool"},
        ),
        (
            {"stem_pool": "convolution", "antialias": None},
            {"conv1_conv", "pool1_conv", "conv3_block1_1_conv", "conv3_block1_0_conv"},
        ),
        (
            {"stem_pool": "convolution", "antialias": "blur"},
            {"conv1_conv", "pool1_pool", "conv3_block1_1_pool", "conv3_block1_0_conv"},
        ),
    ],
)
def test_where_pixels_are_left_out(options, expected):
    model = kd.ResNet(blocks=(1, 1), filters=(8, 16), input_shape=(32, 32, 3), include_top=False, **options)
    single = [layer for layer in model.layers[1:] if not isinstance(layer.input, list)]
    assert {layer.name for layer in single if layer.output.shape[1] < layer.input.shape[1]} == expected
    assert model.output_shape == (None, 4, 4, 64 if "block" in options else 16)
    # What striding would have computed is pooled behind its activation.
    pool = next((name for name in expected if name.startswith("conv3") and name[-6:] in ("1_pool", "2_pool")), None)
    if pool:
        assert model.get_layer(pool).input is model.get_layer(pool.replace("pool", "relu")).output
    blurred_maximum = options["antialias"] == "blur" and "stem_pool" not in options
    assert any(layer.name == "pool1_pool_max" for layer in single) == blurred_maximum


@pytest.mark.parametrize("size", [(32, 32), (37, 30)])
def test_the_stem_padded_as_tensorflow_does(rng, size):
    import keras

    # A new network's BN does nothing but for its epsilon, and nothing is negative for the ReLU.
    ours, symmetric = (
        kd.DenseNet(blocks=(2, 2), growth_rate=4, stem_padding=padding, include_top=False, input_shape=(*size, 3))
        for padding in ("same", "symmetric")
    )
    kernel = np.abs(np.array(ours.get_layer("conv1_conv").kernel))
    inputs = keras.Input((*size, 3))
    conv = keras.layers.Conv2D(kernel.shape[-1], 7, 2, "same", use_bias=False)
    stock = keras.Model(inputs, keras.layers.MaxPooling2D(3, 2, "same")(conv(inputs)))
    for layer in (conv, ours.get_layer("conv1_conv"), symmetric.get_layer("conv1_conv")):
        layer.set_weights([kernel])
    x = rng.uniform(size=(2, *size, 3)).astype("float32")
    found, other = (
        np.array(keras.Model(each.input, each.get_layer("pool1").output)(x)) * np.sqrt(1 + 1e-5)
        for each in (ours, symmetric)
    )
    np.testing.assert_allclose(found, stock(x), rtol=1e-5)
    assert np.abs(other - found).max() > 0.1


def test_where_the_first_block_projects():
    def names(**options):
        return {layer.name for layer in NETWORKS["first"](**options).layers if layer.name.endswith("_0_conv")}

    assert names() == {"conv2_block1_0_conv", "conv3_block1_0_conv"}
    plain = kd.ResNet(**SMALL, shortcut="D")
    assert kd.ResNet(**SMALL, shortcut="D", project_first=True).count_params() - plain.count_params() == 32 * 32 + 128


@pytest.mark.parametrize(
    "build, message",
    [
        (
            lambda: kd.ResNet(**SMALL, shortcut="A", project_first=True),
            "project_first=True applies to basic blocks",
        ),
        (
            lambda: kd.DenseNet(depth=22, stem="cifar", stem_padding="same"),
            "stem_padding='same' applies to stem='imagenet'",
        ),
        (lambda: kd.DenseNet(blocks=(2,), stem_padding="valid"), "stem_padding='valid'"),
    ],
)
def test_options_that_have_no_place(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_group_normalisation_by_hand(rng):
    import keras

    inputs = keras.Input((4, 5, 64))
    model = fill(keras.Model(inputs, layers.norm_activation(inputs, ("gn", "relu"), name="x")))
    assert [layer.name for layer in model.layers[1:]] == ["x_gn", "x_relu"]
    gamma, beta = model.get_weights()
    x = rng.normal(size=(2, 4, 5, 64)).astype("float32")
    groups = x.reshape(2, 20, 32, 2)
    normed = (groups - groups.mean((1, 3), keepdims=True)) / np.sqrt(groups.var((1, 3), keepdims=True) + 1e-5)
    expected = np.maximum(normed.reshape(x.shape) * gamma + beta, 0)
    np.testing.assert_allclose(model(x), expected, rtol=2e-5, atol=1e-5)


SMALL = {"blocks": (1, 2), "filters": (32, 64), "input_shape": (32, 32, 3), "classes": 5}
NETWORKS = {
    "group": lambda **kwargs: kd.ResNet(**SMALL, norm="group", block="bottleneck", zero_init_residual=True, **kwargs),
    "blur": lambda **kwargs: kd.ResNet(**SMALL, antialias="blur", **kwargs),
    "average": lambda **kwargs: kd.ResNeXt(
        **SMALL, antialias="average", attention="se", groups=8, base_width=8, **kwargs
    ),
    "eca": lambda **kwargs: kd.ResNet(**SMALL, attention="eca", shortcut="D", **kwargs),
    "rs": lambda **kwargs: kd.ResNet(
        **SMALL, attention="se", se_ratio=0.25, stem_pool="convolution", deep_stem=(8, 8, 16), shortcut="D", **kwargs
    ),
    "first": lambda **kwargs: kd.ResNet(**SMALL, project_first=True, shortcut="D", **kwargs),
    "preact": lambda **kwargs: kd.PreActResNet(
        **SMALL, norm="group", antialias="blur", deep_stem=(32, 32, 64), attention="eca", **kwargs
    ),
    "dense": lambda **kwargs: kd.DenseNet(
        blocks=(2, 2),
        growth_rate=4,
        deep_stem=(4, 4, 8),
        antialias="blur",
        input_shape=(32, 32, 3),
        classes=5,
        **kwargs,
    ),
    "dense-same": lambda **kwargs: kd.DenseNet(
        blocks=(2, 2), growth_rate=4, stem_padding="same", input_shape=(32, 32, 3), classes=5, **kwargs
    ),
}


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_variants_are_saved_and_folded(tmp_path, rng, name, form):
    """In both forms of the network: of layers, and of block layers or recomputing ones."""
    import keras

    build, other = NETWORKS[name], "memory_efficient" if name.startswith("dense") else "block_layers"
    model, plain = fill(build(**{other: form})), build()
    x = rng.normal(size=(2, 32, 32, 3)).astype("float32")
    expected = np.array(model(x))
    for suffix in (".safetensors", ".weights.h5", ".keras"):
        path = kd.save_weights(model, tmp_path / f"w{suffix}")
        again = open_model(path)
        assert_same(again, arrays(model))
        assert again.architecture == model.architecture
        assert kd.load_weights(plain, path).complete
        assert_same(plain, arrays(model))
    np.testing.assert_allclose(plain(x), expected, atol=1e-5)
    np.testing.assert_allclose(keras.models.load_model(path)(x), expected, atol=1e-5)
    folded = kd.fold_batchnorm(model)
    np.testing.assert_allclose(folded(x), expected, atol=1e-4)
    normed = [layer for layer in folded.layers if isinstance(layer, keras.layers.GroupNormalization)]
    assert bool(normed) == (name in ("group", "preact"))


@pytest.mark.parametrize("name", ["group", "blur", "average", "eca", "rs"])
def test_the_variants_are_frozen_and_trained(rng, name):
    model = fill(NETWORKS[name](classifier_activation=None))
    x = rng.normal(size=(2, 32, 32, 3)).astype("float32")

    def changed():
        before = arrays(model)
        model.compile("sgd", "mse", run_eagerly=True)
        model.train_on_batch(x, np.zeros((2, 5)))
        return {weight for weight, array in arrays(model).items() if (array != before[weight]).any()}

    kd.freeze(model)
    assert changed() == {"predictions/kernel", "predictions/bias"}
    model.trainable = True
    assert {"/".join(weight.path.split("/")[-2:]) for weight in model.trainable_weights} <= changed()


@pytest.mark.parametrize("name", ["group", "blur", "eca"])
def test_the_variants_in_half_precision(rng, name):
    import keras

    model = fill(NETWORKS[name](classifier_activation=None))
    x = rng.normal(size=(2, 32, 32, 3)).astype("float32")
    expected = np.array(model(x))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = NETWORKS[name](classifier_activation=None)
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(model.get_weights())
    assert np.abs(np.array(half(x)) - expected).max() < 0.05 * np.abs(expected).max()


def test_shortcut_d_averages_where_it_strides(rng):
    import keras

    inputs = keras.Input((5, 4, 3))
    model = keras.Model(inputs, layers.shortcut(inputs, 6, 2, kind="D", name="b", sequence=()))
    x = rng.normal(size=(2, 5, 4, 3)).astype("float32")
    rows = np.stack([x[:, 0:2].mean(1), x[:, 2:4].mean(1), x[:, 4]], 1)
    pooled = np.stack([rows[:, :, 0:2].mean(2), rows[:, :, 2:4].mean(2)], 2)
    kernel = np.array(model.get_layer("b_0_conv").kernel)[0, 0]
    np.testing.assert_allclose(model(x), pooled @ kernel, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options, parameters",
    [
        # timm: resnet50d 25,576,264, seresnet50 28,088,024, resnet18d 11,708,744 parameters
        ({"blocks": (3, 4, 6, 3), "block": "bottleneck", "deep_stem": (32, 32, 64), "shortcut": "D"}, 25_576_264),
        ({"blocks": (3, 4, 6, 3), "block": "bottleneck", "attention": "se"}, 28_088_024),
        ({"blocks": (2, 2, 2, 2), "deep_stem": (32, 32, 64), "shortcut": "D"}, 11_708_744),
        # ecaresnet26t 16,011,916, resnetrs50 35,691,912, resnet50_gn 25,557,032
        (NETWORKS_OF_TIMM["ecaresnet26t"][1], 16_011_916),
        (NETWORKS_OF_TIMM["resnetrs50"][1], 35_691_912),
        (NETWORKS_OF_TIMM["resnet50_gn"][1], 25_557_032),
    ],
)
def test_parameters_are_timms(options, parameters):
    assert sum(np.prod(weight.shape) for weight in kd.ResNet(**options).trainable_weights) == parameters


def test_a_deep_stem_does_not_change_what_a_densenet_is_called():
    options = NETWORKS_OF_TIMM["densenetblur121d"][1]
    model = kd.DenseNet(**options)
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == 7_998_088  # timm's densenetblur121d
    assert [layer.name for layer in model.layers if layer.name.startswith("pool1")] == ["pool1_max", "pool1"]
    facts = kd.DenseNet.facts.family.spec
    assert facts(**options).depth == 121 and facts(**NETWORKS_OF_TIMM["densenet264d"][1]).initial_filters == 96


def test_bad_values():
    with pytest.raises(ValueError, match=r"deep_stem=.* replaces the 7×7 convolution of stem='imagenet'"):
        kd.ResNet(depth=20, stem="cifar", deep_stem=(32, 32, 64))
    row = {"blocks": (1, 1, 1, 1)}
    for options, message in (
        ({"attention": "cbam"}, "attention='cbam' is not one of None, 'se', 'eca'"),
        ({"antialias": "max"}, "antialias='max' is not one of None, 'average', 'blur'"),
        ({"norm": "layer"}, "norm='layer' is not one of 'batch', 'group'"),
        ({"stem_pool": "average"}, "stem_pool='average' is not one of 'max', 'convolution'"),
        ({"se_ratio": 0}, r"se_ratio=0 must be a share in \(0, 1\]"),
        ({"se_ratio": True}, "se_ratio=True must be a share"),
        ({"norm": "group", "deep_stem": (24, 32, 64)}, "divides the channels into 32 groups, but there are 24"),
    ):
        with pytest.raises(ValueError, match=message):
            kd.ResNet(**row, **options)
    with pytest.raises(ValueError, match="stem_pool='convolution' replaces the pooling of stem='imagenet'"):
        kd.ResNet(depth=20, stem="cifar", stem_pool="convolution")
    with pytest.raises(ValueError, match="antialias='blur' cannot be combined with form='keras'"):
        kd.PreActResNet(**row, form="keras", antialias="blur")
    with pytest.raises(TypeError, match="unknown option 'stem_pool'"):
        kd.PreActResNet(**row, stem_pool="convolution")
    with pytest.raises(ValueError, match=r"DenseNet: deep_stem=.* replaces the 7×7"):
        kd.DenseNet(depth=40, stem="cifar", deep_stem=(4, 8))
    with pytest.raises(ValueError, match="antialias='blur' applies to the max pooling of stem='imagenet'"):
        kd.DenseNet(depth=40, stem="cifar", antialias="blur")
    with pytest.raises(ValueError, match="DenseNet: antialias='average' is not one of None, 'blur'"):
        kd.DenseNet(**row, antialias="average")
    with pytest.raises(ValueError, match=r"initial_filters=16 contradicts deep_stem=\(4, 8\)"):
        kd.DenseNet(**row, deep_stem=(4, 8), initial_filters=16)


def test_the_keras_form_is_keras_applications(rng):
    """Strides in the last units, biases, zero-padded pooling: outputs at an odd size, where padding counts most."""
    import keras

    peer = fill(keras.applications.ResNet50V2(weights=None, include_top=False, input_shape=(67, 61, 3)))
    ours = kd.ResNet50V2(form="keras", include_top=False, input_shape=(67, 61, 3))
    assert kd.load_weights(ours, peer).complete
    names = ("pool1_pool", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out")
    x = rng.normal(size=(2, 67, 61, 3)).astype("float32")
    expected = keras.Model(peer.input, [peer.get_layer(name).output for name in names])(x)
    found = keras.Model(ours.input, [ours.get_layer(name).output for name in names])(x)
    for theirs, own in zip(expected, found, strict=True):
        np.testing.assert_allclose(own, theirs, atol=1e-4 * np.abs(theirs).max())
    with pytest.raises(ValueError, match="need form='keras', but it was built with form="):
        kd.load_weights(kd.ResNet50V2(include_top=False, input_shape=(67, 61, 3)), peer)
