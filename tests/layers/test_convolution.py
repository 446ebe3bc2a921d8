"""Symmetric padding and grouped convolution against plain NumPy."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets import layers
from keras_deepnets.layers import Conv2D, MaxPooling2D
from keras_deepnets.layers.fast import convolution


def windows(x, size, strides, padding, fill):
    """``[n, h', w', size, size, c]`` views of the padded image."""
    x = np.pad(x, [(0, 0), (padding, padding), (padding, padding), (0, 0)], constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    return np.moveaxis(view[:, ::strides, ::strides], 3, -1)


def convolve(x, kernel, strides, groups=1):
    """Convolution with (k - 1) // 2 zeros on every side, in float64."""
    parts = []
    for part, weights in zip(np.split(x, groups, -1), np.split(kernel, groups, -1), strict=True):
        view = windows(part.astype("float64"), kernel.shape[0], strides, (kernel.shape[0] - 1) // 2, 0.0)
        parts.append(np.einsum("nhwijc,ijcf->nhwf", view, weights.astype("float64")))
    return np.concatenate(parts, -1)


@pytest.mark.parametrize("size", [5, 8, 9, 14])
@pytest.mark.parametrize("kernel, strides", [(1, 1), (1, 2), (3, 1), (3, 2), (5, 2), (7, 2)])
def test_symmetric_padding_at_every_size(rng, size, kernel, strides):
    x = rng.normal(size=(2, size, size + 1, 3)).astype("float32")
    layer = Conv2D(4, kernel, strides, "symmetric", use_bias=False)
    y = layer(x)
    np.testing.assert_allclose(y, convolve(x, layer.kernel.numpy(), strides), atol=1e-4)
    assert layer.compute_output_shape(x.shape) == y.shape


def test_unknown_sides(rng):
    inputs = keras.Input((None, None, 3))
    outputs = Conv2D(4, 3, 2, "symmetric")(inputs)
    assert outputs.shape == (None, None, None, 4)
    model = keras.Model(inputs, outputs)
    x = rng.normal(size=(1, 6, 9, 3)).astype("float32")
    np.testing.assert_allclose(model(x), convolve(x, model.layers[-1].kernel.numpy(), 2), atol=1e-4)


def test_even_kernels_are_refused():
    with pytest.raises(ValueError, match=r"odd kernel sizes; kernel_size=\(2, 2\)"):
        Conv2D(4, 2, padding="symmetric")


@pytest.mark.parametrize("size", [6, 7, 11])
def test_max_pooling_pads_with_minus_infinity(rng, size):
    x = -1 - rng.random(size=(2, size, size, 3)).astype("float32")
    layer = MaxPooling2D(3, 2, "symmetric")
    y = layer(x)
    np.testing.assert_array_equal(y, windows(x, 3, 2, 1, -np.inf).max((3, 4)))
    assert layer.compute_output_shape(x.shape) == y.shape


GROUPED = [(8, 8, 4, 3, 1), (8, 8, 4, 3, 2), (6, 12, 3, 3, 1), (10, 5, 5, 1, 1), (32, 32, 32, 3, 2)]


def grouped(channels, filters, groups, kernel, strides, dtype="float32"):
    return Conv2D(filters, kernel, strides, "symmetric", groups=groups, use_bias=False, dtype=dtype)


def outputs_and_gradients(layer, x, compiled=False):
    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            loss = tf.reduce_sum(tf.sin(tf.cast(y, "float32")))
        return y, *tape.gradient(loss, [x, layer.kernel.value])

    return [tf.cast(value, "float64").numpy() for value in tf.function(run, jit_compile=compiled)(x)]


@pytest.mark.parametrize("case", GROUPED, ids=str)
def test_grouped_native_and_split_agree_with_numpy(rng, case, monkeypatch):
    channels, _, groups, _, strides = case
    x = tf.constant(rng.normal(size=(2, 7, 8, channels)), "float32")
    layer = grouped(*case)
    native = outputs_and_gradients(layer, x)
    np.testing.assert_allclose(native[0], convolve(x.numpy(), layer.kernel.numpy(), strides, groups), atol=1e-5)
    monkeypatch.setattr(convolution, "grouped_convolution_trains", lambda dtype: False)
    for one, other in zip(native, outputs_and_gradients(layer, x), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("trains", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_grouped_in_an_export_does_not_depend_on_the_machine(rng, monkeypatch, trains, biased):
    """TensorFlow would fuse a ``BiasAdd`` or a batch normalisation with one grouped op. That fails in processes without oneDNN."""
    monkeypatch.setattr(convolution, "grouped_convolution_trains", lambda dtype: trains)
    model = keras.Sequential([keras.Input((6, 6, 8)), Conv2D(8, 3, padding="symmetric", groups=4, use_bias=biased)])
    model.layers[0].set_weights([rng.normal(size=weight.shape) for weight in model.layers[0].weights])
    graph = tf.function(lambda x: model(x, training=False), input_signature=[tf.TensorSpec([None, 6, 6, 8])])
    with convolution.exporting():
        kinds = [operation.type for operation in graph.get_concrete_function().graph.get_operations()]
    assert (kinds.count("Conv2D"), "BiasAdd" in kinds, "AddV2" in kinds) == (1 if biased else 4, False, biased)
    x = rng.normal(size=(2, 6, 6, 8)).astype("float32")
    np.testing.assert_allclose(graph(x), model(x), atol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 3e-2), ("float16", 4e-3)])
def test_grouped_in_half_precision(rng, dtype, tolerance):
    x = tf.constant(rng.normal(size=(2, 6, 6, 8)), dtype)
    layer = grouped(8, 8, 4, 3, 1, f"mixed_{dtype}")
    y, *gradients = outputs_and_gradients(layer, x)
    expected = convolve(x.numpy().astype("float32"), layer.kernel.numpy(), 1, 4)
    assert np.abs(y - expected).max() / np.abs(expected).max() < tolerance
    assert all(np.isfinite(value).all() for value in gradients)


def test_grouped_inside_xla_is_split_and_equal(rng):
    x = tf.constant(rng.normal(size=(2, 6, 6, 8)), "float32")
    layer = grouped(8, 8, 4, 3, 1)
    for one, other in zip(outputs_and_gradients(layer, x), outputs_and_gradients(layer, x, compiled=True), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_grouped_has_the_weights_of_keras_and_leaves_no_xla_function_behind(rng, tmp_path):
    x = rng.normal(size=(2, 6, 6, 8)).astype("float32")
    ours, theirs = (cls(8, 3, padding="same", groups=4) for cls in (Conv2D, keras.layers.Conv2D))
    theirs.build(x.shape)
    ours.build(x.shape)
    assert [w.shape for w in ours.weights] == [w.shape for w in theirs.weights]
    theirs.set_weights(ours.get_weights())
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)
    model = keras.Sequential([keras.Input((6, 6, 8)), ours])
    model.export(tmp_path / "saved", verbose=False)
    assert b"_XlaMustCompile" not in (tmp_path / "saved" / "saved_model.pb").read_bytes()


def test_reloads_with_its_padding_and_groups(rng, tmp_path):
    x = rng.normal(size=(2, 6, 6, 8)).astype("float32")
    model = keras.Sequential([keras.Input((6, 6, 8)), grouped(8, 8, 4, 3, 2), MaxPooling2D(3, 2, "symmetric")])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert (loaded.layers[0].padding, loaded.layers[0].groups, loaded.layers[1].padding) == (
        "symmetric",
        4,
        "symmetric",
    )
    np.testing.assert_allclose(model(x), loaded(x), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_everything_above_without_onednn():
    """TensorFlow's own CPU kernels have no grouped gradient: the split form takes over."""
    code = "from keras_deepnets.layers.fast import convolution as t; assert not t.grouped_convolution_trains()"
    environment = os.environ | {"TF_ENABLE_ONEDNN_OPTS": "0"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    arguments = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", str(Path(__file__).parent)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize("strides, size", [(1, 5), (1, 1), (2, 8), (2, 7)])
@pytest.mark.parametrize("channels, filters", [(16, 32), (13, 7)])
@pytest.mark.parametrize("mode", ["graph", "eager", "xla"])
def test_pointwise_gradients_in_bfloat16(rng, strides, size, channels, filters, mode):
    layer = layers.Conv2D(filters, 1, strides, "symmetric", dtype="mixed_bfloat16")
    x = tf.cast(rng.normal(size=(3, size, size, channels)), "bfloat16")
    layer.build(x.shape)
    layer.kernel.assign(tf.cast(tf.cast(layer.kernel.value, "bfloat16"), "float32"))
    layer.bias.assign(rng.normal(size=filters))

    def gradients(x, d_outputs):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, [x, layer.kernel.value, layer.bias.value], output_gradients=d_outputs)

    side = -(-size // strides)
    d_outputs = tf.cast(rng.normal(size=(3, side, side, filters)), "bfloat16")
    run = gradients if mode == "eager" else tf.function(gradients, jit_compile=mode == "xla")
    y, found = run(x, d_outputs)
    seen, kernel, upstream = (tf.cast(tensor, "float64").numpy() for tensor in (x, layer.kernel.value, d_outputs))
    seen = seen[:, ::strides, ::strides]
    to_x = np.zeros(x.shape)
    to_x[:, ::strides, ::strides] = upstream @ kernel[0, 0].T
    to_kernel = np.einsum("nhwc,nhwf->cf", seen, upstream)[None, None]
    expected = [to_x, to_kernel, upstream.sum((0, 1, 2))]
    np.testing.assert_allclose(tf.cast(y, "float64"), seen @ kernel[0, 0] + layer.bias.numpy(), rtol=0.02, atol=0.05)
    # TensorFlow sums a bias' gradient in bfloat16.
    for ours, theirs, tolerance in zip(found, expected, (0.01, 0.01, 0.03), strict=True):
        difference = np.linalg.norm(tf.cast(ours, "float64").numpy() - theirs)
        assert difference <= tolerance * np.linalg.norm(theirs)


def test_pointwise_weight_gradient_is_a_matrix_product_only_in_bfloat16_training():
    def operations(dtype, training):
        layer = layers.Conv2D(16, 1, padding="symmetric", dtype=dtype)
        layer.build((2, 4, 4, 16))

        @tf.function
        def gradient(x):
            with tf.GradientTape() as tape:
                y = layer(x, training=training)
            return tape.gradient(y, layer.kernel.value)

        graph = gradient.get_concrete_function(tf.TensorSpec((2, 4, 4, 16), layer.compute_dtype)).graph
        return {operation.type for operation in graph.get_operations()}

    assert "MatMul" in operations("mixed_bfloat16", True)
    for dtype, training in (("float32", True), ("mixed_float16", True), ("mixed_bfloat16", False)):
        assert "Conv2DBackpropFilter" in operations(dtype, training)


def test_pointwise_second_derivative(rng):
    layer = layers.Conv2D(4, 1, padding="symmetric", dtype="mixed_bfloat16", use_bias=False)
    x = tf.cast(rng.normal(size=(2, 3, 3, 8)), "bfloat16")
    layer.build(x.shape)
    kernel = layer.kernel.value

    @tf.function
    def second():
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                y = tf.reduce_sum(layer(x, training=True) ** 2)
            slope = tf.reduce_sum(inner.gradient(y, kernel))
        return outer.gradient(slope, x)

    seen, weights = tf.cast(x, "float64").numpy(), tf.cast(tf.cast(kernel, "bfloat16"), "float64").numpy()[0, 0]
    # slope = Σ 2·x_c·(x·w)_f, over pixels, c and f
    expected = 2 * ((seen @ weights).sum(-1, keepdims=True) + seen.sum(-1, keepdims=True) * weights.sum(1))
    assert np.linalg.norm(tf.cast(second(), "float64") - expected) <= 0.03 * np.linalg.norm(expected)


def test_initialisation_has_he_variance():
    x = keras.Input((8, 8, 64))
    model = keras.Model(x, layers.conv2d(x, 256, 3))
    values = model.layers[-1].kernel.numpy()
    assert model.layers[-1].bias is None
    assert values.var() == pytest.approx(2 / (9 * 256), rel=0.02)
