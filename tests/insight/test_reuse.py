import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.insight import draw_feature_reuse, feature_reuse
from keras_deepnets.insight.reuse import _figure

K = 4


@pytest.fixture(scope="module", params=["plain", "bottleneck", "recomputed"])
def network(request):
    keras.utils.set_random_seed(2)
    options = {"growth_rate": K, "stem": "cifar", "input_shape": (8, 8, 3), "classes": 3}
    if request.param == "bottleneck":
        return kd.DenseNet(depth=16, bottleneck=True, compression=0.5, layer_prefix="left_", **options)
    return kd.DenseNet(depth=10, bottleneck=False, memory_efficient=request.param == "recomputed", **options)


def kernel(model, name):
    """The kernel of the convolution or classifier with this name, found by its path."""
    (found,) = [
        np.asarray(weight) for weight in model.weights if weight.path.removeprefix("left_").startswith(f"{name}/kernel")
    ]
    return found


def test_against_the_kernels(network):
    first, middle, last = feature_reuse(network)
    assert [reuse.block for reuse in (first, middle, last)] == ["conv2", "conv3", "conv4"]
    assert [reuse.follows for reuse in (first, middle, last)] == ["transition", "transition", "classifier"]
    before = kernel(network, "conv1_conv").shape[-1]
    assert first.strengths.shape == (3, 3)
    # Layer 2 of the block reads the input's maps, then the K maps of layer 1.
    weights = np.abs(kernel(network, "conv2_block2_1_conv"))
    assert weights.shape[2] == before + K
    per_map = [weights[:, :, at].sum() for at in range(before + K)]
    np.testing.assert_allclose(
        first.strengths[:, 1], [np.mean(per_map[:before]), np.mean(per_map[before:]), np.nan], rtol=1e-5
    )
    np.testing.assert_allclose(
        first.strengths[:, 0],
        [np.abs(kernel(network, "conv2_block1_1_conv")).sum() / before, np.nan, np.nan],
        rtol=1e-5,
    )
    transition = np.abs(kernel(network, "pool2_conv"))[0, 0].sum(-1)
    expected = [transition[:before].mean(), transition[before : before + K].mean(), transition[before + K :].mean()]
    np.testing.assert_allclose(first.strengths[:, 2], expected, rtol=1e-5)
    head = np.abs(kernel(network, "predictions")).sum(-1)
    np.testing.assert_allclose(last.strengths[2, 2], head[-K:].mean(), rtol=1e-5)


def test_the_columns_are_relative_to_their_largest(network, tmp_path):
    figure = _figure(feature_reuse(network), "network")
    table = figure.axes[0].images[0].get_array()
    np.testing.assert_allclose(table.max(axis=0), 1)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["1", "2", "next"]
    assert draw_feature_reuse(network, tmp_path / "reuse.png").stat().st_size > 5000


def test_only_dense_networks(tmp_path):
    with pytest.raises(InputError, match="no dense blocks"):
        draw_feature_reuse(kd.ResNet(depth=8, stem="cifar", input_shape=(8, 8, 3)), tmp_path / "reuse.png")
    assert not list(tmp_path.iterdir())
