"""Residual nets and plain twins: what their paper says beyond the common battery."""

import keras
import numpy as np
import pytest

import keras_deepnets as kd


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: kd.ResNet(depth=21, stem="cifar"), r"depth=21 is not 6n\+2"),
        (lambda: kd.ResNet(depth=30, stem="cifar", block="bottleneck"), r"depth=30 is not 9n\+2"),
        (lambda: kd.ResNet(depth=50), "give blocks"),
        (lambda: kd.ResNet(), "give blocks"),
        (lambda: kd.ResNet(blocks=(1, 1)), "one number per stage"),
        (lambda: kd.ResNet(blocks=(1, 1, 1, 1), groups=2), "set block='bottleneck'"),
        (lambda: kd.ResNet20(shortcut="E"), "shortcut='E' is not one of 'A', 'B', 'C'"),
        (lambda: kd.ResNet50(downsample="2x2"), "downsample='2x2'"),
        (lambda: kd.ResNet50(stochastic_depth=1), "stochastic_depth=1"),
        (lambda: kd.ResNet50(input_shape=(3, 224, 224)), "channels first"),
        (lambda: kd.ResNet50(input_shape=(31, 224, 3)), "each side must be at least 32"),
        (lambda: kd.ResNet50(input_shape=(224, 224)), r"\(height, width, channels\)"),
        (lambda: kd.ResNet50(input_shape=(224, 224, None)), "channels open"),
        (lambda: kd.ResNet20(classes=0), "classes=0"),
        (lambda: kd.ResNet20(pooling="mean"), "pooling='mean'"),
        (lambda: kd.ResNet20(weights="imagenet"), "has no weights 'imagenet'; it has akamaster/cifar10"),
        (lambda: kd.ResNet20(weights="missing.weights.h5"), "no weights file 'missing.weights.h5'"),
        (
            lambda: kd.ResNet20(input_shape=(32, 32, 1), include_preprocessing=True),
            "scales 3 channels and the input has 1",
        ),
        (lambda: kd.ResNet20(input_tensor=np.zeros((1, 32, 32, 3))), "must be a Keras tensor"),
        (lambda: kd.create_model("resnet51"), "Did you mean .*resnet50"),
        (lambda: kd.list_models(family="ResNets"), "Unknown family 'ResNets'"),
        (lambda: kd.list_models(dataset="cifar"), "cifar10"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_unknown_option_lists_the_valid_ones():
    with pytest.raises(
        TypeError, match=r"unknown option 'dropout'.*shortcut, downsample, zero_init_residual, stochastic_depth"
    ):
        kd.ResNet50(dropout=0.1)
    with pytest.raises(TypeError, match="unknown option 'shortcut'"):
        kd.PlainNet20(shortcut="A")


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="set_image_data_format"):
            kd.ResNet20()
    finally:
        keras.config.set_image_data_format("channels_last")


def count(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_shortcuts_add_the_papers_parameters():
    a, b, c = (count(kd.ResNet20(shortcut=kind)) for kind in "ABC")
    assert a == 269_722
    assert b - a == 16 * 32 + 32 * 64 + 2 * (32 + 64)
    assert c - b == 3 * 16 * 16 + 2 * 32 * 32 + 2 * 64 * 64 + 2 * (3 * 16 + 2 * 32 + 2 * 64)


def strides(model):
    return {layer.name: layer.strides[0] for layer in model.layers if isinstance(layer, keras.layers.Conv2D)}


def test_downsampling_convolution():
    first, second = (strides(kd.ResNet50(downsample=kind)) for kind in ("1x1", "3x3"))
    assert (first["conv3_block1_1_conv"], first["conv3_block1_2_conv"]) == (2, 1)
    assert (second["conv3_block1_1_conv"], second["conv3_block1_2_conv"]) == (1, 2)
    assert first["conv2_block1_1_conv"] == 1 and first["conv3_block1_0_conv"] == 2


def test_zero_init_makes_every_block_its_shortcut(rng):
    model = kd.ResNet20(zero_init_residual=True, input_shape=(16, 16, 3))
    tensors = [model.get_layer(name).output for name in ("conv1_relu", "conv2_block3_out")]
    start, end = keras.Model(model.input, tensors)(rng.normal(size=(1, 16, 16, 3)).astype("float32"))
    np.testing.assert_array_equal(start, end)


def test_stochastic_depth_survival_is_linear():
    model = kd.ResNet20(stochastic_depth=0.5)
    drops = [layer.survival for layer in model.layers if layer.name.endswith("_drop")]
    np.testing.assert_allclose(drops, 1 - np.arange(1, 10) / 9 * 0.5)


def test_layer_names_are_those_of_keras_applications():
    theirs = keras.applications.ResNet50(weights=None)
    ours = {layer.name: tuple(layer.output.shape) for layer in kd.ResNet50().layers}
    # Padding is part of our convolutions and poolings.
    wanted = {layer.name: tuple(layer.output.shape) for layer in theirs.layers if not layer.name.endswith("_pad")}
    wanted.pop(theirs.layers[0].name)
    assert {name: ours.get(name) for name in wanted} == wanted


def test_plain_net_is_the_residual_net_without_sums():
    plain, residual = kd.PlainNet20(), kd.ResNet20()
    assert not [layer for layer in plain.layers if layer.name.endswith("_add")]
    assert [w.shape for w in plain.weights] == [w.shape for w in residual.weights]


def test_builder_goes_between_the_rows():
    model = kd.ResNet(depth=26, stem="cifar", shortcut="A", classes=5)
    assert model.output_shape == (None, 5) and model.input_shape == (None, 32, 32, 3) and model.name == "resnet"
    wide = kd.ResNet(blocks=(1, 1, 1, 1), block="bottleneck", base_width=4, groups=32)
    assert wide.get_layer("conv2_block1_2_conv").filters == 128 and wide.get_layer("conv2_block1_2_conv").groups == 32


def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path):
    path = tmp_path / "other.keras"
    kd.ResNet20(classes=4).save(path)
    model = kd.ResNet20()
    before = model.get_weights()
    with pytest.raises(ValueError, match="of another shape: predictions/kernel"):
        kd.load_weights(model, path)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
