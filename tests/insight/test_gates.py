import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.insight import draw_gates, gate_activity
from keras_deepnets.insight.gates import _figure


def images(count, side, channels):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), np.uint8)


@pytest.fixture(scope="module")
def dense():
    keras.utils.set_random_seed(1)
    model = kd.HighwayMLP(depth=4, width=6, input_shape=(8, 8, 1), gate_bias=-1.0)
    random = np.random.default_rng(3)
    for layer in model.layers:
        if layer.name.endswith("_gate"):
            layer.bias.assign(random.normal(-1, 1, 6))
    return model


def test_a_forward_pass_by_hand(dense):
    pixels = images(5, 8, 1)
    weights = {weight.path: np.asarray(weight, np.float64) for weight in dense.weights}

    def layer(x, name):
        return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]

    scaling = dense.scaling
    x = ((pixels - np.array(scaling.mean)) / np.array(scaling.std)).reshape(5, -1)
    x = np.maximum(layer(x, "fc1"), 0)
    gates = []
    for number in (2, 3, 4):
        gate = 1 / (1 + np.exp(-layer(x, f"fc{number}_gate")))
        x = np.maximum(layer(x, f"fc{number}_transform"), 0) * gate + x * (1 - gate)
        gates.append(gate)
    found = gate_activity(dense, pixels)
    assert found.names == ("fc2_gate", "fc3_gate", "fc4_gate")
    for at, gate in enumerate(gates):
        np.testing.assert_allclose(found.single[at], gate, rtol=1e-4)
        np.testing.assert_allclose(found.means[at], gate.mean(0), rtol=1e-4)
        np.testing.assert_array_equal(found.biases[at], weights[f"fc{at + 2}_gate/bias"].astype(np.float32))


def test_gates_of_convolutions_are_averaged_over_positions():
    model = kd.Highway(filters=(3, 5), convolutions=(2, 2), input_shape=(8, 8, 3), gate_bias=-2.0)
    pixels = images(40, 8, 3)  # more than a batch
    found = gate_activity(model, pixels)
    assert [mean.shape for mean in found.means] == [(3,), (5,)]
    inner = keras.Model(model.inputs[0], model.get_layer("conv2_2_gate").output)
    expected = np.asarray(inner(kd.preprocess_input(pixels, model)))
    np.testing.assert_allclose(found.single[1], expected.mean((1, 2)), rtol=1e-5)
    axes = _figure(found, "highway").axes
    assert [one.get_title(loc="left") for one in axes[:3]] == ["bias", "mean of 40 images", "image 1"]
    means = axes[1].images[0].get_array()
    assert means.shape == (2, 5) and means.mask[0].tolist() == [False] * 3 + [True] * 2


def test_the_picture_and_other_networks(dense, tmp_path):
    assert draw_gates(dense, images(2, 8, 1), tmp_path / "gates.png").stat().st_size > 5000
    with pytest.raises(InputError, match="no transform gates"):
        draw_gates(kd.PlainMLP(depth=3, input_shape=(8, 8, 1)), images(2, 8, 1), tmp_path / "other.png")
    with pytest.raises(InputError, match="takes \\[n, 8, 8, 1\\]"):
        gate_activity(dense, images(2, 9, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["gates.png"]
