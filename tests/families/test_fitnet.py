"""FitNets: what their paper says beyond the common battery."""

import keras
import numpy as np
import pytest

from keras_deepnets import models
from keras_deepnets.families.fitnet import FitNet, FitNet1, FitNet2, FitNet3, FitNet4


@pytest.mark.parametrize(
    "constructor, depth, parameters, printed, multiplications",
    [
        (FitNet1, 11, 251_194, 250e3, 30e6),
        (FitNet2, 11, 864_122, 862e3, 108e6),
        (FitNet3, 13, 1_572_474, 1.6e6, 392e6),
        (FitNet4, 19, 2_548_602, 2.5e6, 382e6),
    ],
)
def test_table_5(constructor, depth, parameters, printed, multiplications):
    model = constructor()
    assert constructor.facts.spec.depth == depth
    assert models.trainable_parameters(model) == parameters == pytest.approx(printed, rel=0.05)
    assert models.multiply_adds(model) == pytest.approx(multiplications, rel=0.01)


def test_the_choices_that_the_paper_leaves():
    # With the teachers' five pieces, or with Table 7's first stage, the counts leave those of Table 5.
    assert models.trainable_parameters(FitNet(filters=FitNet1.facts.row["filters"], hidden_pieces=5)) > 1.35 * 250e3
    printed = FitNet(filters=((32, 48, 64, 64), (80,) * 4, (128,) * 3))
    assert models.trainable_parameters(printed) == 1_506_138
    assert models.multiply_adds(printed) < 0.85 * 392e6


def test_layers_of_fitnet_1(rng):
    model = FitNet1(input_shape=(16, 16, 3))
    sides = {layer.name: tuple(layer.output.shape[1:]) for layer in model.layers}
    assert [sides[f"conv{stage}_{stage}_out"] for stage in (1, 2, 3)] == [(16, 16, 16), (8, 8, 32), (4, 4, 64)]
    assert sides["max_pool"] == (64,) and sides["fc_out"] == (500,) and model.output_shape == (None, 10)
    names = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert names == [f"conv{stage}_{number}_conv" for stage in (1, 2, 3) for number in (1, 2, 3)]
    # The last pooling takes the maximum over every position, whatever their number.
    tensors = [model.get_layer(name).output for name in ("conv3_3_out", "max_pool")]
    maps, vector = keras.Model(model.input, tensors)(rng.normal(size=(2, 16, 16, 3)).astype("float32"))
    np.testing.assert_array_equal(np.max(maps, (1, 2)), vector)


def test_without_top_it_ends_in_the_fully_connected_layer():
    assert FitNet1(include_top=False).output_shape == (None, 500)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: FitNet(filters=()), r"filters=\(\) must have one tuple of channels per stage"),
        (lambda: FitNet(filters=(16, 32)), "must have one tuple of channels per stage"),
        (lambda: FitNet(filters=((16,), ())), "must have one tuple of channels per stage"),
        (lambda: FitNet(filters=((16, 0),)), r"filters=\(16, 0\) must be a whole number of at least 1"),
        (lambda: FitNet(pieces=0), "pieces=0 must be a whole number"),
        (lambda: FitNet(hidden=2.5), "hidden=2.5 must be a whole number"),
        (lambda: FitNet1(input_shape=(3, 32, 3)), "each side must be at least 4"),
    ],
)
def test_bad_input_is_one_clear_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_named_networks_take_no_options():
    with pytest.raises(TypeError, match=r"unknown option 'pieces'. Its architecture options: none"):
        FitNet1(pieces=3)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_agrees(rng, policy):
    x = rng.normal(size=(2, 16, 16, 3)).astype("float32")
    full = FitNet1(input_shape=(16, 16, 3))
    keras.config.set_dtype_policy(policy)
    half = FitNet1(input_shape=(16, 16, 3))
    half.set_weights(full.get_weights())
    np.testing.assert_allclose(half(x), full(x), atol=0.05)


def test_signal_reaches_the_classifier_of_the_deepest(rng):
    """No normalisation and no hints: the initial weights alone must neither shrink nor swell it over 18 layers."""
    model = FitNet4(include_top=False, input_shape=(16, 16, 3))
    y = model(rng.normal(size=(4, 16, 16, 3)).astype("float32"))
    assert 0.2 < np.sqrt(np.mean(np.square(y))) < 5


def test_save_and_load(rng, tmp_path):
    model = FitNet(filters=((8, 8), (16,)), pieces=3, hidden=12, hidden_pieces=2, classes=4)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = rng.normal(size=(2, 32, 32, 3)).astype("float32")
    np.testing.assert_allclose(model(x), loaded(x), rtol=1e-5, atol=1e-6)
    options = loaded.architecture["options"]
    assert FitNet(**options).count_params() == FitNet(**model.architecture["options"]).count_params()
    assert loaded.architecture["family"] == "FitNet" and list(options) == [
        "filters",
        "pieces",
        "hidden",
        "hidden_pieces",
    ]
