"""The recomputed BN-ReLU-convolution against the three layers that it stands for."""

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets.layers import BatchNormalization, Conv2D
from keras_deepnets.layers.dense_connectivity import RecomputedConv2D

# Of the largest value; the plain layers round differently in their own graph and XLA forms by as much.
TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-2, "float16": 2e-3}
CHANNELS = (5, 3, 4)
ALIGNED = (8, 4, 4)
"""A sum that the kernels like: no zeros are added."""


class Separate:
    """Concatenation, BN, ReLU and convolution as layers of their own, with the weights of `layer`."""

    def __init__(self, layer):
        self.norm = BatchNormalization.from_config(layer.norm.get_config())
        self.convolution = Conv2D.from_config(layer.convolution.get_config())
        for mine, other in ((self.norm, layer.norm), (self.convolution, layer.convolution)):
            mine.build((None, None, None, layer.norm.gamma.shape[0]))
            mine.set_weights(other.get_weights())

    def __call__(self, inputs, training):
        return self.convolution(tf.nn.relu(self.norm(inputs[0], training=training)))


def make(rng, dtype="float32", kernel_size=1, channels=CHANNELS):
    policy = dtype if dtype in ("float32", "float64") else f"mixed_{dtype}"
    layer = RecomputedConv2D(6, kernel_size, norm_name="norm", convolution_name="conv", dtype=policy)
    layer.build([(None, None, None, sum(channels)), *((None, None, None, count) for count in channels)])
    for weight in layer.norm.weights:
        weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    return layer, Separate(layer)


def maps(rng, dtype="float32", shape=(3, 5, 6), channels=CHANNELS):
    return [tf.cast(rng.normal(0.5, 2, (*shape, count)), dtype) for count in channels]


def results(call, norm, convolution, inputs, target, mode="eager", training=True):
    """Output and gradients of the maps, gamma, beta and kernel."""

    def run(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = call(
                [tf.concat(inputs, -1), *inputs],
                training=training,
            )
            loss = tf.reduce_sum(tf.cast(outputs, "float64") * target)
        weights = [norm.gamma.value, norm.beta.value, convolution.kernel.value]
        return outputs, *tape.gradient(loss, [*inputs, *weights])

    run = {"eager": run, "graph": tf.function(run), "xla": tf.function(run, jit_compile=True)}[mode]
    return [tf.cast(value, "float64").numpy() for value in run(*inputs)]


def assert_close(actual, expected, tolerance):
    for one, other in zip(actual, expected, strict=True):
        assert np.isfinite(one).all() and np.abs(other).max() > 0
        assert np.abs(one - other).max() / np.abs(other).max() < tolerance


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_outputs_gradients_and_statistics(rng, dtype, kernel_size, mode):
    keras.config.set_dtype_policy(dtype if dtype == "float32" else f"mixed_{dtype}")
    layer, separate = make(rng, dtype, kernel_size)
    inputs = maps(rng, dtype)
    target = rng.normal(size=(3, 5, 6, 6))
    moving = [layer.norm.moving_mean.numpy(), layer.norm.moving_variance.numpy()]
    ours = results(layer, layer.norm, layer.convolution, inputs, target, mode)
    plain = results(separate, separate.norm, separate.convolution, inputs, target, mode)
    assert_close(ours, plain, TOLERANCE[dtype])
    # Updated once: a tenth of the batch's.
    x = np.concatenate([tf.cast(value, "float64") for value in inputs], -1)
    for weight, old, batch in zip(layer.norm.weights[2:], moving, (x.mean((0, 1, 2)), x.var((0, 1, 2))), strict=True):
        np.testing.assert_allclose(weight, 0.9 * old + 0.1 * batch, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_channels_that_need_no_zeros(rng, dtype):
    layer, separate = make(rng, dtype, 3, ALIGNED)
    inputs, target = maps(rng, dtype, channels=ALIGNED), rng.normal(size=(3, 5, 6, 6))
    ours = results(layer, layer.norm, layer.convolution, inputs, target, "graph")
    plain = results(separate, separate.norm, separate.convolution, inputs, target, "graph")
    assert_close(ours, plain, TOLERANCE[dtype])


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_frozen_norm_uses_and_keeps_its_statistics(rng, mode):
    layer, separate = make(rng)
    layer.norm.trainable = separate.norm.trainable = False
    before = layer.get_weights()
    inputs, target = maps(rng), rng.normal(size=(3, 5, 6, 6))
    ours = results(layer, layer.norm, layer.convolution, inputs, target, mode)
    plain = results(separate, separate.norm, separate.convolution, inputs, target, mode)
    assert_close(ours, plain, TOLERANCE["float32"])
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_inference_is_the_three_layers(rng):
    layer, separate = make(rng)
    inputs, target = maps(rng), rng.normal(size=(3, 5, 6, 6))
    before = layer.get_weights()
    ours = results(layer, layer.norm, layer.convolution, inputs, target, training=False)
    plain = results(separate, separate.norm, separate.convolution, inputs, target, training=False)
    assert_close(ours, plain, TOLERANCE["float32"])
    for old, new in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    graph = tf.function(lambda *x: layer([tf.concat(x, -1), *x])).get_concrete_function(*inputs).graph
    assert "IdentityN" not in [op.type for op in graph.get_operations()]


def test_float64_falls_back_to_the_layers(rng):
    layer, separate = make(rng, "float64")
    inputs, target = maps(rng, "float64"), rng.normal(size=(3, 5, 6, 6))
    ours = results(layer, layer.norm, layer.convolution, inputs, target)
    plain = results(separate, separate.norm, separate.convolution, inputs, target)
    assert_close(ours, plain, 1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 2)], ids=str)
def test_batch_of_one(rng, shape):
    layer, separate = make(rng, kernel_size=3)
    inputs, target = maps(rng, shape=shape), rng.normal(size=(*shape, 6))
    ours = results(layer, layer.norm, layer.convolution, inputs, target)
    plain = results(separate, separate.norm, separate.convolution, inputs, target)
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_zero_variance_channels_are_finite(rng):
    layer, _ = make(rng)
    inputs = [tf.fill(value.shape, 7.0) for value in maps(rng)]
    assert all(
        np.isfinite(value).all()
        for value in results(layer, layer.norm, layer.convolution, inputs, np.ones((3, 5, 6, 6)))
    )


def test_weights_have_the_paths_and_order_of_separate_layers(rng):
    inputs = [keras.Input((4, 4, count)) for count in CHANNELS]
    joined = keras.layers.Concatenate()(inputs)
    layer = RecomputedConv2D(6, norm_name="norm", convolution_name="conv", name="outer")
    model = keras.Model(inputs, layer([joined, *inputs]))
    names = ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [weight.path for weight in model.weights] == [*(f"norm/{name}" for name in names), "conv/kernel"]
    assert layer.output.shape == (None, 4, 4, 6)


def test_reloads(rng, tmp_path):
    inputs = [keras.Input((None, None, count)) for count in CHANNELS]
    layer = RecomputedConv2D(6, 3, norm_name="norm", convolution_name="conv", momentum=0.8, epsilon=1e-3)
    model = keras.Model(inputs, layer([keras.layers.Concatenate()(inputs), *inputs]))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = [value.numpy() for value in maps(rng)]
    np.testing.assert_allclose(model(x), loaded(x), rtol=1e-5, atol=1e-6)
    again = loaded.layers[-1]
    assert again.get_config() == layer.get_config()
    assert (again.norm.momentum, again.norm.epsilon, again.convolution.kernel_size) == (0.8, 1e-3, (3, 3))


@pytest.mark.parametrize("counts", [(12,), (12, 5, 3), (12, 5, 3, 4, 1)], ids=str)
def test_maps_must_make_up_the_joined(counts):
    with pytest.raises(ValueError, match=r"\[joined, \*maps\], and the channels of the maps must add up"):
        RecomputedConv2D(6).build([(None, 4, 4, count) for count in counts])


def peak(run):
    """Most bytes of tensors alive at a time, beyond those that other tests keep."""
    run()
    try:
        tf.config.experimental.reset_memory_stats("CPU:0")
    except ValueError:
        pytest.skip("without oneDNN TensorFlow does not count the CPU's memory")
    before = tf.config.experimental.get_memory_info("CPU:0")["current"]
    run()
    return tf.config.experimental.get_memory_info("CPU:0")["peak"] - before


def test_memory_grows_linearly(rng):
    """A block of n layers that add k maps of m bytes: the plain form keeps about n²·k·m, this one a few n·k·m."""

    def block(count):
        layers = [RecomputedConv2D(8) for _ in range(count)]

        def gradient(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                joined, features = x, [x]
                for layer in layers:
                    y = layer([joined, *features], training=True)
                    joined, features = tf.concat([joined, y], -1), [*features, y]
                loss = tf.reduce_mean(joined**2)
            return tape.gradient(loss, x)

        x = tf.constant(rng.normal(size=(4, 32, 32, 8)), "float32")
        gradient(x)
        run = tf.function(gradient)
        return lambda: run(x)

    unit = 4 * 32 * 32 * 8 * 4
    sizes = [peak(block(count)) / unit for count in (16, 32)]
    # Maps, gradients and what one layer recomputes: no more than ten a layer; the plain form would add 24 a layer here.
    # How much of it overlaps is the scheduler's.
    assert sizes[1] - sizes[0] < 10 * 16


def run_apart(code, **environment):
    """Runs `code` in a process of its own."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"} | environment
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


TRAIN_BOTH = """
    import contextlib
    import keras, numpy as np
    from keras_deepnets.families.densenet import DenseNet

    def train_both(scope=contextlib.nullcontext):
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(8, 12, 12, 3)).astype("float32"), np.arange(8) % 4
        trained, start = [], None
        for memory_efficient in (False, True):
            with scope():
                model = DenseNet(depth=16, growth_rate=3, stem="cifar", input_shape=(12, 12, 3), classes=4,
                                 memory_efficient=memory_efficient)
                model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", jit_compile=False)
            start = model.get_weights() if start is None else start
            model.set_weights(start)
            model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
            trained.append(model.get_weights())
        for one, other in zip(*trained):
            np.testing.assert_allclose(one, other, atol=1e-5)
        assert max(abs(one - other).max() for one, other in zip(trained[0], start)) > 1e-3
"""


@pytest.mark.slow
def test_mirrored_strategy_equals_the_plain_network():
    devices = """
        import tensorflow as tf
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    """
    train = 'train_both(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope)'
    run_apart("\n".join(map(textwrap.dedent, (devices, TRAIN_BOTH, train))))


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_equal_the_plain_network(backend):
    pytest.importorskip(backend)
    run_apart(textwrap.dedent(TRAIN_BOTH) + "train_both()", KERAS_BACKEND=backend)
