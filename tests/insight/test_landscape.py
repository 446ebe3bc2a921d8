import keras
import numpy as np
import pytest

import keras_deepnets as kd
from keras_deepnets.errors import InputError
from keras_deepnets.insight import draw_loss_surface, loss_surface
from keras_deepnets.insight.landscape import LossSurface, _direction, _figure


@pytest.fixture(scope="module")
def subject():
    keras.utils.set_random_seed(5)
    model = kd.ResNet(depth=8, stem="cifar", input_shape=(8, 8, 3), classes=4)
    random = np.random.default_rng(0)
    return model, random.integers(0, 256, (6, 8, 8, 3), np.uint8), random.integers(0, 4, 6)


def loss_of(model, images, labels):
    probabilities = np.asarray(model(kd.preprocess_input(images, model), training=False), np.float64)
    return -np.log(probabilities[np.arange(len(labels)), labels]).mean()


def test_directions_have_the_lengths_of_the_filters():
    weights = np.random.default_rng(1).normal(size=(3, 3, 2, 5)) * np.arange(1, 6)
    found = _direction(weights, np.random.default_rng(2))
    lengths = np.linalg.norm(found.reshape(-1, 5), axis=0)
    np.testing.assert_allclose(lengths, np.linalg.norm(weights.reshape(-1, 5), axis=0), rtol=1e-6)


def test_the_middle_and_a_corner(subject):
    model, images, labels = subject
    before = model.get_weights()
    surface = loss_surface(model, images, labels, points=3, extent=0.5, seed=7)
    assert surface.steps.tolist() == [-0.5, 0, 0.5] and surface.images == 6
    assert surface.losses[1, 1] == pytest.approx(loss_of(model, images, labels), rel=1e-4)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    # The corner at -0.5 along the second direction and +0.5 along the first, from the same random numbers.
    copy = keras.models.clone_model(model)
    copy.set_weights(before)
    random = np.random.default_rng(7)
    kernels = [weight for weight in copy.trainable_weights if len(weight.shape) > 1]
    first, second = ([_direction(np.asarray(weight), random) for weight in kernels] for _ in range(2))
    for weight, a, b in zip(kernels, first, second, strict=True):
        weight.assign(np.asarray(weight) + 0.5 * a - 0.5 * b)
    assert surface.losses[0, 2] == pytest.approx(loss_of(copy, images, labels), rel=1e-4)
    assert surface.losses[0, 2] != pytest.approx(surface.losses[2, 0], rel=1e-3)


def test_weights_are_restored_after_an_error(subject):
    model, images, labels = subject
    before = model.get_weights()

    def stop(done, every):
        assert every == 9
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loss_surface(model, images, labels, points=3, progress=stop)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_bad_input(subject, tmp_path):
    model, images, labels = subject
    for options, says in (({"points": 4}, "points=4"), ({"points": 1}, "points=1"), ({"extent": 0}, "extent=0")):
        with pytest.raises(InputError, match=says):
            loss_surface(model, images, labels, **options)
    with pytest.raises(InputError, match="6 whole numbers"):
        loss_surface(model, images, labels[:3])
    nothing = LossSurface(np.linspace(-1, 1, 3), np.full((3, 3), np.nan), 1)
    with pytest.raises(InputError, match="diverged"):
        draw_loss_surface(nothing, tmp_path / "surface.png")


def test_high_walls_do_not_flatten_the_valley(tmp_path):
    steps = np.linspace(-1, 1, 5)
    losses = 0.1 + 1000 * (steps[:, None] ** 2 + steps[None] ** 2) ** 3
    surface = LossSurface(steps, losses, 10)
    axes = _figure(surface, None).axes[0]
    levels = axes.collections[0].levels
    assert (levels < 10).sum() >= 5 and levels[-1] == pytest.approx(losses.max())
    assert "loss 0.1 of 10 images" in axes.get_title(loc="left")
    assert draw_loss_surface(surface, tmp_path / "surface.png", "walls").stat().st_size > 5000
