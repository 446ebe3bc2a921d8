"""Blocks as layers against the same network as a flat graph of layers."""

import contextlib
import json

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import graphs, layers, models
from keras_deepnets.layers.block_graph import block_graph
from keras_deepnets.layers.fast import internals
from keras_deepnets.layers.fast.convolution import exporting

SHAPE = (16, 16, 3)


def pair(constructor=kd.ResNet, policy="float32", **kwargs):
    """The network as blocks and as a flat graph, with equal weights."""
    keras.config.set_dtype_policy(policy)
    kwargs = {"depth": 20, "stem": "cifar", "shortcut": "A", "input_shape": SHAPE, "classes": 5} | kwargs
    blocks = constructor(block_layers=True, **kwargs)
    flat = constructor(block_layers=False, **kwargs)
    rng = np.random.default_rng(1)
    flat.set_weights(
        [
            np.abs(rng.normal(0.5, 0.2, weight.shape)) + 0.1 if weight.ndim == 1 else weight
            for weight in flat.get_weights()
        ]
    )
    blocks.set_weights(flat.get_weights())
    return blocks, flat


def batch(count=4, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, *SHAPE)).astype("float32"), rng.integers(0, 5, count)


PRE = {"constructor": kd.PreActResNet, "depth": 29, "block": "bottleneck", "shortcut": "B"}


@pytest.mark.parametrize("kwargs", [{}, PRE, {"shortcut": "C"}, {"zero_init_residual": True}])
def test_weights_paths_and_outputs_are_the_flat_networks(kwargs):
    blocks, flat = pair(**kwargs)
    assert [weight.path for weight in blocks.weights] == [weight.path for weight in flat.weights]
    assert [weight.shape for weight in blocks.weights] == [weight.shape for weight in flat.weights]
    assert [weight.trainable for weight in blocks.weights] == [weight.trainable for weight in flat.weights]
    assert models.trainable_parameters(blocks) == models.trainable_parameters(flat)
    assert models.multiply_adds(blocks) == models.multiply_adds(flat)
    assert graphs.output_elements(blocks) == graphs.output_elements(flat)
    assert len(blocks.layers) < len(flat.layers) / 3
    x, _ = batch()
    np.testing.assert_allclose(blocks(x), flat(x), rtol=1e-5, atol=1e-6)
    for layer in blocks.layers:
        if isinstance(layer, layers.Block):
            for name, own in layer.sublayers.items():
                twin = flat.get_layer(name)
                assert type(own) is type(twin)
                for ours, theirs in zip(own.weights, twin.weights, strict=True):
                    np.testing.assert_array_equal(ours, theirs)


def step(model, x, y, jit=False):
    """Loss, gradients and updated moving statistics of one training step."""

    @tf.function(jit_compile=jit)
    def run(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x, training=True)))
        return loss, tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    loss, gradients = run(x, y)
    return float(loss), [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]


@pytest.mark.parametrize("policy, tolerance", [("float32", 2e-4), ("mixed_bfloat16", 0.1)])
@pytest.mark.parametrize("kwargs", [{}, PRE])
def test_gradients_and_moving_statistics_are_the_flat_networks(kwargs, policy, tolerance):
    blocks, flat = pair(policy=policy, **kwargs)
    x, y = batch(8)
    before = [weight.numpy() for weight in flat.non_trainable_weights]
    loss, gradients = step(blocks, x, y)
    expected_loss, expected = step(flat, x, y)
    assert loss == pytest.approx(expected_loss, rel=tolerance)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert np.linalg.norm(ours - theirs) <= tolerance * np.linalg.norm(theirs) + 1e-7
    for ours, theirs, old in zip(blocks.non_trainable_weights, flat.non_trainable_weights, before, strict=True):
        assert np.abs(theirs.numpy() - old).max() > 0
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance / 10)


def test_compiled_by_xla():
    blocks, flat = pair(depth=8)
    x, y = batch(8)
    loss, gradients = step(blocks, x, y, jit=True)
    expected_loss, expected = step(flat, x, y)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-3 * np.linalg.norm(theirs) + 1e-7


def test_blocks_of_a_kind_share_one_function():
    blocks, _ = pair(depth=32)
    x, y = batch()
    step(blocks, x, y)
    graph = tf.function(lambda x: blocks(x, training=True)).get_concrete_function(tf.constant(x)).graph
    calls = [
        op.get_attr("f").name
        for op in graph.get_operations()
        if op.type in ("PartitionedCall", "StatefulPartitionedCall")
    ]
    # Three stages, of which two begin with a block of their own kind.
    assert len(calls) == 15 and len(set(calls)) == 5


def test_frozen_sublayers_and_blocks_stand_still(tmp_path):
    blocks, _ = pair(depth=14)
    name = "conv3_block1"
    blocks.get_layer(f"{name}_out").sublayers[f"{name}_1_bn"].trainable = False
    blocks.get_layer("conv2_block1_out").trainable = False
    path = tmp_path / "frozen.keras"
    blocks.save(path)
    for model in (blocks, keras.saving.load_model(path)):
        frozen = {weight.path: weight.numpy() for weight in model.weights if not weight.trainable}
        assert {"conv3_block1_1_bn/gamma", "conv2_block1_2_conv/kernel"} < set(frozen)
        assert "conv3_block1_2_bn/gamma" not in frozen
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        model.train_on_batch(*batch(8))
        for weight in model.weights:
            if weight.path.startswith(("conv3_block1_1_bn", "conv2_block1_")):
                np.testing.assert_array_equal(weight, frozen[weight.path])
            elif weight.path in frozen:
                assert np.abs(weight.numpy() - frozen[weight.path]).max() > 0


@pytest.mark.integration
def test_saved_and_reloaded(tmp_path):
    blocks, _ = pair(PRE["constructor"], **{key: value for key, value in PRE.items() if key != "constructor"})
    blocks.compile(keras.optimizers.SGD(0.1, momentum=0.9), "sparse_categorical_crossentropy")
    blocks.train_on_batch(*batch(8))
    blocks.save(tmp_path / "model.keras")
    blocks.save_weights(tmp_path / "model.weights.h5")
    with h5py.File(tmp_path / "model.weights.h5") as file:
        arrays = []
        file.visititems(lambda path, item: arrays.append(path) if isinstance(item, h5py.Dataset) else None)
    # The shared sub-network is not among them.
    assert sum(path.startswith("layers/") for path in arrays) == len(blocks.weights)
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x, _ = batch(3)
    np.testing.assert_array_equal(blocks(x), loaded(x))
    assert [weight.path for weight in loaded.weights] == [weight.path for weight in blocks.weights]
    again, _ = pair(PRE["constructor"], **{key: value for key, value in PRE.items() if key != "constructor"})
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_allclose(blocks(x), again(x), rtol=1e-5, atol=1e-6)
    assert loaded.train_on_batch(*batch(8, 2)) == pytest.approx(blocks.train_on_batch(*batch(8, 2)), rel=1e-5)


@pytest.mark.integration
def test_trains_under_a_distribution_strategy():
    devices = ["CPU:0"]
    strategy = tf.distribute.MirroredStrategy(devices)
    with strategy.scope():
        blocks = kd.ResNet(depth=14, stem="cifar", shortcut="A", input_shape=SHAPE, classes=5, block_layers=True)
        blocks.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    twin = kd.ResNet(depth=14, stem="cifar", shortcut="A", input_shape=SHAPE, classes=5, block_layers=True)
    twin.set_weights(blocks.get_weights())
    twin.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
    x, y = batch(8)
    for model in (blocks, twin):
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    for ours, theirs in zip(blocks.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


def test_a_single_batch_under_a_strategy_makes_mirrored_slots():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        model = kd.ResNet(depth=8, stem="cifar", shortcut="A", input_shape=SHAPE, classes=5)
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
    before = model.get_weights()
    model.train_on_batch(*batch(8))
    slots = [variable.value for variable in model.optimizer.variables if len(variable.shape) == 4]
    assert len(slots) == 7 and all(isinstance(slot, type(model.trainable_weights[0].value)) for slot in slots)
    assert all(np.abs(new - old).max() > 0 for new, old in zip(model.get_weights(), before, strict=True))


def stochastic(survival, **kwargs):
    kwargs = {"depth": 14, "input_shape": SHAPE, "classes": 5} | kwargs
    return kd.ResNet(
        stem="cifar", shortcut="A", stochastic_depth=1 - survival, drop_unit="batch", block_layers=True, **kwargs
    )


def test_a_dropped_branch_is_neither_computed_nor_changed():
    model = stochastic(0.5)
    block = model.get_layer("conv4_block2_out")
    assert block.survival == pytest.approx(0.5)
    kernel = block.sublayers["conv4_block2_1_conv"].kernel
    kernel.assign(np.full(kernel.shape, np.nan))  # poisons whatever reads it
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 64)).astype("float32")
    statistics = block.sublayers["conv4_block2_1_bn"].moving_mean
    run = tf.function(lambda x: block(x, training=True))
    outcomes = []
    for _ in range(40):
        before = statistics.numpy()
        y = run(x).numpy()
        outcomes.append(bool(np.isnan(statistics.numpy()).all()))
        if outcomes[-1]:
            statistics.assign(before)
        else:
            np.testing.assert_allclose(y, np.maximum(x, 0), rtol=1e-6)
            np.testing.assert_array_equal(statistics, before)
    assert 0.2 < np.mean(outcomes) < 0.8


def test_a_dropped_branch_has_no_gradient():
    model = stochastic(0.5)
    block = model.get_layer("conv4_block2_out")
    x = tf.constant(np.random.default_rng(0).normal(size=(2, 4, 4, 64)).astype("float32"))

    @tf.function
    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(block(x, training=True))
        return tape.gradient(y, [x, *(weight.value for weight in block.trainable_weights)])

    kept = 0
    for _ in range(30):
        to_x, *to_weights = gradients()
        norms = [float(tf.norm(gradient)) for gradient in to_weights]
        assert all(norm > 0 for norm in norms) or not any(norms)
        kept += any(norms)
        if not any(norms):
            np.testing.assert_array_equal(to_x, np.asarray(x) > 0)
    assert 5 < kept < 25


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_projections_have_their_gradients_in_branches_that_may_be_dropped(policy):
    """A 1×1 convolution's gradient, in bfloat16 one of ours, reads the block's input, which lies outside the branch."""
    keras.config.set_dtype_policy(policy)
    options = {"depth": 8, "stem": "cifar", "shortcut": "B", "block_layers": True, "input_shape": SHAPE, "classes": 5}
    plain = kd.ResNet(**options)
    survivor = kd.ResNet(**options, stochastic_depth=1e-9, drop_unit="batch")
    assert any(layer.survival < 1 for layer in survivor.layers if isinstance(layer, layers.Block))
    values = {weight.path: weight for weight in plain.weights}
    for weight in survivor.weights:  # in another order
        if "seed" not in weight.path:
            weight.assign(values[weight.path])
    x, y = batch()

    def gradients(model):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, model(x, training=True)))
        return tape.gradient(loss, {weight.path: weight.value for weight in model.trainable_weights})

    expected, found = (tf.function(gradients)(model) for model in (plain, survivor))
    assert expected.keys() == found.keys()
    for path, one in expected.items():
        assert np.linalg.norm(one) > 0
        np.testing.assert_allclose(found[path], one, rtol=0, atol=0.02 * np.abs(one).max())


def test_survivals_and_inference_are_the_flat_networks():
    options = {"depth": 14, "stem": "cifar", "shortcut": "A", "stochastic_depth": 0.5, "drop_unit": "batch"}
    blocks, flat = pair(**options)
    x, _ = batch()
    np.testing.assert_allclose(blocks(x, training=False), flat(x, training=False), rtol=1e-5, atol=1e-6)
    survivals = [layer.survival for layer in flat.layers if isinstance(layer, layers.StochasticDepth)]
    assert [layer.survival for layer in blocks.layers if isinstance(layer, layers.Block)] == survivals


def test_one_draw_an_image():
    blocks, flat = pair(depth=14, stochastic_depth=0.5, drop_unit="sample")
    x, y = batch()
    np.testing.assert_allclose(blocks(x, training=False), flat(x, training=False), rtol=1e-5, atol=1e-6)
    block = blocks.get_layer("conv4_block2_out")
    x = np.random.default_rng(0).normal(size=(64, 4, 4, 64)).astype("float32")
    y = tf.function(lambda x: block(x, training=True))(x).numpy()
    dropped = (np.abs(y - np.maximum(x, 0)).reshape(64, -1).max(1) == 0).mean()
    assert 0.2 < dropped < 0.8


def test_the_shared_graph_knows_nothing_of_a_block():
    blocks, _ = pair(depth=14)
    first, second = (blocks.get_layer(f"conv2_block{number}_out") for number in (1, 2))
    assert first.graph == second.graph and first.network() is second.network()
    assert {layer["name"] for layer in json.loads(first.graph)["layers"]} >= {"block_1_conv", "block_2_bn", "block_out"}
    assert set(second.sublayers) == {f"conv2_block2_{part}" for part in ("1_conv", "1_bn", "2_conv", "2_bn")}


def test_bad_survival():
    with pytest.raises(ValueError, match=r"survival=0 is not a probability in \(0, 1\]"):
        layers.Block("{}", survival=0)


def test_deep_networks_are_made_of_blocks():
    assert kd.ResNet1202.facts.spec.block_layers and kd.PreActResNet1001.facts.spec.block_layers
    assert kd.StochasticDepthResNet110.facts.spec.residual.block_layers
    assert not kd.ResNet110.facts.spec.block_layers and not kd.ResNet152.facts.spec.block_layers


@pytest.mark.parametrize("training", [False, True])
def test_mixed_precision_in_a_model_that_is_not(tmp_path, training):
    """A saved network is loaded under whatever policy there is; its blocks keep theirs."""
    blocks, _ = pair(policy="mixed_bfloat16")
    blocks.save(tmp_path / "model.keras")
    keras.config.set_dtype_policy("float32")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.compute_dtype == "float32" and loaded.layers[-3].compute_dtype == "bfloat16"
    x, _ = batch()
    np.testing.assert_array_equal(loaded(x, training=training), blocks(x, training=training))
    np.testing.assert_allclose(loaded.predict_on_batch(x), blocks.predict_on_batch(x), atol=2e-2)


def test_initial_weights_do_not_depend_on_what_was_built_before():
    def weights():
        keras.utils.set_random_seed(3)
        return kd.ResNet(depth=8, stem="cifar", block_layers=True).get_weights()

    block_graph.cache_clear()
    first, second = weights(), weights()
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("first", ["inference", "export"])
def test_exports_and_inference_do_not_share_a_graph(first, monkeypatch):
    """Inference may avoid kernels that are slow on this machine. Exports contain the same ones on every machine."""
    monkeypatch.setattr(internals, "fuses_slowly", lambda: True)
    model = kd.ResNet(depth=20, stem="cifar", input_shape=SHAPE, classes=5, block_layers=True)

    def norms(exports):
        with exporting() if exports else contextlib.nullcontext():
            function = tf.function(lambda x: model(x, training=False))
            graph = function.get_concrete_function(tf.TensorSpec([1, *SHAPE])).graph.as_graph_def()
        nodes = [*graph.node, *(node for each in graph.library.function for node in each.node_def)]
        return sum(node.op == "FusedBatchNormV3" for node in nodes)

    order = [False, True] if first == "inference" else [True, False]
    found = {exports: norms(exports) for exports in order}
    assert found[False] == 0 and found[True] > 0
