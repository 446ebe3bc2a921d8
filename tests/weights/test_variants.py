"""The parts that published variants add: deep stems, pooled shortcuts, squeeze-and-excitation."""

import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets import layers
from tests.weights.common import fill


def test_squeezed_channels_are_timms():
    from keras_deepnets.layers.attention import squeezed

    assert [squeezed(channels) for channels in (64, 128, 256, 512, 1024, 2048)] == [8, 8, 16, 32, 64, 128]


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
    ],
)
def test_parameters_are_timms(options, parameters):
    assert sum(np.prod(weight.shape) for weight in kd.ResNet(**options).trainable_weights) == parameters


def test_bad_values():
    with pytest.raises(ValueError, match=r"deep_stem=.* replaces the 7×7 convolution of stem='imagenet'"):
        kd.ResNet(depth=20, stem="cifar", deep_stem=(32, 32, 64))
    with pytest.raises(ValueError, match="attention='eca' is not one of None, 'se'"):
        kd.ResNet(blocks=(1, 1, 1, 1), attention="eca")


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
    with pytest.raises(ValueError, match=r"do not fit; .*unused: conv1_conv/bias"):
        kd.load_weights(kd.ResNet50V2(include_top=False, input_shape=(67, 61, 3)), peer)
