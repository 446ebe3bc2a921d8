"""The ReLU of a sum, compiled into one pass."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import layers
from keras_deepnets.layers.fast import sums


def operations(function, *args):
    """Types of the ops in the graph, those of functions that it calls too."""
    graph = function.get_concrete_function(*args).graph.as_graph_def()
    return [node.op for node in graph.node] + [node.op for part in graph.library.function for node in part.node_def]


def residual(activation):
    """A sum of two convolutions that the activation and again a sum follow, as in a residual network."""
    x = inputs = keras.Input((32, 32, 4))
    for number in range(2):
        y = layers.conv2d(x, 16, 3, name=f"c{number}")
        z = layers.conv2d(x, 16, 1, name=f"p{number}")
        x = activation(name=f"r{number}")(keras.layers.Add()([z, y]))
    return keras.Model(inputs, x)


def own(name):
    return layers.Activation("relu", name=name)


def stock(name):
    return keras.layers.Activation("relu", name=name)


def gradients(model, x, mode="graph"):
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = model(x, training=True)
            loss = tf.reduce_sum(tf.cast(y, tf.float32) ** 2)
        return y, tape.gradient(loss, [x, *model.trainable_weights])

    function = {"eager": step, "graph": tf.function(step), "xla": tf.function(step, jit_compile=True)}[mode]
    return tf.nest.map_structure(lambda t: np.asarray(tf.cast(t, tf.float32)), function(x))


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "float32"])
@pytest.mark.parametrize("mode", ["graph", "xla", "eager"])
def test_outputs_and_gradients_are_keras(policy, mode, rng):
    keras.config.set_dtype_policy(policy)
    ours, theirs = residual(own), residual(stock)
    theirs.set_weights(ours.get_weights())
    x = tf.constant(rng.normal(size=(3, 32, 32, 4)), tf.float32)
    (found, found_gradients), (expected, expected_gradients) = gradients(ours, x, mode), gradients(theirs, x, "graph")
    tolerance = {"float32": 1e-5, "mixed_bfloat16": 2e-2, "mixed_float16": 4e-3}[policy]
    np.testing.assert_allclose(found, expected, atol=tolerance * expected.max())
    for mine, other in zip(found_gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(mine, other, atol=tolerance * np.abs(other).max())


def test_the_sum_is_part_of_the_pass_where_it_pays(rng):
    def graph_ops(activation, policy, training=True):
        keras.config.set_dtype_policy(policy)
        model = residual(activation)

        @tf.function
        def step(x):
            with tf.GradientTape() as tape:
                y = tf.reduce_sum(tf.cast(model(x, training=training), tf.float32))
            return tape.gradient(y, model.trainable_weights)

        return operations(step, tf.TensorSpec((None, 32, 32, 4), tf.float32))

    assert graph_ops(stock, "mixed_bfloat16").count("ReluGrad") == 2
    assert graph_ops(own, "mixed_bfloat16").count("ReluGrad") == 0
    assert graph_ops(own, "float32").count("ReluGrad") == 2
    assert graph_ops(own, "mixed_bfloat16", training=False).count("ReluGrad") == 2


@pytest.mark.parametrize("batch", [1, 5])
def test_not_a_number_and_infinity_pass(batch):
    special = np.zeros((batch, 32, 32, 16), "float32")
    special[0, 0, 0, :5] = [np.nan, -np.nan, np.inf, -np.inf, -0.0]

    @tf.function
    def run(x):
        return tf.cast(sums.relu(x + tf.zeros_like(x)), tf.float32)

    found = np.asarray(run(tf.cast(special, tf.bfloat16)))
    np.testing.assert_array_equal(found[0, 0, 0, :5], [np.nan, np.nan, np.inf, 0, 0])
    assert not found[1:].any()


def test_trains_as_before_and_leaves_no_trace_in_what_is_saved(tmp_path, rng, monkeypatch):
    keras.config.set_dtype_policy("mixed_bfloat16")
    x = rng.normal(size=(8, 32, 32, 3)).astype("float32")
    y = np.arange(8) % 5
    models = []
    for replaced in (False, True):
        keras.utils.set_random_seed(1)
        model = kd.ResNet(depth=8, stem="cifar", shortcut="A", classes=5)
        if replaced:
            monkeypatch.setattr(sums, "relu", tf.nn.relu)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
        losses = [float(model.train_on_batch(x, y)) for _ in range(4)]
        models.append((model, losses))
    np.testing.assert_allclose(models[0][1], models[1][1], rtol=2e-2)
    models[0][0].save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict_on_batch(x), models[0][0].predict_on_batch(x), rtol=1e-2)
    plain = kd.fold_batchnorm(models[0][0])
    assert {type(layer).__module__.split(".")[0] for layer in plain.layers if "relu" in layer.name} == {"keras"}


def test_a_broadcast_addend_keeps_its_gradient(rng):
    """One map for all images: its gradient is the sum over them."""
    x = tf.constant(rng.normal(size=(4, 32, 32, 16)), tf.bfloat16)
    shift = tf.constant(rng.normal(size=(1, 32, 32, 16)), tf.bfloat16)

    def step(activate):
        @tf.function
        def run(x, shift):
            with tf.GradientTape() as tape:
                tape.watch(shift)
                y = tf.reduce_sum(tf.cast(activate(x + shift), tf.float32))
            return tape.gradient(y, shift)

        return run(x, shift)

    found, expected = step(sums.relu), step(tf.nn.relu)
    assert found.shape == shift.shape
    np.testing.assert_array_equal(tf.cast(found, tf.float32), tf.cast(expected, tf.float32))
