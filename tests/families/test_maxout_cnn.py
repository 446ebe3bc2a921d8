"""The convolutional maxout network: the authors' configuration, torch, bounded norms."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_deepnets as kd
from keras_deepnets import models
from keras_deepnets.families.maxout_cnn import MaxoutCNN
from keras_deepnets.training import get_recipe, train
from keras_deepnets.training.optimizers import optimizer
from tests.families.against_torch import assert_like_torch
from tests.training.common import images

TINY = {"filters": (4, 6, 8), "hidden": (10,), "hidden_pieces": 3, "classes": 5}
PLAIN = {"dropout": 0.0, "input_dropout": 0.0}
BOUNDS = {"conv1_conv": 0.9, "conv2_conv": 1.9365, "conv3_conv": 1.9365, "fc1_dense": 1.9, "predictions": 1.9365}


def test_the_authors_layers():
    """The sizes of `cifar10.yaml`: its `partial_sum` of 33 and 15 are the sides of the first two maps."""
    model = MaxoutCNN(classes=100)
    shapes = {layer.name: tuple(layer.output.shape[1:]) for layer in model.layers}
    assert [shapes[f"conv{number}_out"] for number in (1, 2, 3)] == [(33, 33, 96), (15, 15, 192), (9, 9, 192)]
    assert [shapes[f"pool{number}"] for number in (1, 2, 3)] == [(16, 16, 96), (7, 7, 192), (5, 5, 192)]
    assert "pooled" not in shapes and shapes["fc1_dense"] == (2500,) and shapes["fc1_out"] == (500,)
    assert models.trainable_parameters(model) == 16_292_920
    assert (MaxoutCNN.facts.spec.depth, MaxoutCNN.facts.spec.total_stride) == (5, 8)
    rates = {layer.name: layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)}
    halves = dict.fromkeys(("pool1_dropout", "pool2_dropout", "flatten_dropout", "fc1_dropout"), 0.5)
    assert rates == {"input_dropout": 0.2} | halves
    assert [layer.rescale for layer in model.layers if layer.name in rates] == [False, True, True, True, True]
    found = {name: model.get_layer(name).kernel_constraint.max_value for name in BOUNDS}
    assert found == BOUNDS


def test_the_authors_network_for_svhn():
    model = MaxoutCNN(filters=(64, 128, 128), kernels=(5, 5, 5), pool_sizes=(3, 3, 3), hidden=(400,))
    sides = {layer.name: layer.output.shape[1] for layer in model.layers}
    assert [sides[f"pool{number}"] for number in (1, 2, 3)] == [18, 10, 6]
    assert sides["fc1_dense"] == 2000


def torch_network(torch, weights, x):
    """Logits of the network with this library's weights, by torch's operators. Images are ``[n, 3, h, w]``."""
    functional = torch.nn.functional
    for number, (pieces, padding, size) in enumerate([(2, 4, 4), (2, 3, 4), (2, 3, 2)], start=1):
        kernel, bias = weights[f"conv{number}_conv/kernel"], weights[f"conv{number}_conv/bias"]
        x = functional.conv2d(x, kernel.permute(3, 2, 0, 1), bias, padding=padding)
        x = x.unflatten(1, (pieces, -1)).amax(1)
        x = functional.max_pool2d(x, size, 2, ceil_mode=True)
    x = functional.adaptive_max_pool2d(x, 5).permute(0, 2, 3, 1).flatten(1)
    x = (x @ weights["fc1_dense/kernel"] + weights["fc1_dense/bias"]).unflatten(1, (3, -1)).amax(1)
    return x @ weights["predictions/kernel"] + weights["predictions/bias"]


@pytest.mark.parametrize("shape", [(32, 32), (27, 41), (16, 9), (None, None)])
def test_against_torch(shape, rng):
    """Logits, and the gradient of each weight."""
    model = MaxoutCNN(**TINY, **PLAIN, input_shape=(*shape, 3), classifier_activation=None)
    assert_like_torch(model, torch_network, shape if shape[0] else (37, 30), rng)


def norms(model, weights=None):
    """Layer name to the norm of the weights of each output channel."""
    values = [weight.numpy() for weight in model.trainable_weights] if weights is None else weights
    kernels = {
        w.path.split("/")[-2]: value for w, value in zip(model.trainable_weights, values, strict=True) if value.ndim > 1
    }
    return {
        name: np.sqrt((kernel.reshape(-1, kernel.shape[-1]).astype("float64") ** 2).sum(0))
        for name, kernel in kernels.items()
    }


def batch(rng):
    return rng.normal(size=(16, 16, 16, 3)).astype("float32") * 3, np.arange(16) % 5


@pytest.mark.parametrize("kind", ["sgd", "adamw", "lamb", "muon"])
def test_norms_stay_bounded_under_each_optimizer(kind, rng):
    recipe = get_recipe("he2015_cifar").with_overrides(optimizer=kind, learning_rate=0.5, ema=0.9, weight_decay=0.0)
    model = MaxoutCNN(**TINY, input_shape=(16, 16, 3))
    free = MaxoutCNN(
        **TINY, input_shape=(16, 16, 3), max_kernel_norms=None, max_hidden_norm=None, max_classifier_norm=None
    )
    for network in (model, free):
        network.compile(optimizer(recipe, 100, 10), "sparse_categorical_crossentropy")
        for _ in range(4):
            network.train_on_batch(*batch(rng))
    above = 0
    for name, values in norms(model).items():
        assert values.max() <= BOUNDS[name] * (1 + 1e-6), name
        above += (norms(free)[name] > BOUNDS[name] * 1.01).sum()
    assert above > 0  # without the constraint the same steps exceed the bound
    averages = [np.asarray(average) for average in model.optimizer._model_variables_moving_average]
    for name, values in norms(model, averages).items():
        assert values.max() <= BOUNDS[name] * (1 + 1e-6), name


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_norms_stay_bounded_in_half_precision(policy, rng):
    keras.config.set_dtype_policy(policy)
    model = MaxoutCNN(**TINY, input_shape=(16, 16, 3))
    # Weights that exceed their bounds are scaled back by the first step that is taken.
    for weight in model.trainable_weights:
        weight.assign(3 * weight)
    assert any(values.max() > 1.2 * BOUNDS[name] for name, values in norms(model).items())
    sgd = keras.optimizers.SGD(1e-3, momentum=0.9)
    # The default scale skips first steps.
    made = keras.optimizers.LossScaleOptimizer(sgd, 1.0) if policy == "mixed_float16" else sgd
    model.compile(made, "sparse_categorical_crossentropy")
    model.train_on_batch(*batch(rng))
    for name, values in norms(model).items():
        assert values.max() <= BOUNDS[name] * (1 + 1e-6), name


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_a_run_keeps_the_norms_bounded(precision, tmp_path):
    """What `train` leaves on disk: the average of the weights."""
    keras.config.set_dtype_policy(precision)
    recipe = get_recipe("he2015_cifar").with_overrides(
        epochs=2, batch_size=32, ema=0.9, learning_rate=1.0, milestones=()
    )
    model = MaxoutCNN(**TINY | {"classes": 4}, input_shape=(8, 8, 1))
    run = train(model, images(), recipe, tmp_path / "run", precision=precision)
    saved = keras.saving.load_model(run.path / "model.keras")
    reached = 0.0
    for name, values in norms(saved).items():
        assert values.max() <= BOUNDS[name] * (1 + 1e-6), name
        reached = max(reached, values.max() / BOUNDS[name])
    assert reached > 0.95


def test_a_constraint_scales_the_channel_and_not_its_bias():
    model = MaxoutCNN(**TINY)
    layer = model.get_layer("conv2_conv")
    kernel = layer.kernel.numpy()
    kernel[..., 0] *= 10
    scaled = layer.kernel_constraint(tf.constant(kernel)).numpy()
    norm = np.sqrt((kernel.astype("float64") ** 2).sum((0, 1, 2)))
    expected = kernel * np.minimum(1, 1.9365 / norm)
    assert norm[0] > 1.9365 > norm[1]
    np.testing.assert_allclose(scaled, expected, rtol=1e-6)
    assert layer.bias_constraint is None


def test_constraints_survive(tmp_path):
    """A file, a clone, a new classifier."""
    model = MaxoutCNN(**TINY)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for other in (loaded, keras.models.clone_model(model), kd.replace_classifier(model, 3)):
        found = {name: other.get_layer(name).kernel.constraint.get_config() for name in BOUNDS}
        axes = {name: [0] if name in ("fc1_dense", "predictions") else [0, 1, 2] for name in BOUNDS}
        assert found == {name: {"max_value": BOUNDS[name], "axis": axes[name]} for name in BOUNDS}
    assert kd.replace_classifier(kd.FitNet1(), 3).layers[-1].kernel.constraint is None


def test_other_sizes_are_pooled_to_that_of_32_pixels(rng):
    model = MaxoutCNN(**TINY, input_shape=(48, 40, 3))
    assert model.get_layer("pool3").output.shape[1:3] == (7, 6) and model.get_layer("pooled").size == 5
    free = MaxoutCNN(**TINY, input_shape=(None, None, 3))
    free.set_weights(model.get_weights())
    x = rng.normal(size=(2, 48, 40, 3)).astype("float32")
    np.testing.assert_allclose(free(x), model(x), atol=1e-6)


@pytest.mark.parametrize(
    "side, kernel, padding, size", [*itertools.product((8, 9, 12, 15, 33), (3, 5, 8), (0, 2), (2, 3))]
)
def test_the_smallest_side_and_the_size_of_the_map(side, kernel, padding, size):
    """What the spec computes is what is built, and one pixel less than its smallest side has no map."""
    row = {
        "filters": (2,),
        "kernels": (kernel,),
        "paddings": (padding,),
        "pool_sizes": (size,),
        "max_kernel_norms": None,
    }
    spec = MaxoutCNN.facts.spec_with(row)
    if side < spec.total_stride:
        with pytest.raises(ValueError, match=f"each side must be at least {spec.total_stride}"):
            MaxoutCNN(**row, include_top=False, input_shape=(side, side, 3))
        return
    model = MaxoutCNN(**row, include_top=False, input_shape=(side, side, 3))
    assert model.output_shape[1] == spec._side_of_map(side) >= 1
    assert spec.total_stride == 2 or spec._side_of_map(spec.total_stride - 1) == 0


def test_without_the_top_it_ends_in_the_last_map():
    model = MaxoutCNN(**TINY, include_top=False)
    assert model.output_shape == (None, None, None, 8) and model.layers[-1].name == "pool3"


def test_the_initial_range():
    model = MaxoutCNN(filters=(8, 16, 16), initial_range=0.005)
    for name in ("conv2_conv", "fc1_dense"):
        kernel = model.get_layer(name).kernel.numpy()
        assert np.abs(kernel).max() <= 0.005 and kernel.std() == pytest.approx(0.005 / 3**0.5, rel=0.03)
    # By default, a signal keeps its second moment.
    kernel = MaxoutCNN(filters=(8, 16, 16)).get_layer("conv2_conv").kernel.numpy()
    assert kernel.var() * 64 * 8 == pytest.approx(1, rel=0.05)


@pytest.mark.integration
def test_it_learns(rng):
    """Five noisy patterns, with dropout and bounded norms."""
    patterns = rng.normal(size=(5, 16, 16, 3))
    y = np.arange(60) % 5
    x = (patterns[y] + 0.3 * rng.normal(size=(60, 16, 16, 3))).astype("float32")
    model = MaxoutCNN(**TINY | {"filters": (8, 12, 16)}, input_shape=(16, 16, 3), dropout=0.1)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=20, epochs=18, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.9


@pytest.mark.parametrize(
    "options, message",
    [
        ({"filters": (4, 4)}, "must each have one number per convolution; they have 2, 3, 3, 3, 3"),
        ({"filters": 4}, "filters=4 must be a tuple"),
        ({"kernels": (8, 0, 5)}, "must be a whole number of at least 1"),
        ({"paddings": (4, -1, 3)}, r"paddings=\(4, -1, 3\) must be whole numbers of at least 0"),
        ({"pool_sizes": (4, 4, 1)}, r"pool_sizes=\(4, 4, 1\) must be at least 2"),
        ({"paddings": (0, 0, 0)}, "nothing remains of images of 32 pixels"),
        ({"max_kernel_norms": (0.9, 0, 1)}, "max_kernel_norms=0 must be a positive number, or None"),
        ({"max_hidden_norm": "1"}, "max_hidden_norm='1' must be a positive number"),
        ({"initial_range": float("inf")}, "initial_range=inf must be a positive number"),
        ({"input_dropout": 1}, "input_dropout=1 must be a drop probability"),
        ({"input_shape": (7, 32, 3)}, "each side must be at least 8"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        MaxoutCNN(**options)
    assert "\n" not in str(caught.value)
