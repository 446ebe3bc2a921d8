import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.insight import draw_grad_cam, grad_cam, overlay


def images(count=3, side=16, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), np.uint8)


@pytest.fixture(scope="module")
def resnet():
    keras.utils.set_random_seed(1)
    return kd.ResNet(depth=8, stem="cifar", input_shape=(16, 16, 3), classes=5)


def by_hand(model, layer, pixels, classes):
    """Grad-CAM from the parts of the network after `layer`, with its classifier's weights, and differences for the gradient."""
    inputs = kd.preprocess_input(pixels, model)
    maps = np.asarray(keras.Model(model.inputs[0], model.get_layer(layer).output)(inputs), np.float64)
    kernel = np.asarray(model.get_layer("predictions").kernel, np.float64)
    # Behind the last maps there is only average pooling: the gradient of logit c by each position is w[k, c] / positions.
    weights = kernel[:, classes].T / maps[0, ..., 0].size
    return np.maximum((weights[:, None, None] * maps).sum(-1), 0)


def test_against_the_closed_form(resnet):
    found = grad_cam(resnet, images(), [0, 3, 4])
    assert found.layer == "conv4_block1_out" and found.classes.tolist() == [0, 3, 4]
    np.testing.assert_allclose(found.maps, by_hand(resnet, found.layer, images(), [0, 3, 4]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.probabilities, resnet(kd.preprocess_input(images(), resnet)), rtol=1e-4)


def test_an_inner_layer_against_a_gradient_by_hand(resnet):
    layer, pixels = "conv3_block1_out", images(1)
    found = grad_cam(resnet, pixels, [2], layer)
    maps = keras.Model(resnet.inputs[0], resnet.get_layer(layer).output)(kd.preprocess_input(pixels, resnet))
    rest = keras.Model(resnet.get_layer(layer).output, resnet.get_layer("avg_pool").output)
    head = resnet.get_layer("predictions")
    with tf.GradientTape() as tape:
        tape.watch(maps)
        logits = rest(maps, training=False) @ head.kernel + head.bias
        score = logits[0, 2]
    weights = tape.gradient(score, maps)[0].numpy().mean((0, 1))
    np.testing.assert_allclose(found.maps[0], np.maximum((maps[0].numpy() * weights).sum(-1), 0), rtol=1e-3, atol=1e-6)


def test_the_predicted_class_is_the_default(resnet):
    best = np.argmax(resnet(kd.preprocess_input(images(), resnet)), -1)
    found = grad_cam(resnet, images())
    assert found.classes.tolist() == best.tolist()
    np.testing.assert_allclose(found.maps, grad_cam(resnet, images(), best).maps)


def test_logits_and_softmax_give_the_same_maps():
    kinds = {}
    for activation in ("softmax", None):
        keras.utils.set_random_seed(3)
        options = {"input_shape": (16, 16, 3), "classes": 3, "classifier_activation": activation}
        kinds[activation] = grad_cam(kd.NIN(**options), images(2), [0, 2])
    np.testing.assert_allclose(kinds["softmax"].maps, kinds[None].maps, rtol=1e-5)
    np.testing.assert_allclose(kinds["softmax"].probabilities, kinds[None].probabilities, rtol=1e-5)


def test_the_last_maps_before_a_pooling():
    model = kd.VGG(convolutions=(1, 1), filters=(4, 6), input_shape=(16, 16, 3), classes=3, include_preprocessing=True)
    assert grad_cam(model, images(1)).maps.shape == (1, 8, 8)


def test_bad_input(resnet):
    for arguments, says in (
        ((images(2, 8),), "takes \\[n, 16, 16, 3\\]"),
        ((images(2), [0]), "must be 2 numbers from 0 to 4"),
        ((images(2), [0, 5]), "from 0 to 4"),
        ((images(1), None, "conv9"), "no layer 'conv9' with feature maps"),
        ((images(1), None, "predictions"), "no layer 'predictions' with feature maps"),
    ):
        with pytest.raises(InputError, match=says):
            grad_cam(resnet, *arguments)
    with pytest.raises(InputError, match="no layer with feature maps"):
        grad_cam(kd.PlainMLP(depth=2, input_shape=(8, 8, 1), include_preprocessing=True), images(1, 8, 1))
    with pytest.raises(InputError, match="not a classifier"):
        grad_cam(kd.ResNet(depth=8, stem="cifar", input_shape=(16, 16, 3), include_top=False), images(1))
    sigmoid = kd.ResNet(depth=8, stem="cifar", input_shape=(16, 16, 3), classifier_activation="sigmoid")
    with pytest.raises(InputError, match="ends in 'sigmoid'"):
        grad_cam(sigmoid, images(1))


def test_the_overlay_is_brightest_where_the_map_is_highest():
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 7
    shown = overlay(np.full((16, 16, 1), 90, np.uint8), heat)
    assert shown.shape == (16, 16, 3) and shown.dtype == np.uint8
    luma = shown @ np.array([0.299, 0.587, 0.114])
    row, column = np.unravel_index(luma.argmax(), luma.shape)
    assert 4 <= row < 8 and 8 <= column < 12
    assert (overlay(np.full((8, 8, 3), 90, np.uint8), np.zeros((2, 2), np.float32)) == 72).all()  # no evidence at all


def test_the_picture(resnet, tmp_path):
    labels = ["a", "b", "c", "d", "猫"]
    path = draw_grad_cam(resnet, images(5), tmp_path / "cam.svg", labels, [0, 1, 2, 3, 4])
    assert path.read_text(encoding="utf-8").startswith("<?xml")
    with pytest.raises(InputError, match="must end in"):
        draw_grad_cam(resnet, images(1), tmp_path / "cam.gif")
