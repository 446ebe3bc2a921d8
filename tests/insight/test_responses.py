import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.insight import draw_responses, layer_responses
from keras_deepnets.insight.responses import Responses, _figure


def images(count, side=8):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)


def measured(model, layer, pixels):
    inner = keras.Model(model.inputs[0], model.get_layer(layer).output)
    return np.asarray(inner(kd.preprocess_input(pixels, model), training=False), np.float64).std()


NETWORKS = {
    # The network, and the layers whose outputs are the responses.
    "resnet": (
        lambda: kd.ResNet(depth=8, stem="cifar", input_shape=(8, 8, 3), shortcut="B"),
        ["conv1_bn", *(f"conv{stage}_block1_{at}_bn" for stage in (2, 3, 4) for at in (1, 2))],
    ),
    # In a unit with full pre-activation, the second convolution is followed by the addition.
    "preact": (
        lambda: kd.PreActResNet(depth=8, stem="cifar", input_shape=(8, 8, 3)),
        ["conv1_bn", *(f"conv{stage}_block1_{at}" for stage in (2, 3, 4) for at in ("1_bn", "2_conv"))],
    ),
    "without normalisation": (
        lambda: kd.VGG(convolutions=(1, 1), filters=(4, 6), input_shape=(8, 8, 3), include_top=False),
        ["block1_conv1", "block2_conv1"],
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_against_intermediate_models(name):
    keras.utils.set_random_seed(4)
    model, pixels = NETWORKS[name][0](), images(40)  # more than a batch
    found = layer_responses(model, pixels)
    assert list(found.names) == NETWORKS[name][1]
    for layer, value in zip(found.names, found.deviations, strict=True):
        assert value == pytest.approx(measured(model, layer, pixels), rel=1e-5), layer


def test_two_networks_in_one_picture(tmp_path):
    found = {"plain": Responses(("a", "b", "c"), np.array([1.0, 3, 2])), "残差": Responses(("a",), np.array([0.5]))}
    above, below = _figure(found, None).axes
    np.testing.assert_array_equal(above.lines[0].get_ydata(), [1, 3, 2])
    np.testing.assert_array_equal(below.lines[0].get_ydata(), [3, 2, 1])
    assert [text.get_text() for text in below.get_legend().texts] == ["plain (mean 2.00)", "残差 (mean 0.50)"]
    assert draw_responses(found, tmp_path / "responses.svg").exists()


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="no convolutions"):
        layer_responses(kd.PlainMLP(depth=2, input_shape=(8, 8, 1)), images(1)[..., :1])
    with pytest.raises(InputError, match="block_layers=False"):
        layer_responses(kd.ResNet(depth=8, stem="cifar", input_shape=(8, 8, 3), block_layers=True), images(1))
    with pytest.raises(InputError, match="no responses"):
        draw_responses({}, tmp_path / "responses.png")
