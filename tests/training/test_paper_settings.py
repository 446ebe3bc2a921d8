"""Settings of recipes of older papers: input whitening, rising momentum, factors of the rate, a linear fall."""

import keras
import numpy as np
import pytest

from keras_deepnets import layers, training
from keras_deepnets.training.optimizers import CoupledSGD, optimizer
from keras_deepnets.training.recipe import Recipe
from keras_deepnets.training.schedules import LinearFall, learning_rate


def steps(sgd, gradients, start):
    weight = keras.Variable(np.array(start, "float32"), name="kernel")
    weight._path = "net/conv1_conv/kernel"
    sgd.build([weight])
    for gradient in gradients:
        sgd.apply([keras.ops.convert_to_tensor(np.array(gradient, "float32"))], [weight])
    return np.asarray(weight)


@pytest.mark.parametrize("fast", ["1", "0"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_rising_momentum_and_rate_factors(fast, nesterov, monkeypatch, rng):
    monkeypatch.setenv("KERAS_DEEPNETS_FAST", fast)
    gradients, start = rng.normal(size=(5, 3)), rng.normal(size=3)
    sgd = CoupledSGD(
        0.1,
        momentum=0.9,
        nesterov=nesterov,
        l2=0.01,
        momentum_start=0.5,
        momentum_steps=4,
        rate_factors={"conv2": 3.0, r"conv\d_conv/kernel": 0.5},
    )
    weight, velocity = start.copy(), np.zeros(3)
    for step, gradient in enumerate(gradients):
        momentum = min(0.5 + 0.1 * step, 0.9)
        change = 0.05 * (gradient + 0.01 * weight)
        velocity = momentum * velocity - change
        weight = weight + (momentum * velocity - change if nesterov else velocity)
    np.testing.assert_allclose(steps(sgd, gradients, start), weight, rtol=1e-5)
    again = CoupledSGD.from_config(sgd.get_config())
    np.testing.assert_allclose(steps(again, gradients, start), weight, rtol=1e-5)


def test_linear_fall():
    recipe = Recipe(name="r", source="", epochs=10, learning_rate=0.5, schedule="linear", drop=0.1)
    rate = learning_rate(recipe, 100)
    assert [float(rate(step)) for step in (0, 50, 100, 200)] == pytest.approx([0.5, 0.275, 0.05, 0.05])
    assert isinstance(keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rate)), LinearFall)


def test_a_recipes_optimizer_has_them():
    recipe = Recipe(
        name="r", source="", epochs=10, momentum_ramp="5 epochs", momentum_start=0.4, rate_factors={"conv": 0.1}
    )
    found = optimizer(recipe, 100, 10)
    assert (found.momentum_steps, found.momentum_start, found.rate_factors) == (50, 0.4, {"conv": 0.1})


@pytest.mark.parametrize(
    "values, message",
    [
        ({"momentum_ramp": "5 weeks"}, "weeks"),
        ({"momentum_start": 1.0}, "must be below 1"),
        ({"momentum_ramp": 5, "optimizer": "adamw"}, "momentum_ramp and rate_factors are for optimizer='sgd'"),
        ({"rate_factors": {"(": 1.0}}, "is not a regular expression"),
        ({"rate_factors": {"a": "fast"}}, "must be a number"),
        ({"rate_factors": 3}, "must map names to values"),
        ({"input_scaling": "pca"}, "is not one of 'statistics', 'unit', 'gcn', 'zca'"),
    ],
)
def test_errors(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(name="r", source="", epochs=1, **values)


@pytest.mark.parametrize("kind", ["gcn", "zca"])
def test_whitening_is_part_of_the_trained_model(kind, rng, tmp_path):
    images, labels = rng.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8), np.arange(40) % 2
    settings = {
        "epochs": 1,
        "batch_size": 8,
        "image_size": 8,
        "learning_rate": 1e-3,
        "input_scaling": kind,
        "validation": False,
        "verbose": 0,
    }
    run = training.train("highway1", (images, labels), "fast", tmp_path / kind, **settings)
    names = [layer.name for layer in run.model.layers[:3]]
    assert names[:2] == ["input_layer", "contrast"] and (names[2] == "whitening") == (kind == "zca")
    assert run.model.includes_preprocessing
    saved = keras.saving.load_model(run.path / "model.keras")
    expected = run.model.predict(images.astype("float32"), verbose=0)
    np.testing.assert_allclose(saved.predict(images.astype("float32"), verbose=0), expected, rtol=1e-5)
    assert training.evaluate(run.path, (images, labels)).top1 == (expected.argmax(-1) == labels).mean()
    if kind == "zca":
        reference = layers.ZCAWhitening()
        reference.build((None, 8, 8, 3))
        reference.fit([layers.GlobalContrastNormalization()(images)])
        np.testing.assert_allclose(run.model.get_layer("whitening").matrix, reference.matrix, atol=1e-4)
    with pytest.raises(ValueError, match=f"was trained with input_scaling='{kind}'"):
        training.train("highway1", (images, labels), run_dir=tmp_path / "next", weights=run.path)
    assert not (tmp_path / "next").exists()


def test_large_images_are_not_whitened(rng, tmp_path):
    images, labels = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8), np.arange(8) % 2
    with pytest.raises(ValueError, match="64×64 pixels with 3 channels have 12,288 values"):
        training.train("nin", (images, labels), "fast", tmp_path / "run", image_size=64, input_scaling="zca", verbose=0)
    assert not (tmp_path / "run").exists()
