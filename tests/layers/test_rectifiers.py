"""The parametric rectifier against torch, in operations and in compiled passes, and its slopes under the optimizers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets import layers
from keras_deepnets.layers.fast import sums
from keras_deepnets.training import get_recipe
from keras_deepnets.training.optimizers import optimizer


def torch_rectifier(x, slopes, d_outputs):
    """Outputs, and the gradients of input and slopes, by torch in double precision."""
    torch = pytest.importorskip("torch")
    x, slopes = (torch.tensor(np.asarray(value, "float64"), requires_grad=True) for value in (x, slopes))
    y = torch.nn.functional.prelu(x.movedim(-1, 1), slopes).movedim(1, -1)
    y.backward(torch.tensor(np.asarray(d_outputs, "float64")))
    return y.detach().numpy(), x.grad.numpy(), slopes.grad.numpy()


def ours(layer, x, d_outputs, training, run=tf.function):
    @run
    def step(x, d_outputs):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=training)
        return y, *tape.gradient(y, [x, layer.alpha.value], d_outputs)

    return step(x, d_outputs), step


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("shape", [(4, 5, 3, 6), (7, 6), (3, 4, 1, 1)])
@pytest.mark.parametrize("training", [False, True])
def test_against_torch(shared, shape, training, rng, monkeypatch):
    monkeypatch.setattr(sums, "FUSED_ELEMENTS", 1)
    x, d_outputs = (tf.constant(rng.normal(size=shape), "float32") for _ in range(2))
    layer = layers.PReLU(shared)
    layer.build(shape)
    assert layer.alpha.shape == ((1,) if shared else (shape[-1],))
    np.testing.assert_array_equal(layer.alpha, np.full(layer.alpha.shape, 0.25, "float32"))
    # Above one and below zero too: the rectifier is not the maximum of x and alpha·x.
    layer.alpha.assign(rng.normal(size=layer.alpha.shape) * 1.5)
    expected = torch_rectifier(x, layer.alpha, d_outputs)
    for found in (ours(layer, x, d_outputs, training)[0], ours(layer, x, d_outputs, training, lambda step: step)[0]):
        for value, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("bfloat16", 2e-2), ("float16", 3e-3)])
def test_compiled_passes_in_each_precision(dtype, tolerance, rng):
    """Maps large enough for them; outputs and gradients have the precision of the maps."""
    shape = (2, 32, 32, 16)
    policy = dtype if dtype == "float32" else f"mixed_{dtype}"
    layer = layers.PReLU(dtype=policy)
    layer.build(shape)
    x, d_outputs = (tf.cast(tf.constant(rng.normal(size=shape)), dtype) for _ in range(2))
    found, step = ours(layer, x, d_outputs, True)
    graph = step.get_concrete_function(x, d_outputs).graph.as_graph_def()
    compiled = [function for function in graph.library.function if function.attr["_XlaMustCompile"].b]
    assert len(compiled) >= 2 and found[0].dtype == found[1].dtype == dtype
    for value, wanted in zip(found, torch_rectifier(x, layer.alpha, d_outputs), strict=True):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(tf.cast(value, "float64"), wanted, atol=tolerance * scale)
    # Inference must run where nothing compiles: in an exported model.
    graph = tf.function(lambda x: layer(x)).get_concrete_function(x).graph.as_graph_def()
    assert not graph.library.function


def test_config_and_shape():
    layer = layers.PReLU(shared=True, slope=0.1)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert again.get_config() == layer.get_config() and (again.shared, again.slope) == (True, 0.1)
    assert layer.compute_output_shape((None, 4, 5, 6)) == (None, 4, 5, 6)


@pytest.mark.parametrize("on", ["all", "kernels"])
@pytest.mark.parametrize("kind", ["sgd", "adamw", "lamb", "muon"])
@pytest.mark.parametrize("shared", [False, True])
def test_slopes_never_decay(kind, on, shared, tmp_path):
    """With gradients of zero, a step is the decay alone: kernels shrink, slopes stay. The same after loading."""
    inputs = keras.Input((6, 6, 3))
    x = layers.prelu(layers.biased_conv2d(inputs, 4, 3, name="conv"), shared=shared, name="rectifier")
    x = layers.prelu(layers.biased_dense(layers.flatten(x), 5, name="fc"), shared=shared, name="rectifier2")
    model = keras.Model(inputs, layers.classifier(x, 2, "softmax"))
    model.get_layer("conv").bias.assign([1.0, 1.0, 1.0, 1.0])
    recipe = get_recipe("he2015_cifar").with_overrides(optimizer=kind, weight_decay=0.01, weight_decay_on=on)
    model.save(tmp_path / "model.keras")
    for network in (model, keras.saving.load_model(tmp_path / "model.keras")):
        made = optimizer(recipe, 100, 10)
        made.build(network.trainable_variables)
        before = [weight.numpy() for weight in network.trainable_weights]
        tf.function(
            lambda made=made, network=network: made.apply([tf.zeros(w.shape) for w in network.trainable_weights])
        )()
        changed = {
            "/".join(weight.path.split("/")[-2:]): (weight.numpy() != old).any()
            for weight, old in zip(network.trainable_weights, before, strict=True)
        }
        assert not changed["rectifier/alpha"] and not changed["rectifier2/alpha"]
        assert changed["conv/kernel"] and changed["fc/kernel"]
        assert changed["conv/bias"] == (on == "all" and kind != "muon")


def test_slopes_learn(rng):
    layer = layers.PReLU()
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    x = rng.normal(size=(200, 3)).astype("float32")
    slopes = np.array([-0.5, 0.1, 1.5], "float32")
    model.fit(x, np.maximum(x, 0) + slopes * np.minimum(x, 0), epochs=30, verbose=0)
    np.testing.assert_allclose(layer.alpha, slopes, atol=1e-2)
