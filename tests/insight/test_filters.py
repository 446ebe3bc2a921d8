import numpy as np
import pytest
from PIL import Image

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.insight import draw_filters, first_filters


def test_of_a_convolution():
    model = kd.ResNet(blocks=(1,), filters=(8,), input_shape=(32, 32, 3))
    kernel = np.asarray(model.get_layer("conv1_conv").kernel)
    found = first_filters(model)
    assert found.shape == (8, 7, 7, 3)
    np.testing.assert_array_equal(found[5], kernel[..., 5])


def test_of_a_fully_connected_layer():
    model = kd.PlainMLP(depth=2, width=5, input_shape=(4, 6, 1))
    kernel = np.asarray(model.get_layer("fc1").kernel)
    found = first_filters(model)
    assert found.shape == (5, 4, 6, 1)
    # The unit's answer to an image is the product of both.
    image = np.random.default_rng(0).random((4, 6, 1))
    np.testing.assert_allclose((found[3] * image).sum(), image.ravel() @ kernel[:, 3], rtol=1e-5)


def test_colours(tmp_path):
    """A filter that is 1 for red and -1 for blue is drawn red without blue; 0 is grey."""
    model = kd.ResNet(depth=8, stem="cifar", input_shape=(8, 8, 3))
    layer = model.get_layer("conv1_conv")
    kernel = np.zeros(layer.kernel.shape, np.float32)
    kernel[:, :, 0, 0], kernel[:, :, 2, 0] = 1, -1
    layer.kernel.assign(kernel)
    with Image.open(draw_filters(model, tmp_path / "filters.png")) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3).astype(int)
    assert (np.abs(pixels - [255, 128, 0]).max(1) <= 2).sum() > 5000
    assert (np.abs(pixels - 128).max(1) <= 2).sum() > 15 * 5000


def test_other_inputs():
    with pytest.raises(InputError, match="1 or 3 channels"):
        first_filters(kd.ResNet(depth=8, stem="cifar", input_shape=(8, 8, 4)))
