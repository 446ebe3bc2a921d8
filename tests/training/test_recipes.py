import dataclasses
import json
import subprocess
import sys

import pytest

from keras_deepnets.errors import InputError
from keras_deepnets.training import Recipe, durations, get_recipe, loop, recipes
from keras_deepnets.training.schedules import learning_rate


def test_names():
    assert recipes() == [
        "fast",
        "fine_tune",
        "imagenette_5",
        "imagenette_20",
        "he2015_cifar",
        "he2015_imagenet",
        "he2016_cifar",
        "huang2016_stochastic_depth",
        "zagoruyko2016",
        "xie2016_cifar",
        "xie2016_imagenet",
        "huang2017_cifar",
        "huang2017_cifar_plain",
        "huang2017_svhn",
        "huang2017_imagenet",
        "srivastava2015_mnist",
        "srivastava2015_cifar",
        "wightman2021_a1",
        "wightman2021_a2",
        "wightman2021_a3",
        "lin2013_cifar",
        "springenberg2014_cifar",
        "lee2014_cifar",
        "goodfellow2013_cifar",
        "larsson2016_cifar",
        "simonyan2014_imagenet",
        "szegedy2014_imagenet",
        "ioffe2015_imagenet",
        "he2015_prelu_imagenet",
    ]


SGD = {
    "optimizer": "sgd",
    "loss": "crossentropy",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "nesterov": False,
    "relative_rate": False,
    "drop": 0.1,
}
SGD |= {"weight_decay": 1e-4, "weight_decay_on": "all", "label_smoothing": 0.0, "ema": None, "repeated_augmentation": 1}
SGD |= {"input_scaling": "statistics", "crop_fraction": None, "image_size": None, "warmup": 0, "precision": "float32"}
NESTEROV = SGD | {"nesterov": True, "schedule": "piecewise"}
LAMB = {
    "optimizer": "lamb",
    "loss": "binary_crossentropy",
    "batch_size": 2048,
    "schedule": "cosine",
    "warmup": "5 epochs",
}
LAMB |= {"weight_decay": 0.02, "weight_decay_on": "kernels", "label_smoothing": 0.0, "repeated_augmentation": 3}
IMAGENETTE = {"batch_size": 64, "image_size": 128, "optimizer": "muon", "schedule": "one_cycle"}
IMAGENETTE |= {"peak_at": 0.25, "momentum": 0.95, "weight_decay": 0.05, "label_smoothing": 0.1}
LAMB |= {"crop_fraction": 0.95, "image_size": None, "ema": None, "model_options": {"stochastic_depth": 0.05}}
JITTER = "random_resized_crop_flip+color_jitter(strength=0.4)+lighting(deviation=0.1)"
STRONG = "random_resized_crop_flip+rand_augment(magnitude={}, probability=0.5, deviation=0.5)+mixup(alpha={})+cutmix(alpha=1)"

# The numbers as the papers print them; lengths and drops in the unit that the paper uses.
NUMBERS = {
    "fast": {
        "epochs": "auto",
        "batch_size": "auto",
        "learning_rate": 0.2,
        "learning_rate_batch": 128,
        "schedule": "one_cycle",
        "peak_at": 0.25,
        "ema": 0.99,
    }
    | {"nesterov": True, "weight_decay": 5e-4, "weight_decay_on": "kernels", "label_smoothing": 0.1}
    | {"augmentation": "auto", "precision": "auto"},
    "fine_tune": {"epochs": "auto", "batch_size": "auto", "head_epochs": "auto", "optimizer": "muon"}
    | {"learning_rate": 4e-3, "relative_rate": True, "momentum": 0.95, "weight_decay": 0.05}
    | {"schedule": "cosine", "warmup": "10 %"}
    | {
        "weight_decay_on": "kernels",
        "batch_norm": "auto",
        "keep": "auto",
        "label_smoothing": 0.1,
        "augmentation": "auto",
    },
    "imagenette_5": IMAGENETTE
    | {"epochs": 5, "learning_rate": 4e-3, "augmentation": "random_resized_crop_flip(area=0.35)"},
    "imagenette_20": IMAGENETTE
    | {"epochs": 20, "learning_rate": 6e-3, "ema": 0.99}
    | {"augmentation": "random_resized_crop_flip(area=0.35)+color_jitter(strength=0.3)+mixup(alpha=0.2)"},
    "he2015_cifar": SGD
    | {"steps": 64_000, "batch_size": 128, "drops": [32_000, 48_000], "augmentation": "pad_crop_flip"},
    "he2015_imagenet": SGD
    | {"steps": 600_000, "batch_size": 256, "schedule": "plateau"}
    | {"augmentation": "scale_crop_flip(low=256, high=480)+lighting(deviation=0.1)"},
    "he2016_cifar": SGD
    | {"steps": 64_000, "batch_size": 128, "drops": [32_000, 48_000], "augmentation": "pad_crop_flip"}
    | {"warmup": "400 steps", "warmup_learning_rate": 0.01, "warmup_shape": "constant"},
    "huang2016_stochastic_depth": NESTEROV
    | {"epochs": 500, "batch_size": 128, "drops": [250, 375], "augmentation": "pad_crop_flip"},
    "zagoruyko2016": NESTEROV
    | {"epochs": 200, "batch_size": 128, "drops": [60, 120, 160], "drop": 0.2, "weight_decay": 5e-4}
    | {"augmentation": "reflect_crop_flip"},
    "xie2016_cifar": NESTEROV
    | {"epochs": 300, "batch_size": 128, "drops": [150, 225], "weight_decay": 5e-4, "augmentation": "pad_crop_flip"},
    "xie2016_imagenet": NESTEROV | {"epochs": 120, "batch_size": 256, "drops": [30, 60, 90], "augmentation": JITTER},
    "huang2017_cifar": NESTEROV
    | {"epochs": 300, "batch_size": 64, "drops": [150, 225], "augmentation": "pad_crop_flip", "model_options": {}},
    "huang2017_cifar_plain": NESTEROV
    | {"epochs": 300, "batch_size": 64, "drops": [150, 225], "augmentation": None, "model_options": {"dropout": 0.2}},
    "huang2017_svhn": NESTEROV
    | {"epochs": 40, "batch_size": 64, "drops": [20, 30], "augmentation": None, "model_options": {"dropout": 0.2}}
    | {"input_scaling": "unit"},
    "huang2017_imagenet": NESTEROV | {"epochs": 90, "batch_size": 256, "drops": [30, 60], "augmentation": JITTER},
    "srivastava2015_mnist": SGD
    | {"epochs": 400, "batch_size": 128, "learning_rate": 0.01, "schedule": "exponential", "drop": 0.01}
    | {"weight_decay": 0.0, "augmentation": None},
    "srivastava2015_cifar": NESTEROV
    | {"steps": 200_000, "batch_size": 100, "learning_rate": 0.025, "drops": [100_000, 150_000, 175_000]}
    | {"weight_decay": 1e-3, "weight_decay_on": "kernels", "augmentation": "pad_crop_flip(padding=8)"},
    "lin2013_cifar": SGD
    | {"epochs": 200, "batch_size": 128, "schedule": "piecewise", "drops": [160, 180], "weight_decay_on": "kernels"}
    | {"rate_factors": {"predictions": 0.1}, "input_scaling": "zca", "augmentation": "pad_crop_flip"},
    "springenberg2014_cifar": SGD
    | {"epochs": 350, "batch_size": 128, "learning_rate": 0.01, "drops": [200, 250, 300], "weight_decay": 1e-3}
    | {"weight_decay_on": "kernels", "input_scaling": "zca", "augmentation": "pad_crop_flip(padding=5)"},
    "lee2014_cifar": SGD
    | {"steps": 320_000, "batch_size": 100, "learning_rate": 0.025, "loss": "squared_hinge", "weight_decay": 5e-4}
    | {"drops": [170_000], "drop": 0.004, "input_scaling": "gcn", "weight_decay_on": "kernels", "auxiliary_fade": True}
    | {"model_options": {"auxiliary": True}},
    "goodfellow2013_cifar": SGD
    | {"epochs": 474, "batch_size": 128, "learning_rate": 0.17, "momentum": 0.65, "momentum_start": 0.5}
    | {"momentum_ramp": "250 epochs", "schedule": "linear", "drop": 0.062, "weight_decay": 0.0}
    | {"rate_factors": {"conv": 0.05}, "input_scaling": "zca", "augmentation": "pad_crop_flip(padding=8)"}
    | {"model_options": {"initial_range": 0.005}},
    "larsson2016_cifar": SGD
    | {"epochs": 400, "batch_size": 100, "learning_rate": 0.02, "drops": [200, 300, 350, 375], "weight_decay": 0.0},
    "simonyan2014_imagenet": SGD
    | {"epochs": 74, "batch_size": 256, "learning_rate": 0.01, "schedule": "plateau", "weight_decay": 5e-4}
    | {"weight_decay_on": "kernels"},
    "szegedy2014_imagenet": SGD
    | {"epochs": 60, "batch_size": 32, "learning_rate": 0.01, "drops": list(range(8, 60, 8)), "drop": 0.96}
    | {"weight_decay": 2e-4, "weight_decay_on": "kernels", "ema": 0.9999, "model_options": {"auxiliary": True}},
    "ioffe2015_imagenet": SGD
    | {"epochs": 60, "batch_size": 32, "learning_rate": 7.5e-3, "drops": list(range(4, 60, 4)), "drop": 0.885}
    | {"weight_decay": 4e-5, "weight_decay_on": "kernels"},
    "he2015_prelu_imagenet": SGD
    | {"epochs": 80, "batch_size": 128, "learning_rate": 0.01, "schedule": "plateau", "weight_decay": 5e-4}
    | {"weight_decay_on": "kernels"},
    "wightman2021_a1": LAMB
    | {"epochs": 600, "learning_rate": 5e-3, "weight_decay": 0.01, "label_smoothing": 0.1}
    | {"augmentation": STRONG.format(7, 0.2)},
    "wightman2021_a2": LAMB | {"epochs": 300, "learning_rate": 5e-3, "augmentation": STRONG.format(7, 0.1)},
    "wightman2021_a3": LAMB
    | {"epochs": 100, "learning_rate": 8e-3, "image_size": 160, "repeated_augmentation": 1, "model_options": {}}
    | {"augmentation": STRONG.format(6, 0.1)},
}


@pytest.mark.parametrize("name", recipes())
def test_papers_numbers(name):
    row, expected = get_recipe(name), dict(NUMBERS[name])
    drops = expected.pop("drops", [])
    assert {field: getattr(row, field) for field in expected} == expected
    whole = expected.get("steps") or expected["epochs"]
    found = [float(at.split()[0]) if isinstance(at, str) else at * whole for at in row.milestones]
    assert found == pytest.approx(drops)
    lengths = {"epochs", "steps", "examples"}
    assert {length for length in lengths if getattr(row, length) is not None} == lengths & set(expected)


@pytest.mark.parametrize(
    ("name", "model", "expected"),
    [
        ("he2015_cifar", "resnet110", {"warmup": "400 steps", "warmup_learning_rate": 0.01, "steps": 64_000}),
        (
            "huang2016_stochastic_depth",
            "stochasticdepthresnet1202",
            {"epochs": 300, "batch_size": 64, "warmup": "10 epochs", "warmup_learning_rate": 0.01},
        ),
        ("huang2016_stochastic_depth", "stochasticdepthresnet110", {"epochs": 500, "batch_size": 128, "warmup": 0}),
        ("huang2017_imagenet", "densenet161", {"epochs": 100, "batch_size": 128}),
        ("huang2017_imagenet", "densenet121", {"epochs": 90, "batch_size": 256}),
    ],
)
def test_papers_exceptions(name, model, expected):
    row = get_recipe(name).for_model(model)
    assert {field: getattr(row, field) for field in expected} == expected


def test_learning_rates_of_exceptions():
    for name, model, size, rates in (
        (
            "huang2016_stochastic_depth",
            "stochasticdepthresnet1202",
            45_000,
            {0: 0.01, 9: 0.01, 11: 0.1, 149: 0.1, 151: 0.01, 226: 1e-3},
        ),
        ("huang2017_imagenet", "densenet161", 1_281_167, {0: 0.1, 31: 0.01, 61: 1e-3, 89: 1e-3, 91: 1e-4}),
    ):
        row = get_recipe(name).for_model(model)
        steps_per_epoch = size // row.batch_size
        schedule = learning_rate(row, row.total_steps(steps_per_epoch), steps_per_epoch)
        found = [float(schedule(epoch * steps_per_epoch)) for epoch in rates]
        assert found == pytest.approx(list(rates.values()), rel=1e-4)


def test_warmup_is_for_110_layers():
    row = get_recipe("he2015_cifar")
    assert row.for_model("resnet56").warmup == 0
    deep = row.for_model("resnet110")
    assert (deep.warmup, deep.warmup_learning_rate, deep.warmup_shape) == ("400 steps", 0.01, "constant")


def test_what_is_asked_for_holds_of_every_network(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: he2015_cifar\nwarmup: 0\n")
    deep = get_recipe(path).for_model("resnet110")
    assert (deep.warmup, deep.warmup_learning_rate) == (0, 0.01)
    assert get_recipe("he2015_cifar", warmup="9 steps").for_model("resnet110").warmup == "9 steps"
    assert get_recipe("he2015_cifar", batch_size=32).for_model("resnet110").warmup == "400 steps"
    row = Recipe(name="own", source="", epochs=3, exceptions={"resnet20": {"epochs": 7}})
    assert row.for_model("resnet20").epochs == 7
    changed = row.with_overrides(steps=5).for_model("resnet20")
    assert (changed.steps, changed.epochs, row.with_overrides(steps=5).exceptions) == (5, None, {})


def test_numbers_that_yaml_reads_as_text(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: fast\nweight_decay: 5e-4\nepochs: 1e1\nbatch_size: 1e2\nema: null\n")
    row = get_recipe(path)
    assert (row.weight_decay, row.epochs, row.batch_size, row.ema) == (5e-4, 10.0, 100, None)
    assert isinstance(row.batch_size, int)
    for field, text in (("batch_size", "1.5"), ("weight_decay", "5e-4x"), ("epochs", "nan"), ("nesterov", "'1'")):
        path.write_text(f"base: fast\n{field}: {text}\n")
        with pytest.raises(InputError, match=f"{field}="):
            get_recipe(path)


@pytest.mark.parametrize(
    ("name", "size", "rates"),
    # The learning rate at epochs of training sets of the papers' sizes, as the papers print it.
    [
        ("he2016_cifar", 50_000, {0: 0.01, 1: 0.01, 2: 0.1, 81: 0.1, 83: 0.01, 122: 0.01, 124: 0.001}),
        ("huang2016_stochastic_depth", 45_000, {0: 0.1, 249: 0.1, 251: 0.01, 374: 0.01, 376: 0.001, 499: 0.001}),
        ("zagoruyko2016", 50_000, {0: 0.1, 59: 0.1, 61: 0.02, 121: 0.004, 161: 0.0008, 199: 0.0008}),
        ("xie2016_cifar", 50_000, {0: 0.1, 149: 0.1, 151: 0.01, 226: 0.001}),
        ("xie2016_imagenet", 1_281_167, {0: 0.1, 29: 0.1, 31: 0.01, 61: 0.001, 91: 0.0001, 119: 0.0001}),
        ("huang2017_cifar_plain", 50_000, {0: 0.1, 149: 0.1, 151: 0.01, 226: 0.001}),
        ("huang2017_svhn", 604_388, {0: 0.1, 19: 0.1, 21: 0.01, 31: 0.001}),
        ("huang2017_imagenet", 1_281_167, {0: 0.1, 29: 0.1, 31: 0.01, 61: 0.001}),
        ("wightman2021_a1", 1_281_167, {0: 0.0, 5: 0.005 * 0.99983, 300: 0.0025}),
        ("wightman2021_a3", 1_281_167, {0: 0.0, 50: 0.004}),
    ],
)
def test_learning_rates_at_epochs(name, size, rates):
    row = get_recipe(name)
    steps_per_epoch = size // row.batch_size
    steps = row.total_steps(steps_per_epoch)
    schedule = learning_rate(row, steps, steps_per_epoch)
    for epoch, rate in rates.items():
        assert float(schedule(epoch * steps_per_epoch)) == pytest.approx(rate, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize(
    ("length", "steps"),
    [
        (400, 400),
        (0.25, 250),
        ("400 steps", 400),
        ("64_000 iterations", 64_000),
        ("5 epochs", 50),
        ("1.5 epochs", 15),
        ("1e3 examples", 16),
        ("2 %", 20),
        ("50 percent", 500),
    ],
)
def test_durations(length, steps):
    assert durations.in_steps(length, steps=1000, steps_per_epoch=10, batch_size=64) == steps


def test_examples_as_length():
    row = get_recipe("he2015_cifar", examples=10_000)
    assert row.steps is None and row.total_steps(390) == 79
    assert get_recipe(row, epochs=2).examples is None


def test_milestones_that_do_not_rise_in_this_run():
    row = get_recipe("he2015_cifar", milestones=("5 epochs", "30 steps"))
    with pytest.raises(InputError, match=r"are steps \[50, 30\] of this run, which do not rise"):
        learning_rate(row, 100, 10)


def test_recipes_from_files(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: huang2017_cifar\nepochs: 5\nmilestones: [0.5, 4 epochs]\nwarmup: 10 steps\n")
    row = get_recipe(str(path), batch_size=32)
    assert (row.name, row.epochs, row.milestones, row.warmup) == ("mine", 5, (0.5, "4 epochs"), "10 steps")
    assert (row.batch_size, row.nesterov, row.weight_decay) == (32, True, 1e-4)
    path.write_text("name: own\nsteps: 20\nlearning_rate: 0.05\nmodel_options: {dropout: 0.1}\n")
    row = get_recipe(path)
    assert (row.name, row.steps, row.learning_rate, row.model_options) == ("own", 20, 0.05, {"dropout": 0.1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 0.1", "has no length"),
        ("base: fats\nepochs: 3", "no recipe 'fats'. Did you mean 'fast'"),
        ("base: fast\nlr: 3", "no field 'lr'"),
        ("- fast", "must hold fields"),
        ("base: [", "is not YAML"),
        ("base: fast\nwarmup: soon", "'soon' is not a duration"),
    ],
)
def test_bad_recipe_files(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as error:
        get_recipe(path)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="Cannot read recipe"):
        get_recipe(tmp_path / "none.yaml")


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
        ({"relative_rate": True}, "relative_rate=True is for optimizer='muon', not 'sgd'"),
        ({"nesterov": 1}, "nesterov=1 must be True or False"),
        ({"crop_fraction": 1.5}, r"crop_fraction=1.5 must be at most 1; 0.875 keeps"),
        ({"crop_fraction": 0}, "crop_fraction=0.0 must be positive"),
        ({"momentum": 1.0}, "momentum=1.0 must be below 1"),
        ({"schedule": "stairs"}, "schedule='stairs' is not one of 'constant', 'piecewise'"),
        ({"precision": "int8"}, "precision='int8' is not one of"),
        ({"milestones": (0.9, 0.5)}, "rising fractions"),
        ({"milestones": (32_000,)}, "rising fractions"),
        ({"milestones": 3}, "milestones=3 must be a list of numbers"),
        ({"model_options": 3}, "model_options=3 must map names to values"),
        ({"augmentation": "mirror"}, "augment='mirror' is unknown"),
        ({"schedule": "plateau", "warmup": 5}, "a plateau schedule has no warm-up"),
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


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "resnext50_32x4d", "wideresnet50_2"])
def test_networks_of_photographs_have_the_options_of_the_imagenette_recipes(name):
    for recipe in ("imagenette_5", "imagenette_20"):
        assert loop._missing_options(name, get_recipe(recipe)) == []
    assert loop._missing_options("resnet20", get_recipe("imagenette_20")) == ["deep_stem", "antialias"]
