"""Training recipes as the command shows them."""

import dataclasses
import re
import subprocess
import sys

import pytest

from keras_deepnets import training
from keras_deepnets.training.recipe import Recipe
from keras_deepnets.training.recipe_fields import choices, meanings, recipe_fields
from keras_deepnets.training.recipes import get_recipe


def test_a_line_for_each_recipe_says_when_to_use_it(cli):
    done = cli("recipes")
    lines = [re.split(r"\s{2,}", line) for line in done.out.splitlines()]
    assert lines[0] == ["recipe", "length", "when to use it"]
    assert [line[0] for line in lines[1:-1]] == training.recipes()
    assert [line[2] for line in lines[1:-1]] == [get_recipe(name).use for name in training.recipes()]
    assert all(line[2].endswith(".") for line in lines[1:-1])
    assert ["he2015_cifar", "64,000 steps"] in [line[:2] for line in lines]
    values = cli("recipes", "--json").json
    assert [value["name"] for value in values] == training.recipes()
    assert values[0].keys() == {"name", "use", "source", "length"}


@pytest.mark.parametrize("name", ["fast", "he2015_cifar", "wightman2021_a1"])
def test_the_fields_of_one(cli, name):
    recipe = get_recipe(name)
    values = cli("recipes", name, "--json").json
    assert {entry["name"]: entry["value"] for entry in values["fields"]} == {
        field: value for field, value in recipe.to_dict().items() if field not in ("name", "source", "use")
    }
    assert (values["name"], values["use"], values["source"]) == (name, recipe.use, recipe.source)
    lines = cli("recipes", name).out.splitlines()
    assert lines[:2] == [f"{name}: {recipe.use}", f"Numbers: {recipe.source}."]
    assert lines[3].split() == ["field", "value", "allowed", "meaning"]
    assert [line.split()[0] for line in lines[4:]] == [entry["name"] for entry in values["fields"]]
    row = re.split(r"\s{2,}", next(line for line in lines if line.startswith("learning_rate ")))
    assert row[:3] == ["learning_rate", str(recipe.learning_rate), "number above 0"]
    assert row[3] == meanings()["learning_rate"]


def test_every_field_has_a_meaning_and_says_what_it_may_be():
    assert all(meanings().values()), [name for name, text in meanings().items() if not text]
    assert set(meanings()) == {field.name for field in dataclasses.fields(Recipe)}
    found = {field.name: field for field in recipe_fields(get_recipe("fast"))}
    assert found["schedule"].allowed == "constant, piecewise, one_cycle, cosine, plateau, exponential, linear"
    assert found["epochs"].allowed == "number above 0, or auto, or none"
    assert found["batch_size"].allowed == "whole number above 0, or auto"
    assert found["momentum"].allowed == "number from 0 to below 1"
    assert found["nesterov"].allowed == "true, false"
    assert found["warmup"].allowed == "whole number from 0, or a duration"
    assert found["milestones"].allowed == "list of fractions of the run or durations"
    assert found["ema"].allowed == "number from 0 to below 1, or none"
    assert (
        found["augmentation"].allowed.startswith("auto, pad_crop_flip, ") and "mixup" in found["augmentation"].choices
    )
    assert found["augmentation"].allowed.endswith(", or several joined by +, or none")
    assert found["ema"].default is None and found["momentum"].default == 0.9


@pytest.mark.parametrize("name", ["schedule", "optimizer", "loss", "precision", "augmentation", "keep", "batch_norm"])
def test_what_is_allowed_is_what_a_recipe_takes(name):
    for value in choices(name):
        changes = {name: value} | ({"ema": None} if name == "optimizer" else {})
        assert get_recipe("fast", **changes) is not None
    with pytest.raises(ValueError, match=r"'nonsense' is (not one of|unknown)"):
        get_recipe("fast", **{name: "nonsense"})


def test_a_file_and_what_is_no_recipe(cli, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: he2015_cifar\nbatch_size: 32\nuse: My own images.\n")
    values = cli("recipes", path, "--json").json
    assert (values["name"], values["use"]) == ("mine", "My own images.")
    assert {"name": "batch_size", "value": 32}.items() <= next(
        entry for entry in values["fields"] if entry["name"] == "batch_size"
    ).items()
    assert cli("recipes", "fasst").error.startswith("There is no recipe 'fasst'. Did you mean 'fast'?")
    assert cli("recipes", tmp_path / "none.yaml").error.startswith(f"Cannot read recipe {tmp_path / 'none.yaml'}")


def test_no_tensorflow():
    code = (
        "import sys; from keras_deepnets.cli import main; main(['recipes']); main(['recipes', 'fine_tune']);"
        "sys.exit(', '.join({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "head_epochs" in done.stdout, done.stderr


def test_when_to_use_a_recipe_is_no_part_of_a_runs_identity(tmp_path):
    comparable = training.RunFolder(tmp_path)._comparable
    recipe = get_recipe("fast")
    identity = {"model": {}, "data": {}, "validation": None, "precision": "float32", "seed": 0}
    other = dataclasses.replace(recipe, use="Never.")
    assert comparable(identity | {"recipe": recipe.to_dict()}) == comparable(identity | {"recipe": other.to_dict()})
    older = {name: value for name, value in recipe.to_dict().items() if name != "use"}
    assert comparable(identity | {"recipe": older}) == comparable(identity | {"recipe": recipe.to_dict()})
    with pytest.raises(ValueError, match="no field 'use'"):
        get_recipe("fast", use="Often.")
