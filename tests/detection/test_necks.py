"""The parts around the backbone: padding mask, upsampling and the pyramid's shapes."""

import keras
import numpy as np
import pytest

from keras_deepnets.detection import necks


def test_the_mask_is_zero_in_the_padding(rng):
    images = rng.normal(size=(2, 6, 8, 3)).astype("float32")
    images[0, 5, 7] = np.nan  # padding may hold anything
    found = np.asarray(necks.PaddingMask()([images, np.array([[5, 8], [6, 3]], "int32")]))
    np.testing.assert_array_equal(found[0, :5], images[0, :5])
    np.testing.assert_array_equal(found[1, :, :3], images[1, :, :3])
    assert not found[0, 5:].any() and not found[1, :, 3:].any()


def nearest(x, height, width):
    """torch's nearest interpolation: the index is the floor of i times the ratio of the sides."""
    rows = [int(np.floor(i * x.shape[1] / height)) for i in range(height)]
    columns = [int(np.floor(i * x.shape[2] / width)) for i in range(width)]
    return x[:, rows][:, :, columns]


@pytest.mark.parametrize(
    ("own", "wanted"), [((3, 4), (6, 8)), ((3, 4), (5, 7)), ((4, 4), (7, 8)), ((3, 4), (7, 13)), ((4, 5), (2, 3))]
)
def test_upsampling_of_known_sizes(rng, own, wanted):
    x = rng.normal(size=(2, *own, 3)).astype("float32")
    found = necks.UpsampleTo()([x, np.zeros((2, *wanted, 5), "float32")])
    np.testing.assert_array_equal(found, nearest(x, *wanted))


@pytest.mark.parametrize(("own", "wanted"), [((3, 4), (6, 8)), ((3, 4), (5, 7)), ((1, 1), (1, 2))])
def test_upsampling_in_a_graph_of_unknown_sizes(rng, own, wanted):
    import tensorflow as tf

    layer = necks.UpsampleTo()
    spec = tf.TensorSpec([None, None, None, 3])
    function = tf.function(lambda x, target: layer([x, target]), input_signature=[spec, spec])
    x = rng.normal(size=(2, *own, 3)).astype("float32")
    np.testing.assert_array_equal(function(x, np.zeros((2, *wanted, 3), "float32")), nearest(x, *wanted))


@pytest.mark.parametrize("norm", [False, True])
def test_the_pyramid_adds_the_level_above(norm):
    inputs = {level: keras.Input((2 ** (6 - level), 2 ** (6 - level), 4 * level)) for level in (2, 3, 4)}
    model = keras.Model(list(inputs.values()), necks.feature_pyramid_network(inputs, 8, norm=norm))
    assert set(model.output) == {2, 3, 4, 5}
    layers = {layer.name for layer in model.layers}
    assert ("fpn_inner2_bn" in layers) is norm
    assert model.get_layer("fpn_inner2_conv").use_bias is not norm
    values = [np.random.default_rng(level).normal(size=(1, *tensor.shape[1:])) for level, tensor in inputs.items()]
    found = {level: np.asarray(each) for level, each in model(values).items()}
    np.testing.assert_array_equal(found[5], found[4][:, ::2, ::2])

    def inner(level):
        x = model.get_layer(f"fpn_inner{level}_conv")(values[level - 2])
        return np.asarray(model.get_layer(f"fpn_inner{level}_bn")(x, training=False) if norm else x)

    def outer(level, x):
        x = model.get_layer(f"fpn_layer{level}_conv")(x)
        return np.asarray(model.get_layer(f"fpn_layer{level}_bn")(x, training=False) if norm else x)

    third = inner(3) + nearest(inner(4), 8, 8)
    second = inner(2) + nearest(third, 16, 16)
    np.testing.assert_allclose(found[3], outer(3, third), atol=1e-5)
    np.testing.assert_allclose(found[2], outer(2, second), atol=1e-5)


def test_the_proposal_network_of_two_depths():
    for depth in (1, 2):
        model = necks.region_proposal_network(8, 8, 3, depth)
        logits, deltas = model(np.zeros((2, 5, 7, 8), "float32"))
        assert (logits.shape, deltas.shape) == ((2, 5, 7, 3), (2, 5, 7, 12))
        assert model.count_params() == depth * (9 * 8 * 8 + 8) + (8 * 3 + 3) + (8 * 12 + 12)
