"""Highway networks and the plain MLPs beside them: what their papers say beyond the common battery."""

import functools
import inspect

import keras
import numpy as np
import pytest

from keras_deepnets import data, models
from keras_deepnets.families import highway
from keras_deepnets.families.highway import Highway, Highway1, HighwayMLP, HighwayMLP10, PlainMLP, PlainMLP10
from keras_deepnets.layers.gates import HighwayGate

DEPTHS = (10, 20, 50, 100)


@functools.cache
def built(name):
    """The network as it comes, for tests that only look."""
    return getattr(highway, name)()


def gates(model):
    return [layer.name.removesuffix("_out") for layer in model.layers if isinstance(layer, HighwayGate)]


@pytest.mark.parametrize(
    "name, depth, parameters, printed",
    [
        ("Highway1", 11, 236_328, 236e3),
        ("Highway2", 19, 2_277_688, 2.3e6),
        ("Highway3", 19, 1_375_208, 1.4e6),
        ("Highway4", 32, 1_280_552, 1.25e6),
    ],
)
def test_table_1(name, depth, parameters, printed):
    model = built(name)
    assert getattr(highway, name).facts.spec.depth == depth
    assert models.trainable_parameters(model) == parameters == pytest.approx(printed, rel=0.05)
    # Every convolution is a highway layer but those to 16 or 32, and from stage to stage.
    assert len(gates(model)) == depth - 2 - 3


def test_the_authors_published_network():
    """Srivastava et al. 2015b, Table 3: 1×1 convolution of 100 channels, global average pooling."""
    model = Highway(head="conv", hidden=100)
    assert models.trainable_parameters(model) == 2_256_838
    assert len(gates(model)) == 4 + 5 + 5
    assert model.get_layer("last_conv").output.shape == (None, 8, 8, 100)
    assert Highway(head="conv", hidden=100, include_top=False).output_shape == (None, None, None, 100)


def test_layers_are_plain_where_dimensions_change():
    model = built("Highway1")
    plain = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and layer.name.endswith("_conv")]
    assert [layer.name for layer in plain] == ["conv1_1_conv", "conv2_1_conv", "conv3_1_conv"]
    assert gates(model) == [f"conv{stage}_{number}" for stage in (1, 2, 3) for number in (2, 3)]
    assert [tuple(model.get_layer(f"conv{s}_3_out").output.shape) for s in (1, 2, 3)] == [
        (None, 32, 32, 16),
        (None, 16, 16, 32),
        (None, 8, 8, 64),
    ]


def test_one_width_throughout_needs_one_plain_layer():
    """As in the pilot experiments on MNIST (Srivastava et al. 2015b, 3.2)."""
    model = Highway(filters=(16, 16, 16), convolutions=(3, 3, 3), input_shape=(28, 28, 1))
    assert gates(model) == ["conv1_2", "conv1_3", *(f"conv{s}_{n}" for s in (2, 3) for n in (1, 2, 3))]
    # The first layer is plain even where it would not have to be.
    assert "conv1_1" not in gates(Highway(filters=(3, 3), convolutions=(2, 2)))


def test_highway_4_alternates_fields():
    model = built("Highway4")
    for stage in (1, 2, 3):
        sizes = [model.get_layer(f"conv{stage}_{n}_gate").kernel_size[0] for n in range(2, 11)]
        assert sizes == [1, 3, 1, 3, 1, 3, 1, 3, 1] and model.get_layer(f"conv{stage}_1_conv").kernel_size == (3, 3)


def initial_gate_biases(model):
    return {float(value) for name in gates(model) for value in model.get_layer(f"{name}_gate").bias.numpy()}


@pytest.mark.parametrize(
    "name, bias",
    [
        *zip((f"Highway{number}" for number in (1, 2, 3, 4)), (-1, -2, -2, -3), strict=True),
        *zip((f"HighwayMLP{depth}" for depth in DEPTHS), (-1, -2, -4, -4), strict=True),
    ],
)
def test_gate_bias(name, bias):
    constructor = getattr(highway, name)
    assert inspect.signature(constructor).parameters["gate_bias"].default == bias
    assert initial_gate_biases(built(name)) == {bias}


def test_gate_bias_option():
    model = Highway1(gate_bias=-3.5)
    assert initial_gate_biases(model) == {-3.5} and model.architecture["options"] == {"gate_bias": -3.5}
    others = [
        layer.bias.numpy() for layer in model.layers if hasattr(layer, "bias") and not layer.name.endswith("_gate")
    ]
    assert not np.concatenate(others).any()


def test_closed_gates_make_a_stage_its_first_layer(rng):
    x = rng.normal(size=(2, 28, 28, 1)).astype("float32")
    model = HighwayMLP(depth=30, gate_bias=-40)
    start, end = keras.Model(model.input, [model.get_layer("fc1").output, model.get_layer("fc30_out").output])(x)
    np.testing.assert_allclose(start, end, rtol=1e-5, atol=1e-6)
    # From the default bias it is what most of the signal does.
    model = built("HighwayMLP100")
    start, end = keras.Model(model.input, [model.get_layer("fc1").output, model.get_layer("fc100_out").output])(x)
    assert np.corrcoef(np.ravel(start), np.ravel(end))[0, 1] > 0.7


@pytest.mark.parametrize("depth", DEPTHS)
def test_fully_connected_networks_have_about_5000_parameters_a_layer(depth):
    names = [f"HighwayMLP{depth}", f"PlainMLP{depth}"]
    gated, plain = (models.trainable_parameters(built(name)) for name in names)
    assert gated == 784 * 50 + 50 + (depth - 1) * 2 * (50 * 50 + 50) + 50 * 10 + 10
    assert plain == 784 * 71 + 71 + (depth - 1) * (71 * 71 + 71) + 71 * 10 + 10
    assert {getattr(highway, name).facts.spec.depth for name in names} == {depth}
    assert {built(name).input_shape for name in names} == {(None, 28, 28, 1)}


def test_plain_network_is_a_stack_of_layers():
    model = built("PlainMLP10")
    assert not gates(model)
    assert [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [71] * 10 + [10]
    assert PlainMLP(depth=3, width=20, activation="tanh").get_layer("fc2").activation is keras.activations.tanh


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Highway1(gate_bias=2), "Highway: gate_bias=2 must be a number of at most 0"),
        (lambda: Highway1(gate_bias=None), "gate_bias=None must be a number"),
        (lambda: Highway1(gate_bias=float("nan")), "gate_bias=nan must be a number"),
        (lambda: HighwayMLP10(gate_bias="low"), "HighwayMLP: gate_bias='low' must be a number"),
        (lambda: Highway(filters=(16, 32)), "must each have one number per stage"),
        (lambda: Highway(filters=(), convolutions=()), r"filters=\(\) must be a tuple"),
        (lambda: Highway(filters=16), "filters=16 must be a tuple"),
        (lambda: Highway(convolutions=(5, 0, 6)), r"convolutions=\(5, 0, 6\) must be a whole number of at least 1"),
        (lambda: Highway(kernels=(2,)), r"kernels=\(2,\) must be odd"),
        (lambda: Highway(head="pool"), "head='pool' is not one of 'dense', 'conv'"),
        (lambda: Highway(hidden=0), "hidden=0 must be a whole number"),
        (lambda: HighwayMLP(depth=0), "HighwayMLP: depth=0 must be a whole number"),
        (lambda: PlainMLP(width=1.5), "PlainMLP: width=1.5 must be a whole number"),
        (lambda: PlainMLP(activation="selu"), "PlainMLP: activation='selu' is not one of 'relu', 'tanh'"),
        (lambda: HighwayMLP10(input_shape=(None, None, 1)), "needs a fixed height and width"),
        (lambda: Highway1(input_shape=(2, 32, 3)), "each side must be at least 4"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_unknown_options_list_the_valid_ones():
    with pytest.raises(TypeError, match=r"unknown option 'bias'. Its architecture options: gate_bias"):
        Highway1(bias=-1)
    with pytest.raises(TypeError, match=r"unknown option 'gate_bias'. Its architecture options: none"):
        PlainMLP10(gate_bias=-1)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("constructor, shape", [(Highway1, (16, 16, 3)), (HighwayMLP10, (28, 28, 1))])
def test_half_precision_agrees(rng, constructor, shape, policy):
    x = rng.normal(size=(2, *shape)).astype("float32")
    full = constructor(input_shape=shape)
    keras.config.set_dtype_policy(policy)
    half = constructor(input_shape=shape)
    half.set_weights(full.get_weights())
    np.testing.assert_allclose(half(x), full(x), atol=0.03)


@pytest.mark.slow
def test_highway_trains_where_a_plain_network_fails():
    """What the papers' Figure 1 claims: 50 layers, the same data, optimiser and steps."""
    images, labels = zip(*data.load("digits").examples().as_numpy_iterator(), strict=True)
    x, y = np.stack(images) / np.float32(127.5) - 1, np.array(labels)

    def last_loss(constructor):
        keras.utils.set_random_seed(0)
        model = constructor(input_shape=x.shape[1:])
        model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "sparse_categorical_crossentropy")
        return model.fit(x, y, batch_size=64, epochs=12, verbose=0).history["loss"][-1]

    assert last_loss(highway.HighwayMLP50) < 0.3
    assert last_loss(highway.PlainMLP50) > 2


@pytest.mark.parametrize(
    "constructor", [Highway1, HighwayMLP10, PlainMLP10, pytest.param(highway.HighwayMLP100, marks=pytest.mark.slow)]
)
def test_save_and_load(constructor, rng, tmp_path):
    model = constructor(classes=4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.normal(size=(2, *model.input_shape[1:])).astype("float32")
    np.testing.assert_allclose(model(x), loaded(x), rtol=1e-5, atol=1e-6)
    assert loaded.architecture == model.architecture
