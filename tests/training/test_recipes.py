import dataclasses
import json
import subprocess
import sys

import pytest

from keras_deepnets.errors import InputError
from keras_deepnets.training import Recipe, get_recipe, recipes


def test_names():
    assert recipes() == ["fast", "he2015_cifar", "he2015_imagenet", "huang2017_cifar"]


def test_papers_numbers():
    he = get_recipe("he2015_cifar")
    assert (he.steps, he.batch_size, he.learning_rate, he.weight_decay) == (64_000, 128, 0.1, 1e-4)
    assert [at * he.steps for at in he.milestones] == [32_000, 48_000]
    assert (he.momentum, he.nesterov, he.weight_decay_on, he.augmentation) == (0.9, False, "all", "pad_crop_flip")
    imagenet = get_recipe("he2015_imagenet")
    assert (imagenet.steps, imagenet.batch_size, imagenet.schedule) == (600_000, 256, "plateau")
    huang = get_recipe("huang2017_cifar")
    assert (huang.epochs, huang.batch_size, huang.nesterov, huang.milestones) == (300, 64, True, (0.5, 0.75))


def test_warmup_is_for_110_layers():
    row = get_recipe("he2015_cifar")
    assert row.for_model("resnet56").warmup_steps == 0
    deep = row.for_model("resnet110")
    assert (deep.warmup_steps, deep.warmup_learning_rate, deep.warmup_shape) == (400, 0.01, "constant")


def test_total_steps():
    assert get_recipe("he2015_cifar").total_steps(390) == 64_000
    assert get_recipe("fast", epochs=2.5).total_steps(10) == 25
    assert get_recipe("fast", epochs=0.01).total_steps(10) == 1


def test_epochs_and_steps_replace_each_other():
    assert get_recipe("he2015_cifar", epochs=3).steps is None
    assert get_recipe("fast", steps=7).epochs is None
    with pytest.raises(InputError, match="exactly one"):
        get_recipe("fast", steps=7, epochs=3)


def test_whole_numbers_pass_as_floats_and_lists_as_tuples():
    row = get_recipe("fast", learning_rate=1, batch_size=64.0, milestones=[0.25, 0.5])
    assert row.learning_rate == 1.0 and isinstance(row.learning_rate, float)
    assert row.batch_size == 64 and isinstance(row.batch_size, int)
    assert row.milestones == (0.25, 0.5)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"learning_rat": 1},
            r"no field 'learning_rat'. Did you mean 'learning_rate'\? Its fields are: epochs, steps, ",
        ),
        ({"epochs": "ten"}, "epochs='ten' must be a number"),
        ({"epochs": 0}, "epochs=0.0 must be positive"),
        ({"batch_size": -1}, "batch_size=-1 must not be negative"),
        ({"batch_size": 1.5}, "batch_size=1.5 must be a whole number"),
        ({"batch_size": True}, "batch_size=True must be a whole number"),
        ({"learning_rate": float("nan")}, "learning_rate=nan must not be negative or infinite"),
        ({"nesterov": 1}, "nesterov=1 must be True or False"),
        ({"momentum": 1.0}, "momentum=1.0 must be below 1"),
        ({"schedule": "stairs"}, "schedule='stairs' is not one of 'constant', 'piecewise'"),
        ({"precision": "int8"}, "precision='int8' is not one of"),
        ({"milestones": (0.9, 0.5)}, "rising fractions"),
        ({"milestones": (32_000,)}, "rising fractions"),
        ({"milestones": 3}, "milestones=3 must be a list of numbers"),
        ({"augmentation": "mirror"}, "augment='mirror' is unknown"),
        ({"schedule": "plateau", "warmup_steps": 5}, "a plateau schedule has no warm-up"),
    ],
)
def test_wrong_overrides(overrides, message):
    with pytest.raises(InputError, match=message) as error:
        get_recipe("fast", **overrides)
    assert "\n" not in str(error.value)


def test_unknown_recipe():
    with pytest.raises(InputError, match=r"no recipe 'he2015'\. Did you mean 'he2015_cifar'"):
        get_recipe("he2015")


@pytest.mark.parametrize("name", recipes())
def test_round_trip(name):
    row = get_recipe(name)
    assert Recipe.from_dict(json.loads(json.dumps(row.to_dict()))) == row
    assert row.source
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.epochs = 3


def test_importing_needs_neither_tensorflow_nor_keras():
    code = (
        "import sys, keras_deepnets.training as t, keras_deepnets.insight; t.recipes(); dir(t); "
        "print([name for name in ('keras', 'tensorflow', 'matplotlib', 'rich') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
