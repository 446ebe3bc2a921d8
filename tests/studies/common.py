"""A study as small as they come, and results without training."""

import copy

import yaml

from keras_deepnets import studies
from keras_deepnets.studies.results import Result

TINY = {
    "title": "Plain against residual",
    "claim": "A residual network has a lower training error.",
    "data": "digits",
    "limit": 64,
    "test": 40,
    "set": {"epochs": 2, "batch_size": 16, "image_size": 8, "precision": "float32"},
    "options": {"stem": "cifar", "depth": 8},
    "runs": [{"network": "{net}net", "net": ["plain", "res"]}],
    "verdict": [
        {
            "says": "The residual network has a lower training error.",
            "measure": "train_error",
            "lower": {"net": "res"},
            "higher": {"net": "plain"},
        }
    ],
}


def written(path, **changed):
    """Writes the tiny study with some keys changed; a value of `...` removes a key."""
    values = copy.deepcopy(TINY) | changed
    values = {key: value for key, value in values.items() if value is not ...}
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return path


def tiny(folder, **changed):
    return studies.load(written(folder / "tiny.yaml", **changed))


def result(seed=0, maps=(), **values):
    """A result of the tiny study: labels and measures by name."""
    labels = {name: values.pop(name) for name in ("net", "depth", "trial") if name in values}
    last = {"train_error": 50.0, "test_error": 60.0, "parameters": 1e5, "seconds": 3.0} | values
    curves = {
        "epoch": [1, 2, 3],
        "train_error": [90.0, 70.0, last["train_error"]],
        "test_error": [92.0, 80.0, last["test_error"]],
    }
    name = "-".join(map(str, [*labels.values(), seed]))
    labels = {"network": "resnet", "seed": seed} | labels
    return Result(name, labels, {}, last, curves, dict(maps))
