"""Weights between the layers of a DenseNet, compared with a count by hand."""

import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.studies import connections


@pytest.fixture(scope="module")
def dense():
    return kd.DenseNet(
        blocks=(3, 2), growth_rate=4, bottleneck=False, compression=1.0, stem="cifar", input_shape=(8, 8, 3)
    )


def test_each_element_is_the_mean_weight_on_a_source(dense):
    maps = connections.reuse_maps(dense)
    assert list(maps) == ["block 1", "block 2"]
    assert maps["block 1"].shape == (4, 4) and maps["block 2"].shape == (3, 3)
    kernel = np.abs(np.asarray(dense.get_layer("conv2_block3_1_conv").kernel))  # reads 16 + 4 + 4 channels
    means = np.array([kernel[:, :, a:b].mean() for a, b in ((0, 16), (16, 20), (20, 24))])
    np.testing.assert_allclose(maps["block 1"][:3, 2], means / means.max(), rtol=1e-6)
    assert np.isnan(maps["block 1"][3, 2]) and np.isnan(maps["block 1"][1, 0])
    kernel = np.abs(np.asarray(dense.get_layer("pool2_conv").kernel))
    means = np.array([kernel[:, :, a:b].mean() for a, b in ((0, 16), (16, 20), (20, 24), (24, 28))])
    np.testing.assert_allclose(maps["block 1"][:, 3], means / means.max(), rtol=1e-6)


def test_layers_that_ignore_all_but_the_nearest_source_have_no_reuse(dense):
    assert connections.reuse(connections.reuse_maps(dense)) == pytest.approx(1, abs=0.15)  # random weights
    before = dense.get_weights()
    with connections.cut(dense):
        maps = connections.reuse_maps(dense)
        np.testing.assert_array_equal(maps["block 1"][:3, 1:3], [[0, 0], [1, 0], [np.nan, 1]])
    for one, other in zip(before, dense.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_networks_have_no_dense_blocks():
    with pytest.raises(InputError, match="resnet has no dense blocks; feature reuse is for DenseNets"):
        connections.reuse_maps(kd.ResNet(depth=8, stem="cifar", input_shape=(8, 8, 3)))
