"""What dense blocks share and reorder in TensorFlow graphs, against Keras' own layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_deepnets import layers

TOLERANCE = {"float32": 2e-5, "mixed_bfloat16": 0.1, "mixed_float16": 0.1}


def block(kind, channels=(16, 32, 13), side=24):
    """Two concatenations, a normalisation of each, a transition; all in layers of `kind`'s."""
    stock = kind is keras.layers
    convolution = {"use_bias": False, "kernel_initializer": keras.initializers.RandomNormal(stddev=0.2, seed=1)}
    first, second, third = (keras.Input((side, side, count)) for count in channels)
    x = kind.Concatenate(name="two")([first, second])
    one = kind.BatchNormalization(name="norm_two")(x)
    x = kind.Concatenate(name="three")([x, third])
    x = kind.BatchNormalization(name="norm_three")(x)
    x = kind.Activation("relu")(x)
    x = kind.Conv2D(8, 1, name="transition", **({} if stock else {"padding": "symmetric"}), **convolution)(x)
    x = kind.AveragePooling2D(2, 2, "valid", name="pool")(x)
    return keras.Model([first, second, third], [one, x])


def inputs(rng, channels=(16, 32, 13), side=24, batch=3):
    # Means and deviations differ from channel to channel; one is constant.
    maps = [
        rng.normal(rng.normal(size=count), rng.uniform(0.3, 3, count), (batch, side, side, count)) for count in channels
    ]
    maps[1][..., 0] = 0.5
    return [tf.constant(part, "float32") for part in maps]


def trained(model, maps, mode):
    """Outputs, gradients of the inputs and weights, and the statistics after one step."""
    variables = [variable.value for variable in model.trainable_variables]

    def compute(*maps):
        return model(list(maps), training=True)

    if mode == "a function under a tape":
        compute = tf.function(compute)

    def run(*maps):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            outputs = [tf.cast(output, tf.float32) for output in compute(*maps)]
            loss = 1000.0 * sum(tf.reduce_mean(tf.sin(output) * output) for output in outputs)
        return [*outputs, *tape.gradient(loss, [*maps, *variables])]

    if mode in ("graph", "xla"):
        run = tf.function(run, jit_compile=mode == "xla")
    if mode == "any batch size":
        run = tf.function(run, input_signature=[tf.TensorSpec((None, *part.shape[1:])) for part in maps])
    found = [value.numpy() for value in run(*maps)]
    return found, [value.numpy() for value in model.non_trainable_variables]


@pytest.mark.parametrize("mode", ["graph", "any batch size", "xla", "eager", "a function under a tape"])
@pytest.mark.parametrize("policy", TOLERANCE)
@pytest.mark.parametrize("batch", [1, 3])
def test_outputs_gradients_and_statistics_are_keras(policy, mode, batch, rng):
    keras.config.set_dtype_policy("float32")
    stock = block(keras.layers)
    keras.config.set_dtype_policy(policy)
    ours = block(layers)
    ours.set_weights(stock.get_weights())
    maps = inputs(rng, batch=batch)
    (found, statistics), (expected, truth) = trained(ours, maps, mode), trained(stock, maps, "graph")
    for one, other in zip([*found, *statistics], [*expected, *truth], strict=True):
        # As a whole: in half precision one in a thousand falls to the other side of the ReLU.
        assert np.linalg.norm(one - other) <= TOLERANCE[policy] * np.linalg.norm(other) + 1e-4


@pytest.mark.parametrize("graph", [False, True])
def test_second_derivatives_are_keras(graph, rng):
    """Of a gradient penalty."""
    stock, ours = block(keras.layers), block(layers)
    ours.set_weights(stock.get_weights())
    maps = inputs(rng)

    def run(model):
        with tf.GradientTape() as outer:
            outer.watch(maps)
            with tf.GradientTape() as inner:
                inner.watch(maps)
                loss = sum(tf.reduce_sum(tf.sin(output)) for output in model(maps, training=True))
            penalty = sum(tf.reduce_sum(gradient**2) for gradient in inner.gradient(loss, maps))
        return outer.gradient(penalty, [*maps, *(variable.value for variable in model.trainable_variables)])

    run = tf.function(run) if graph else run
    for one, other in zip(run(ours), run(stock), strict=True):
        assert np.linalg.norm(one - other) <= 1e-3 * np.linalg.norm(other)


def operations(function, *args):
    """The operations that run, after TensorFlow's optimiser has left out what nobody needs."""
    graph = tf.function(function).get_concrete_function(*args).graph
    needed, found = list(graph.outputs), []
    seen = set()
    while needed:
        operation = needed.pop().op
        if operation.name not in seen:
            seen.add(operation.name)
            found.append(operation)
            needed += operation.inputs
    return found


def test_statistics_are_computed_once_a_map(rng):
    model = block(layers)
    found = operations(lambda *maps: model(list(maps), training=True), *inputs(rng))
    computed = [
        operation.inputs[0].shape[-1]
        for operation in found
        if operation.type == "FusedBatchNormV3" and operation.get_attr("is_training")
    ]
    assert sorted(computed) == [16, 16, 32]  # 13 channels are filled up to 16


def test_the_pool_comes_first(rng):
    model = block(layers)
    for training in (False, True):
        found = operations(lambda *maps, t=training: model(list(maps), training=t), *inputs(rng))
        sides = {kind: [op.outputs[0].shape[1] for op in found if op.type == kind] for kind in ("Conv2D", "AvgPool")}
        assert sides == {"Conv2D": [12], "AvgPool": [12]}
        channels = [op.outputs[0].shape[-1] for op in found if op.type == "AvgPool"]
        assert channels == [64 if training else 61]


@pytest.mark.parametrize("kernel_size", [1, 3])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_dense_layer_computes_with_round_numbers_of_channels(kernel_size, policy, rng):
    """Without a cut to the 61 that there are, forward and backward: what learns are the 61."""
    keras.config.set_dtype_policy(policy)
    first, second = keras.Input((24, 24, 48)), keras.Input((24, 24, 13))
    x = layers.batch_norm(layers.concatenate([first, second]), name="bn")
    x = layers.conv2d(layers.activation(x), 8, kernel_size, name="conv")
    model = keras.Model([first, second], x)
    maps = inputs(rng, (48, 13))

    def step(*maps):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.cast(model(list(maps), training=True), tf.float32) ** 2)
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    found = operations(step, *maps)
    channels = {op.inputs[0].shape[-1] for op in found if op.type in ("Conv2D", "Relu")}
    assert channels == {64} and not any(op.type == "StridedSlice" and len(op.outputs[0].shape) == 4 for op in found)
    graph, eager = (run(*maps) for run in (tf.function(step), step))
    for one, other in zip(graph, eager, strict=True):
        assert np.linalg.norm(one - other) <= TOLERANCE[policy] * np.linalg.norm(other)


def test_others_read_the_channels_that_there_are(rng):
    first, second = keras.Input((24, 24, 48)), keras.Input((24, 24, 13))
    x = layers.batch_norm(layers.concatenate([first, second]))
    model = keras.Model([first, second], [keras.layers.GlobalMaxPooling2D()(layers.activation(x)), x])
    maps = inputs(rng, (48, 13))
    for one, other in zip(tf.function(model)(maps, training=True), model(maps, training=True), strict=True):
        assert one.shape[-1] == 61
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_convolution_that_others_read_is_computed_for_them(rng):
    model = block(layers)
    both = keras.Model(model.inputs, [model.get_layer("transition").output, model.output[1]])
    before, after = tf.function(both)(inputs(rng))
    np.testing.assert_allclose(tf.nn.avg_pool2d(before, 2, 2, "VALID"), after, atol=2e-5)


@pytest.mark.parametrize("options", [{"activation": "relu"}, {"strides": 2}])
def test_what_does_not_commute_stays_in_its_order(options, rng):
    images = keras.Input((8, 8, 5))
    x = layers.Conv2D(4, 1, **options)(images)
    model = keras.Model(images, layers.AveragePooling2D(2)(x))
    maps = tf.constant(rng.normal(size=(2, 8, 8, 5)), tf.float32)
    np.testing.assert_allclose(tf.function(model)(maps), model(maps), atol=1e-5)
    assert [op.type for op in operations(model, maps) if op.type in ("Conv2D", "AvgPool")] == ["AvgPool", "Conv2D"]


def test_a_bias_commutes(rng):
    images = keras.Input((9, 9, 5))
    x = layers.Conv2D(4, 1, bias_initializer="random_normal")(images)
    model = keras.Model(images, layers.AveragePooling2D(2)(x))
    maps = tf.constant(rng.normal(size=(2, 9, 9, 5)), tf.float32)
    assert [op.type for op in operations(model, maps) if op.type in ("Conv2D", "AvgPool")] == ["Conv2D", "AvgPool"]
    np.testing.assert_allclose(tf.function(model)(maps), model(maps), atol=1e-5)


def test_second_derivatives(rng):
    """Of a gradient penalty, through statistics that two normalisations share."""

    def penalty(model, maps):
        @tf.function
        def run(*maps):
            with tf.GradientTape() as outer:
                outer.watch(maps)
                with tf.GradientTape() as inner:
                    inner.watch(maps)
                    loss = sum(tf.reduce_mean(output**3) for output in model(list(maps), training=True))
                total = sum(tf.reduce_sum(gradient**2) for gradient in inner.gradient(loss, maps))
            return outer.gradient(total, maps)

        return run(*maps)

    stock, ours = block(keras.layers, side=6), block(layers, side=6)
    ours.set_weights(stock.get_weights())
    maps = inputs(rng, side=6)
    for found, expected in zip(penalty(ours, maps), penalty(stock, maps), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_statistics_of_a_branch_stay_in_it(rng):
    first, second, _ = inputs(rng)
    join, norms = layers.Concatenate(), [layers.BatchNormalization() for _ in range(2)]

    @tf.function
    def run(first, second, flag):
        x = join([first, second], training=True)
        inside = tf.cond(flag, lambda: norms[0](x, training=True), lambda: x)
        return inside, norms[1](x, training=True)

    inside, after = run(first, second, tf.constant(True))
    np.testing.assert_allclose(inside, after, atol=1e-5)
    assert abs(np.mean(after)) < 1e-3
