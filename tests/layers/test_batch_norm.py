"""Fused batch normalisation against a float64 reference."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets.layers import BatchNormalization
from keras_deepnets.layers.fast import internals
from keras_deepnets.layers.fast.convolution import exporting

TOLERANCE = {"float32": 2e-5, "bfloat16": 2e-2, "float16": 3e-3}
MOMENTUM, EPSILON = 0.9, 1e-5


def reference(x, gamma, beta, weights):
    """Output, gradients of sum(output * weights) and batch statistics in float64."""
    x, weights = x.astype("float64"), weights.astype("float64")
    axes, count = (0, 1, 2), x.size / x.shape[-1]
    mean, variance = x.mean(axes), x.var(axes)
    inverse = 1 / np.sqrt(variance + EPSILON)
    normal = (x - mean) * inverse
    d_beta, d_gamma = weights.sum(axes), (weights * normal).sum(axes)
    d_x = gamma * inverse * (weights - d_beta / count - normal * d_gamma / count)
    return normal * gamma + beta, d_x, d_gamma, d_beta, mean, variance


def relative(actual, expected):
    actual = tf.cast(actual, "float64").numpy()
    return np.abs(actual - expected).max() / max(np.abs(expected).max(), 1e-6)


def make(policy="float32", channels=5, **kwargs):
    layer = BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, dtype=policy, **kwargs)
    layer.build((None, None, None, channels))
    return layer


def policy_of(dtype):
    return dtype if dtype == "float32" else f"mixed_{dtype}"


@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("shape", [(4, 6, 7, 5), (1, 9, 9, 16), (3, 1, 1, 8)], ids=str)
def test_training_matches_float64(rng, shape, dtype, graph):
    # Values that the dtype holds exactly, so that only the computation is judged.
    x = tf.cast(rng.normal(2, 3, shape), dtype)
    weights = tf.cast(rng.normal(size=shape), dtype)
    gamma, beta = rng.normal(1, 0.3, shape[-1]), rng.normal(0, 0.5, shape[-1])
    layer = make(policy_of(dtype), shape[-1])
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)

    def step(x, weights):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            loss = tf.reduce_sum(tf.cast(y, "float32") * tf.cast(weights, "float32"))
        return y, tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

    y, gradients = (tf.function(step) if graph else step)(x, weights)
    expected = reference(x.numpy().astype("float64"), gamma, beta, weights.numpy())
    assert y.dtype == dtype and gradients[0].dtype == dtype and gradients[1].dtype == "float32"
    for actual, wanted in zip((y, *gradients), expected[:4], strict=True):
        assert relative(actual, wanted) < TOLERANCE[dtype]
    mean, variance = expected[4:]
    assert relative(layer.moving_mean.value, (1 - MOMENTUM) * mean) < 1e-5
    assert relative(layer.moving_variance.value, MOMENTUM + (1 - MOMENTUM) * variance) < 1e-5


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_inference_matches_float64(rng, dtype):
    x = tf.cast(rng.normal(2, 3, (2, 5, 3, 6)), dtype)
    layer = make(policy_of(dtype), 6)
    values = rng.normal(1, 0.2, (3, 6)), rng.uniform(0.5, 4, 6)
    for weight, value in zip(
        (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance), (*values[0], values[1]), strict=True
    ):
        weight.assign(value)
    (gamma, beta, mean), variance = values
    expected = (x.numpy().astype("float64") - mean) / np.sqrt(variance + EPSILON) * gamma + beta
    assert relative(layer(x, training=False), expected) < TOLERANCE[dtype]
    np.testing.assert_array_equal(layer.moving_mean.numpy(), mean.astype("float32"))


def test_agrees_with_keras_and_shares_its_config_and_weights(rng):
    x = rng.normal(1, 2, (4, 5, 5, 3)).astype("float32")
    ours, theirs = make(channels=3), keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON)
    theirs.build((None, None, None, 3))
    assert {k: v for k, v in ours.get_config().items() if k != "name"} == {
        k: v for k, v in theirs.get_config().items() if k != "name"
    }
    for training in (True, False):
        np.testing.assert_allclose(ours(x, training=training), theirs(x, training=training), atol=1e-5)
    for mine, other in zip(ours.weights, theirs.weights, strict=True):
        assert mine.path.rpartition("/")[2] == other.path.rpartition("/")[2]
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=1e-5, atol=1e-6)


def test_frozen_layer_uses_and_keeps_its_statistics(rng):
    layer = make(channels=4)
    layer.trainable = False
    x = rng.normal(3, 2, (4, 3, 3, 4)).astype("float32")
    np.testing.assert_allclose(layer(x, training=True), x / np.sqrt(1 + EPSILON), rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean.numpy(), np.zeros(4))


def test_zero_variance_channel_is_finite():
    layer = make(channels=8)
    y = layer(np.full((4, 3, 3, 8), 7.0, "float32"), training=True)
    np.testing.assert_allclose(y, np.zeros((4, 3, 3, 8)), atol=1e-3)
    np.testing.assert_allclose(layer.moving_variance.numpy(), np.full(8, MOMENTUM), rtol=1e-5)


def test_without_scale_and_center(rng):
    x = rng.normal(1, 2, (4, 5, 5, 3)).astype("float32")
    layer = make(channels=3, scale=False, center=False)
    expected = reference(x, np.ones(3), np.zeros(3), x)[0]
    assert len(layer.weights) == 2
    assert relative(layer(x, training=True), expected) < 1e-5


@pytest.mark.parametrize("shape, axis", [((8, 5), -1), ((2, 3, 4, 5), 1)], ids=str)
def test_other_ranks_and_axes_fall_back_to_keras(rng, shape, axis):
    x = rng.normal(size=shape).astype("float32")
    ours, theirs = BatchNormalization(axis=axis), keras.layers.BatchNormalization(axis=axis)
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-6)


def test_mask_falls_back_to_keras(rng):
    x = rng.normal(size=(2, 3, 4, 5)).astype("float32")
    mask = np.array(rng.integers(0, 2, (2, 3, 4)), bool)
    ours, theirs = make(), keras.layers.BatchNormalization(momentum=MOMENTUM, epsilon=EPSILON)
    np.testing.assert_allclose(ours(x, training=True, mask=mask), theirs(x, training=True, mask=mask), atol=1e-6)


def test_the_graph_holds_the_fused_kernel_and_no_upcast():
    layer = make("mixed_bfloat16")
    graph = (
        tf.function(lambda x: layer(x, training=True))
        .get_concrete_function(tf.TensorSpec((2, 4, 4, 5), "bfloat16"))
        .graph
    )
    types = [op.type for op in graph.get_operations()]
    assert types.count("FusedBatchNormV3") == 1
    assert not [op for op in graph.get_operations() if op.type == "Cast" and op.inputs[0].dtype == tf.bfloat16]


def test_compiled_by_xla(rng):
    x = rng.normal(2, 3, (4, 4, 4, 5)).astype("float32")
    layer = make()
    y = tf.function(lambda x: layer(x, training=True), jit_compile=True)(x)
    assert relative(y, reference(x, np.ones(5), np.zeros(5), x)[0]) < 2e-5


@pytest.mark.parametrize(
    ("policy", "case", "kernels"),
    [
        ("float32", "inference", 0),
        ("float32", "export", 1),
        ("float32", "frozen", 1),
        ("float32", "training", 1),
        ("mixed_bfloat16", "inference", 1),
    ],
)
def test_a_kernel_that_slows_the_convolution_is_avoided(rng, monkeypatch, policy, case, kernels):
    """Outside exports, in float32 inference. The results do not change."""
    layer = make(policy)
    layer.trainable = case != "frozen"
    layer.moving_mean.assign(rng.normal(size=5))
    layer.moving_variance.assign(rng.uniform(0.5, 2, 5))
    x = tf.cast(rng.normal(2, 3, (4, 6, 7, 5)), layer.compute_dtype)

    def run(slow):
        monkeypatch.setattr(internals, "fuses_slowly", lambda: slow)
        scope = exporting() if case == "export" else contextlib.nullcontext()
        with scope:
            function = tf.function(lambda x: layer(x, training=case in ("training", "frozen")))
            graph = function.get_concrete_function(x).graph
        count = sum(operation.type == "FusedBatchNormV3" for operation in graph.get_operations())
        return count, function(x)

    (fused_count, expected), (count, actual) = run(False), run(True)
    assert (fused_count, count) == (1, kernels)
    assert relative(actual, tf.cast(expected, "float64").numpy()) < TOLERANCE[layer.compute_dtype]


@pytest.mark.parametrize(
    ("onednn", "instructions", "slow"),
    [(True, "avx2 fma", True), (False, "avx2 fma", False), (True, "avx2 avx512f", False), (True, "", False)],
)
def test_when_the_kernel_slows_the_convolution(monkeypatch, onednn, instructions, slow):
    from tensorflow.python.util import _pywrap_util_port as port

    monkeypatch.setattr(port, "IsMklEnabled", lambda: onednn)
    monkeypatch.setattr(internals.processor, "instructions", lambda: frozenset(instructions.split()))
    monkeypatch.setattr(internals, "has_gpu", lambda: False)
    assert internals.fuses_slowly.__wrapped__() is slow
