"""FractalNet: what its paper and its authors' code say beyond the common battery, and drop-path."""

import itertools
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import export, layers, models
from keras_deepnets.families.fractalnet import FractalNet, FractalNet21
from tests.weights.common import arrays, fill

TINY = {"filters": (4, 6), "input_shape": (8, 8, 3), "classes": 5, "dropout": 0}


def images(rng, count=6, side=8):
    return rng.normal(size=(count, side, side, 3)).astype("float32")


def counted(columns, filters, classes=10, doubling=False):
    """Parameters by formula: column k has 2**(k - 1) convolutions, of which the first may see other channels."""
    total, before = 0, 3
    for channels in filters:
        if doubling and before != channels:
            total, before = total + (before + 1) * channels, channels
        convolutions = columns * before * channels + sum(2**k - 1 for k in range(columns)) * channels**2
        total += 9 * convolutions + (2**columns - 1) * 2 * channels
        before = channels
    return total + (before + 1) * classes


@pytest.mark.parametrize(
    "options, parameters",
    [({}, 33_724_618), ({"classes": 100}, 33_770_788), ({"doubling": True}, 38_648_074)],
)
def test_parameters(options, parameters):
    assert counted(3, (64, 128, 256, 512, 512), **options) == parameters
    assert models.trainable_parameters(FractalNet21(**options)) == parameters


@pytest.mark.parametrize("columns, filters, doubling", [(1, (4, 6), True), (2, (4, 4, 6), True), (4, (3, 5), False)])
def test_parameters_of_other_networks(columns, filters, doubling):
    model = FractalNet(columns=columns, filters=filters, doubling=doubling, dropout=0)
    assert models.trainable_parameters(model) == counted(columns, filters, doubling=doubling)


def test_columns_and_joins():
    """Column k has 2**(k - 1) convolutions per block. The join of a row is of the columns with a convolution there."""
    spec = FractalNet21.facts.spec
    assert (spec.depth, spec.total_stride, spec.dropouts) == (21, 32, (0, 0.1, 0.2, 0.3, 0.4))
    model = FractalNet(columns=4, **TINY)
    for column in range(1, 5):
        units = re.compile(rf"block2_column{column}_(\d+)_conv")
        assert sum(bool(units.fullmatch(layer.name)) for layer in model.layers) == 2 ** (column - 1)
    joins = {
        layer.name: layer.columns for layer in model.layers if layer.name.startswith(("block2_join", "block2_out"))
    }
    assert joins == {
        "block2_join2": (3, 4),
        "block2_join4": (2, 3, 4),
        "block2_join6": (3, 4),
        "block2_output": (1, 2, 3, 4),
    }
    assert [FractalNet21.facts.spec_with({"column": column}).depth for column in (1, 2, 3)] == [6, 11, 21]


def test_dropout_is_before_batch_normalisation():
    model = FractalNet(columns=2, **TINY | {"dropout": (0, 0.25)})
    assert [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dropout)] == [
        "block2_column2_1_dropout",
        "block2_column1_1_dropout",
        "block2_column2_2_dropout",
    ]
    drop = model.get_layer("block2_column2_2_dropout")
    assert drop.rate == 0.25 and drop.noise_shape is None
    assert drop.input is model.get_layer("block2_column2_2_conv").output
    assert model.get_layer("block2_column2_2_bn").input is drop.output


@pytest.mark.parametrize("pool_before_join", [True, False])
def test_pooling_of_columns_or_of_their_mean(pool_before_join, rng):
    model = fill(FractalNet(**TINY, pool_before_join=pool_before_join))
    last = {"block1_column1_1_relu": 1, "block1_column2_2_relu": 2, "block1_column3_4_relu": 3}
    end = "block1_output" if pool_before_join else "block1_pool"
    outputs = [model.get_layer(name).output for name in (*last, end)]
    *columns, found = (np.asarray(value) for value in keras.Model(model.input, outputs)(images(rng)))

    def pooled(maps):
        return maps.reshape(len(maps), 4, 2, 4, 2, -1).max((2, 4))

    expected = np.mean([pooled(maps) for maps in columns], 0) if pool_before_join else pooled(np.mean(columns, 0))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_weights_fit_both_places_of_the_pooling(rng):
    source = fill(FractalNet(**TINY))
    other = FractalNet(**TINY, pool_before_join=False)
    other.set_weights(source.get_weights())
    assert arrays(source).keys() == arrays(other).keys()
    x = images(rng)
    assert np.abs(source(x) - other(x)).max() > 1e-4


# Drop-path


def pattern_probabilities(count, drop):
    """Probability of each set of kept inputs: all are dropped with probability drop**count, and then one is kept."""
    found = {}
    for kept in itertools.product((0, 1), repeat=count):
        alive = sum(kept)
        if alive:
            found[kept] = (1 - drop) ** alive * drop ** (count - alive) + (drop**count / count if alive == 1 else 0)
    return found


@pytest.mark.parametrize("columns, drop", [((2, 3), 0.15), ((1, 2, 3), 0.15), ((1, 2, 3), 0.6), ((4, 5), 0.9)])
def test_local_sampling_has_the_papers_distribution(columns, drop):
    draws, count = 40_000, len(columns)
    shares = np.asarray(layers.FractalJoin(columns, drop, seed=3).shares(draws))
    np.testing.assert_allclose(shares.sum(1), 1, atol=1e-6)
    kept = shares > 0
    np.testing.assert_allclose(shares, kept / kept.sum(1, keepdims=True), atol=1e-6)
    patterns, frequencies = np.unique(kept.astype(int), axis=0, return_counts=True)
    found = dict(zip(map(tuple, patterns.tolist()), frequencies / draws, strict=True))
    expected = pattern_probabilities(count, drop)
    assert sum(expected.values()) == pytest.approx(1) and set(found) <= set(expected)
    for pattern, probability in expected.items():
        error = (probability * (1 - probability) / draws) ** 0.5
        assert abs(found.get(pattern, 0) - probability) < 5 * error


@pytest.mark.parametrize(
    "count, share, chosen", [(8, 0.5, {4}), (7, 0.5, {3, 4}), (5, 1, {5}), (6, 0, {0}), (1, 0.3, {0, 1})]
)
def test_global_sampling_has_an_exact_share(count, share, chosen):
    plan = layers.ColumnPlan(3, share, seed=1)
    x = np.zeros((count, 2, 2, 3), "float32")
    plans = np.stack([np.asarray(plan(x, training=True)) for _ in range(120)])
    assert set(np.unique(plans)) <= {0, 1} and plans.shape == (120, count, 3)
    each = plans.sum((1, 2))
    assert set(each) == chosen
    deviation = np.sqrt((share * count) % 1 * (1 - (share * count) % 1) / 120)
    assert abs(each.mean() - share * count) <= 5 * deviation + 1e-6
    assert (np.diff(plans.sum(2), axis=1) <= 0).all()  # the first samples
    if share:
        columns = plans.sum((0, 1)) / plans.sum()
        np.testing.assert_allclose(columns, 1 / 3, atol=5 * (2 / 9 / plans.sum()) ** 0.5)
    assert not np.asarray(plan(x, training=False)).any()
    assert plan.compute_output_shape(x.shape) == (count, 3)


@pytest.mark.parametrize("columns", [(1, 2, 3), (2, 3)])
def test_a_join_follows_the_plan(columns, rng):
    """Of a sample with a joined column only that map, of others the mean of the kept maps: against NumPy with the same draws."""
    join = layers.FractalJoin(columns, 0.4, seed=5)
    maps = [rng.normal(size=(40, 3, 2, 4)).astype("float32") for _ in columns]
    plan = np.eye(4, dtype="float32")[rng.integers(0, 4, 40)][:, 1:]  # a fourth without a column
    again = layers.FractalJoin(columns, 0.4, seed=5)
    local = np.asarray(again.shares(40))
    expected = np.empty_like(maps[0])
    for sample in range(40):
        weights = local[sample]
        chosen = np.flatnonzero(plan[sample]) + 1
        if len(chosen) and chosen[0] in columns:
            weights = np.eye(len(columns))[columns.index(chosen[0])]
        expected[sample] = sum(weight * image[sample] for weight, image in zip(weights, maps, strict=True))
    np.testing.assert_allclose(join(maps, plan, training=True), expected, atol=1e-5)
    np.testing.assert_allclose(join(maps, plan, training=False), np.mean(maps, 0), atol=1e-6)
    join.trainable = False
    np.testing.assert_allclose(join(maps, plan, training=True), np.mean(maps, 0), atol=1e-6)


def planned(model):
    """The model with the plan of the batch as another output."""
    return keras.Model(model.input, [model.get_layer("column_plan").output, model.output])


def freeze_norms(model):
    for layer in model.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)


@pytest.mark.parametrize("pool_before_join", [True, False])
def test_global_samples_see_one_column(pool_before_join, rng):
    options = TINY | {"pool_before_join": pool_before_join, "doubling": True}
    model = fill(FractalNet(**options, global_share=0.75))
    freeze_norms(model)
    columns = [kd.fractal_column(model, column) for column in (1, 2, 3)]
    x = images(rng, 16)
    by_column = np.stack([column(x) for column in columns], 1)
    assert np.ptp(by_column, axis=1).max() > 1e-3
    plan, found = map(np.asarray, planned(model)(x, training=True))
    assert plan.sum() == 12 and set(plan[:12].argmax(1)) == {0, 1, 2}
    np.testing.assert_allclose(found[:12], by_column[np.arange(12), plan[:12].argmax(1)], rtol=1e-4, atol=1e-6)
    # Local samples are neither the mean of all nor a column.
    assert np.abs(found[12:] - np.asarray(model(x))[12:]).max() > 1e-5


def test_gradients_reach_only_the_chosen_columns(rng):
    keras.utils.set_random_seed(2)
    model = fill(FractalNet(**TINY, global_share=1.0))
    freeze_norms(model)  # whose statistics the gradients of other samples pass
    both, seen = planned(model), set()
    weights = [weight for weight in model.trainable_weights if re.search(r"column\d.*kernel", weight.path)]
    columns = [int(re.search(r"column(\d)", weight.path)[1]) for weight in weights]
    kernels = [weight.value for weight in weights]
    assert columns.count(3) == 8 and columns.count(1) == 2
    for _ in range(6):
        with tf.GradientTape() as tape:
            plan, y = both(images(rng, 3), training=True)
            loss = tf.reduce_sum(y[:, 1])
        used = {int(column) + 1 for column in np.argmax(plan, 1)}
        reached = [bool(np.abs(gradient).max() > 0) for gradient in tape.gradient(loss, kernels)]
        assert reached == [column in used for column in columns]
        seen.add(tuple(sorted(used)))
    assert min(map(len, seen)) < 3 and len(seen) > 1


def test_in_half_precision_a_join_is_the_same_up_to_rounding(rng):
    maps = [rng.normal(size=(64, 4, 4, 8)).astype("float32") for _ in range(3)]
    plan = np.eye(4, dtype="float32")[rng.integers(0, 4, 64)][:, 1:]
    full = layers.FractalJoin((1, 2, 3), 0.3, seed=2)
    half = layers.FractalJoin((1, 2, 3), 0.3, seed=2, dtype="mixed_bfloat16")
    found = half(maps, plan, training=True)
    assert found.dtype == "bfloat16"
    np.testing.assert_allclose(tf.cast(found, "float32"), full(maps, plan, training=True), atol=0.04)
    planner = layers.ColumnPlan(3, 1.0, dtype="mixed_bfloat16")
    assert planner(maps[0], training=True).dtype == "bfloat16"


def test_draws_are_a_function_of_the_seed_states(rng):
    keras.utils.set_random_seed(7)
    model = FractalNet(**TINY | {"dropout": 0.1})
    x = images(rng)
    states = [variable for variable in model.variables if "seed" in variable.path]
    assert len(states) == 1 + 4 + 14  # the plan, the joins, the dropouts
    assert not any(state is weight for state in states for weight in model.weights)
    before = [variable.numpy() for variable in model.variables]
    first, second = model(x, training=True).numpy(), model(x, training=True).numpy()
    assert np.abs(first - second).max() > 0
    for variable, value in zip(model.variables, before, strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(model(x, training=True), first)
    keras.utils.set_random_seed(7)
    np.testing.assert_array_equal(FractalNet(**TINY | {"dropout": 0.1})(x, training=True), first)


def test_a_frozen_network_drops_nothing(rng):
    model = kd.freeze(fill(FractalNet(**TINY | {"dropout": 0.3})))
    x = images(rng)
    np.testing.assert_allclose(model(x, training=True), model(x, training=False), atol=1e-6)
    # Above a frozen block, drop-path goes on.
    model = kd.freeze(fill(FractalNet(**TINY)), "block1_output")
    lower = keras.Model(model.input, model.get_layer("block1_output").output)
    np.testing.assert_allclose(lower(x, training=True), lower(x, training=False), atol=1e-5)
    freeze_norms(model)
    assert np.abs(model(x, training=True) - model(x, training=False)).max() > 1e-5


def test_without_drop_path_training_differs_by_statistics_only(rng):
    model = fill(FractalNet(**TINY, drop_path=0, global_share=0))
    assert not any(isinstance(layer, layers.ColumnPlan) for layer in model.layers)
    freeze_norms(model)
    x = images(rng)
    np.testing.assert_allclose(model(x, training=True), model(x, training=False), atol=1e-6)


# Columns


@pytest.mark.parametrize("column", [1, 2, 3])
@pytest.mark.parametrize("options", [{}, {"pool_before_join": False, "doubling": True, "dropout": (0, 0.2)}])
def test_a_column_is_the_network_of_the_option(column, options, rng, tmp_path):
    source = fill(FractalNet(**TINY | options, layer_prefix="left_", include_preprocessing=True))
    source.labels = list("abcde")
    found = kd.fractal_column(source, column)
    built = FractalNet(**TINY | options, column=column, layer_prefix="left_", include_preprocessing=True)
    assert [layer.name for layer in found.layers] == [layer.name for layer in built.layers]
    assert found.architecture == built.architecture and "column" not in source.architecture["options"]
    assert found.labels == tuple("abcde") and found.scaling == source.scaling
    own = arrays(found)
    assert own and all((value == arrays(source)[name]).all() for name, value in own.items())
    built.set_weights(found.get_weights())
    x = rng.integers(0, 256, (3, 8, 8, 3)).astype("uint8")
    np.testing.assert_array_equal(built(x), found(x))
    # The weights are copies.
    found.get_layer("left_predictions").kernel.assign(0 * found.get_layer("left_predictions").kernel)
    assert np.abs(source.get_layer("left_predictions").kernel).max() > 0
    # A file of the column builds the column.
    path = kd.save_weights(built, tmp_path / "column.safetensors")
    again = FractalNet(**TINY | options, column=column, include_preprocessing=True, weights=path)
    np.testing.assert_allclose(again(x), built(x), atol=1e-6)


def test_a_column_of_a_nested_network(rng):
    inner = fill(FractalNet(**TINY))
    inputs = keras.Input((8, 8, 3))
    outer = keras.Model(inputs, inner(inputs))
    x = images(rng)
    np.testing.assert_allclose(kd.fractal_column(outer, 2)(x), kd.fractal_column(inner, 2)(x), atol=1e-6)


def test_columns_that_do_not_exist():
    model = FractalNet(**TINY)
    with pytest.raises(ValueError, match="column=4 does not exist; the network has columns 1 to 3"):
        kd.fractal_column(model, 4)
    with pytest.raises(ValueError, match="column=0 must be a whole number of at least 1"):
        kd.fractal_column(model, 0)
    for other in (kd.fold_batchnorm(model), kd.fractal_column(model, 1)):
        with pytest.raises(ValueError, match="has no layer that joins columns"):
            kd.fractal_column(other, 1)


# With the rest of the library


def test_folding_leaves_convolutions_and_means(rng, tmp_path):
    model = fill(FractalNet(**TINY | {"dropout": (0, 0.2)}))
    folded = kd.fold_batchnorm(model)
    kinds = {type(layer).__module__.split(".")[0] + "." + type(layer).__name__ for layer in folded.layers}
    assert {kind for kind in kinds if not kind.startswith("keras.")} == {
        "keras_deepnets.Conv2D",
        "keras_deepnets.MaxPooling2D",
    }
    plain = ("Activation", "Add", "Rescaling", "Dense", "GlobalAveragePooling2D", "InputLayer")
    assert {kind for kind in kinds if kind.startswith("keras.")} == {f"keras.{name}" for name in plain}
    x = images(rng)
    np.testing.assert_allclose(folded(x), model(x), atol=1e-5)
    assert folded.count_params() == sum(
        weight.shape.num_elements() for weight in model.weights if weight.name == "kernel"
    ) + sum(weight.shape.num_elements() for weight in model.weights if weight.name in ("bias", "beta"))
    served = tf.saved_model.load(str(export.saved_model(model, tmp_path / "served")))
    for signature in served.signatures.values():
        graph = signature.graph.as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        assert not [node.name for node in nodes if "Random" in node.op or "column_plan" in node.name]


def test_pyramid_has_the_ends_of_the_blocks():
    for options, end in (({}, "block{}_output"), ({"pool_before_join": False}, "block{}_pool")):
        model = FractalNet(**TINY, **options)
        pyramid = kd.feature_pyramid(model)
        assert {name: output.shape[1:] for name, output in pyramid.output.items()} == {"P1": (4, 4, 4), "P2": (2, 2, 6)}
        assert pyramid.output["P1"] is model.get_layer(end.format(1)).output
    column = kd.feature_pyramid(FractalNet(**TINY, column=3))
    assert {name: output.shape[1:] for name, output in column.output.items()} == {"P1": (4, 4, 4), "P2": (2, 2, 6)}


@pytest.mark.integration
@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"doubling": True, "pool_before_join": False}, marks=pytest.mark.slow),
        pytest.param({"columns": 3, "column": 3}, marks=pytest.mark.slow),
    ],
)
def test_it_learns(options, rng):
    keras.utils.set_random_seed(1)
    model = FractalNet(**{"columns": 2} | TINY | options)
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    labels = np.arange(40) % 5
    x = images(rng, 5)[labels] + 0.1 * images(rng, 40)
    model.fit(x, labels, batch_size=20, epochs=25, verbose=0)
    assert model.evaluate(x, labels, verbose=0)[1] > 0.9


def test_save_and_load_of_a_part_with_a_plan(rng, tmp_path):
    model = fill(FractalNet(**TINY))
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    x = images(rng)
    np.testing.assert_allclose(loaded(x), model(x), rtol=1e-5, atol=1e-6)
    join = loaded.get_layer("block2_join2")
    assert (join.columns, join.drop_path) == ((2, 3), 0.15)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(clone(x), model(x), rtol=1e-5, atol=1e-6)
    assert clone(x, training=True).shape == (6, 5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: FractalNet(columns=0), "columns=0 must be a whole number of at least 1"),
        (lambda: FractalNet(filters=()), r"filters=\(\) must be a tuple of at least one number"),
        (lambda: FractalNet(filters=(64, 0), dropout=0), r"filters=\(64, 0\) must be a whole number"),
        (
            lambda: FractalNet(filters=(64, 128)),
            r"dropout=\(0.0, 0.1, 0.2, 0.3, 0.4\) must have one probability for each",
        ),
        (lambda: FractalNet21(dropout=1), "dropout=1 must be a drop probability"),
        (lambda: FractalNet21(dropout=(0, 0, 0, 0, "x")), "dropout='x' must be a drop probability"),
        (lambda: FractalNet21(drop_path=1.0), "drop_path=1.0 must be a drop probability"),
        (lambda: FractalNet21(global_share=1.5), r"global_share=1.5 must be a share of the samples in \[0, 1\]"),
        (lambda: FractalNet21(column=4), "column=4 does not exist; the network has columns 1 to 3"),
        (lambda: FractalNet21(column=0), "column=0 must be a whole number of at least 1"),
        (lambda: FractalNet21(input_shape=(31, 64, 3)), "each side must be at least 32"),
        (lambda: layers.FractalJoin((1, 3)), r"columns=\(1, 3\) must be consecutive"),
        (lambda: layers.FractalJoin(()), r"columns=\(\) must be consecutive"),
        (lambda: layers.FractalJoin((1, 2), 1.0), "drop_path=1.0 is not a probability"),
        (lambda: layers.ColumnPlan(0), "columns=0 must be at least 1"),
        (lambda: layers.ColumnPlan(2, -0.1), "share=-0.1 is not a share"),
    ],
)
def test_bad_options(call, message):
    with pytest.raises(ValueError, match=message):
        call()
