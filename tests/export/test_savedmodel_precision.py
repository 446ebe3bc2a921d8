"""Weights in half precision, in networks of every form."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import export
from tests.export.conftest import keras_probabilities, photographs, spread_logits, unsettle
from tests.export.test_savedmodel_graph import all_nodes

pytestmark = pytest.mark.integration

SHAPE = {"input_shape": (24, 24, 3), "classes": 6, "include_preprocessing": True}
NETWORKS = {
    "dense": lambda: kd.DenseNet(blocks=(3, 3, 3), growth_rate=6, stem="cifar", **SHAPE),
    "grouped": lambda: kd.ResNeXt(depth=11, groups=4, base_width=16, stem="cifar", filters=(8, 16, 32), **SHAPE),
    "blocks": lambda: kd.ResNet(depth=20, stem="cifar", filters=(8, 16, 32), block_layers=True, **SHAPE),
    "highway": lambda: kd.Highway(filters=(8, 12, 16), convolutions=(3, 3, 3), hidden=20, **SHAPE),
}
# float16 rounds the weights to 11 binary digits and computes in float32. bfloat16 has 8, and in it the graph computes too:
# every map is rounded, which in these random networks adds up to some hundredths of a probability.
TOLERANCES = {"float16": 1e-2, "bfloat16": 1e-1}


@pytest.fixture(scope="module", params=list(NETWORKS))
def network(request):
    keras.utils.set_random_seed(4)
    model = unsettle(NETWORKS[request.param]())
    spread_logits(model, photographs(24, 24, 24, seed=5))
    return model


@pytest.mark.parametrize("precision", TOLERANCES)
def test_probabilities_are_those_of_keras(precision, network, tmp_path):
    images = photographs(24, 24, 24)
    expected = keras_probabilities(network, images)
    assert expected.std(0).min() > 0.02
    path = export.saved_model(network, tmp_path, precision=precision, features=True)
    found = export.predict(path, images)["probabilities"]
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    assert 1e-6 < np.abs(found - expected).max() < TOLERANCES[precision], np.abs(found - expected).max()
    margins = np.sort(expected)[:, -1] - np.sort(expected)[:, -2]
    clear = margins > 2 * TOLERANCES[precision]
    assert clear.mean() > 0.3
    np.testing.assert_array_equal(found.argmax(-1)[clear], expected.argmax(-1)[clear])
    computed = {node.attr["T"].type for node in all_nodes(path)[1] if node.op == "Conv2D"}
    assert computed == {(tf.bfloat16 if precision == "bfloat16" else tf.float32).as_datatype_enum}
