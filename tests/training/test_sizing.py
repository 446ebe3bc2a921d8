"""How long a run is and how large its batches are, by the number of training images."""

import pytest

from keras_deepnets.errors import InputError
from keras_deepnets.training import get_recipe
from keras_deepnets.training.sizing import sized


@pytest.mark.parametrize(
    ("images", "batch", "epochs"),
    [(8, 8, 200), (27, 8, 200), (144, 8, 84), (450, 16, 54), (1620, 64, 60), (5000, 128, 39), (50_000, 128, 20)],
)
def test_fast(images, batch, epochs):
    recipe = sized(get_recipe("fast"), images)
    assert (recipe.batch_size, recipe.epochs) == (batch, epochs)
    assert recipe.learning_rate == pytest.approx(0.2 * batch / 128)


@pytest.mark.parametrize(
    ("images", "batch", "epochs", "head"),
    [(27, 8, 20, 30), (144, 8, 20, 30), (900, 32, 20, 30), (3450, 32, 10, 19), (30_000, 32, 5, 3)],
)
def test_fine_tune(images, batch, epochs, head):
    recipe = sized(get_recipe("fine_tune"), images)
    assert (recipe.batch_size, recipe.epochs, recipe.head_epochs) == (batch, epochs, head)
    assert recipe.learning_rate == 4e-3  # Muon's does not depend on the batch


@pytest.mark.parametrize("images", [8, 9, 20, 33, 100, 1000, 12_345, 1_281_167])
@pytest.mark.parametrize("name", ["fast", "fine_tune"])
def test_never_a_handful_of_steps(name, images):
    recipe = sized(get_recipe(name), images)
    steps = recipe.total_steps(images // recipe.batch_size, recipe.batch_size)
    assert steps >= min(images, 200)


def test_what_the_caller_sets_wins():
    recipe = sized(get_recipe("fast", epochs=3, batch_size=50, learning_rate=0.03), 144)
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (3, 50, 0.03)
    recipe = sized(get_recipe("fast", batch_size=32), 144)
    assert recipe.learning_rate == pytest.approx(0.05)  # of the batch
    recipe = sized(get_recipe("fast", steps=77), 144)
    assert recipe.steps == 77 and recipe.epochs is None


def test_recipes_of_papers_stay_as_they_are():
    recipe = get_recipe("he2015_cifar")
    assert sized(recipe, 50_000) == recipe


def test_no_more_images_in_a_batch_than_there_are():
    assert sized(get_recipe("he2015_cifar"), 96).batch_size == 96
    assert sized(get_recipe("fast"), 5).batch_size == 5


def test_auto_is_for_three_fields():
    with pytest.raises(InputError, match="learning_rate='auto' must be a number"):
        get_recipe("fast", learning_rate="auto")
    with pytest.raises(InputError, match="batch_size='many' must be a whole number or 'auto'"):
        get_recipe("fast", batch_size="many")
    with pytest.raises(InputError, match="needs the data"):
        get_recipe("fast").total_steps(10)
