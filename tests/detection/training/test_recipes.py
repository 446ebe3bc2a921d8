"""Recipes of detectors: numbers, overrides, errors."""

import pytest

import keras_deepnets as kd
from keras_deepnets.detection import training
from keras_deepnets.detection.training.recipe import DetectionRecipe


def test_numbers_of_the_papers():
    ren = training.get_recipe("ren2015")
    assert (ren.base.steps, ren.base.learning_rate, ren.base.milestones) == (110_000, 1e-3, ("80000 steps",))
    assert (ren.sampling.anchors, ren.sampling.regions, ren.sampling.region_lowest) == (256, 128, 0.1)
    he = training.get_recipe("he2015_coco")
    assert (he.base.steps, he.base.batch_size, he.base.milestones) == (320_000, 8, ("240000 steps",))
    theirs = training.get_recipe("torchvision_coco")
    assert (theirs.base.epochs, theirs.base.learning_rate, theirs.base.weight_decay) == (26, 0.02, 1e-4)
    assert (theirs.sampling.regions, theirs.sampling.region_share, theirs.sampling.beta) == (512, 0.25, 1 / 9)


@pytest.mark.parametrize("name", training.recipes())
def test_a_recipe_survives_its_dictionary(name):
    recipe = training.get_recipe(name)
    again = DetectionRecipe.from_dict(recipe.to_dict())
    assert again.to_dict() == recipe.to_dict()
    assert set(recipe.to_dict()) == {"name", "source", "use", *DetectionRecipe.fields()}


def test_overrides_reach_every_part():
    recipe = training.get_recipe("fast", epochs=2, regions=64, min_sizes=[64, 96], clip_norm=None)
    assert (recipe.base.epochs, recipe.sampling.regions, recipe.min_sizes, recipe.clip_norm) == (2, 64, (64, 96), None)


def test_a_recipe_from_a_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: torchvision_coco\nepochs: 3\nregions: 99\n")
    recipe = training.get_recipe(file)
    assert (recipe.base.epochs, recipe.sampling.regions, recipe.base.learning_rate) == (3, 99, 0.02)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"epoch": 3}, "'epochs'"),
        ({"label_smoothing": 0.1}, "no field 'label_smoothing'"),
        ({"regions": 0}, "regions=0"),
        ({"anchor_share": 1.5}, "anchor_share=1.5"),
        ({"min_sizes": (0,)}, "min_sizes"),
        ({"augmentation": "flop"}, "flop"),
        ({"clip_norm": -1}, "clip_norm=-1"),
        ({"freeze": 2}, "freeze=2"),
        ({"learning_rate": -1}, "learning_rate"),
    ],
)
def test_wrong_values(values, words):
    with pytest.raises(kd.InputError, match=words):
        training.get_recipe("fast", **values)


def test_an_unknown_recipe():
    with pytest.raises(kd.InputError, match="torchvision_coco"):
        training.get_recipe("he2015_cifar")
